//! The keys of a mapping, each asked for by name; what nobody asked for is named.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::import::Cx;
use crate::keys::Row;
use crate::yaml::Node;

/// A mapping that is being read.
pub(crate) struct Fields<'n> {
    pub(crate) node: &'n Node,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'n> Fields<'n> {
    pub(crate) fn new(node: &'n Node) -> Self {
        Self { node, asked: RefCell::default() }
    }

    /// Returns the value of a key, if it has one.
    pub(crate) fn get(&self, key: &'static str) -> Option<&'n Rc<Node>> {
        self.asked.borrow_mut().insert(key);
        self.node.get(key).filter(|node| !node.is_null())
    }

    /// Names all keys that nobody asked for, by a table of those that are known.
    pub(crate) fn finish(self, cx: &Cx, table: &[Row]) {
        let asked = self.asked.into_inner();
        for (key, node) in self.node.map().unwrap_or_default() {
            if asked.contains(key.as_str()) {
                continue;
            }
            match table.iter().find(|row| row.key == key) {
                Some(row) => cx.findings.name(node, row.what, row.instead),
                None if key.starts_with("x-") => {
                    // Anchors in it may be used elsewhere, and are so counted there.
                    cx.findings.note(node, "an extension, which Compose passes over as well", "");
                    node.use_all();
                }
                None => cx.findings.name(node, format!("`{key}` is not known here, and was left out"), ""),
            }
        }
    }
}
