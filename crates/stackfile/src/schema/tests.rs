use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{OPEN, STACK, Shape, memory};
use crate::{Inputs, load_from, render};

type Asked = BTreeMap<&'static str, (BTreeSet<&'static str>, BTreeSet<&'static str>)>;

thread_local! {
    static ASKED: RefCell<Asked> = RefCell::default();
}

pub(super) fn asked(shape: &'static Shape, keys: &[&'static str], blocks: &[&'static str]) {
    ASKED.with_borrow_mut(|asked| {
        let entry = asked.entry(shape.name).or_default();
        entry.0.extend(keys);
        entry.1.extend(blocks);
    });
}

/// Every kind of block, so that the decoder asks for all it knows.
const EVERYTHING: &str = include_str!("everything.hcl");

/// Keys that are known for all blocks of a kind before these are decoded.
const BEFORE: &[(&str, &str)] = &[("image", "for_each"), ("service", "for_each"), ("job", "for_each")];

fn shapes(shape: &'static Shape, all: &mut BTreeMap<&'static str, &'static Shape>) {
    if shape.name != OPEN.name && all.insert(shape.name, shape).is_none() {
        for inner in shape.blocks {
            shapes(inner.shape, all);
        }
    }
}

#[test]
fn the_table_says_what_the_decoder_asks() {
    let files = memory::Memory::new(&[("/s/all.hcl", EVERYTHING), ("/s/m/m.hcl", "variable \"a\" {}"), ("/s/x", "x")]);
    let loaded = load_from(&files, Path::new("/s/all.hcl"), &Inputs::default());
    assert_eq!(render(&loaded, false), "");
    let asked = ASKED.take();
    let mut all = BTreeMap::new();
    shapes(&STACK, &mut all);
    for (name, shape) in all {
        // These are read without being asked for by name.
        if ["stack", "locals", "step"].contains(&name) {
            continue;
        }
        let (keys, blocks) = asked.get(name).unwrap_or_else(|| panic!("{name} is not in everything.hcl"));
        let before = |key: &&str| !BEFORE.contains(&(name, *key));
        let table: BTreeSet<&str> = shape.keys.iter().map(|key| key.name).filter(before).collect();
        let keys: BTreeSet<&str> = keys.iter().copied().filter(before).collect();
        assert_eq!(keys, table, "keys of {name}: asked for, and in the table");
        let table: BTreeSet<&str> = shape.blocks.iter().map(|inner| inner.word).collect();
        assert_eq!(*blocks, table, "blocks of {name}: asked for, and in the table");
    }
}
