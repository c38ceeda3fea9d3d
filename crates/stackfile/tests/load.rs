//! Whole stacks: what they become, and that no input does harm.

mod memory;

use std::path::Path;

use basalt_model::{HealthCheck, ImageSource, Millis, Share, Strategy, Volume};
use basalt_stackfile::{Inputs, Loaded, load_from, render};
use memory::Memory;

/// The example of the handbook, with everything that a service can say.
const SHOP: &str = include_str!("shop.hcl");

fn load(text: &str, inputs: &Inputs) -> Loaded {
    let files = Memory::new(&[("/s/shop.hcl", text), ("/s/app.toml.tpl", "port = ${port}\n"), ("/bin/busybox", "ELF")]);
    load_from(&files, Path::new("/s/shop.hcl"), inputs)
}

#[test]
fn the_example_loads() {
    let loaded = load(SHOP, &Inputs::default());
    assert_eq!(render(&loaded, false), "");
    let stack = loaded.stack.unwrap();
    assert_eq!(stack.name.as_str(), "shop");
    insta::assert_snapshot!(serde_json::to_string_pretty(&stack).unwrap());
}
