//! No input does harm: random bytes and torn stacks end in a stack or in faults.

mod convert;
mod memory;

use std::path::Path;

use basalt_stackfile::{Inputs, format, load_from, render};
use memory::Memory;
use proptest::prelude::*;

const SHOP: &str = include_str!("shop.hcl");

fn survives(text: &str) {
    survives_as("hcl", text);
    if let Some(formatted) = format(text) {
        assert_eq!(format(&formatted).as_deref(), Some(formatted.as_str()), "formatting twice is formatting once");
    }
}

fn survives_as(kind: &str, text: &str) {
    let path = format!("/s/shop.{kind}");
    let files = Memory::new(&[(&path, text), ("/s/app.toml.tpl", text), ("/bin/busybox", "ELF")]);
    let loaded = load_from(&files, Path::new(&path), &Inputs::default());
    assert_eq!(loaded.stack.is_none(), loaded.has_errors());
    let rendered = render(&loaded, true);
    assert_eq!(rendered.is_empty(), loaded.diagnostics.is_empty());
}

/// Pieces that mean something to the language.
const PIECES: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "\"",
    "${",
    "%{ if ",
    "%{ endif }",
    "<<E\n",
    "\nE\n",
    "=",
    ",",
    "...",
    ".*",
    "[*]",
    "null",
    "var.",
    "local.a",
    "for x in ",
    " : ",
    " ? ",
    "-",
    "99999999999999999999",
    "1e999",
    "é",
    "\u{0}",
    "service \"a\" {\n",
    "image.web",
    "\n",
    " ",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_text(text in ".{0,200}") {
        survives(&text);
    }

    #[test]
    fn random_pieces(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        survives(&pieces.concat());
        survives(&format!("locals {{ a = {} }}\n", pieces.concat()));
    }

    #[test]
    fn a_torn_stack(start in 0..SHOP.len(), length in 0usize..30, piece in prop::sample::select(&PIECES[..])) {
        let end = (start + length).min(SHOP.len());
        survives(&format!("{}{piece}{}", &SHOP[..start], &SHOP[end..]));
    }

    #[test]
    fn a_changed_value(pick in any::<prop::sample::Index>(), piece in prop::sample::select(&[
        "-1", "1e30", "\"\"", "\"\\u0000\"", "null", "[]", "{}", "[null]", "[[1]]", "true", "image.web", "secret.x", "\"é\"", "9999999999999",
    ][..])) {
        let values: Vec<usize> = SHOP.match_indices("= ").map(|(at, _)| at + 2).collect();
        let start = values[pick.index(values.len())];
        let end = start + SHOP[start..].find(['\n', '}']).unwrap_or(0);
        survives(&format!("{}{piece}{}", &SHOP[..start], &SHOP[end..]));
    }
}

/// Pieces that mean something in YAML and JSON.
const DATA_PIECES: [&str; 30] = [
    "{", "}", "[", "]", ":", ": ", ",", "\"", "'", "- ", "\n", "\n  ", "\n    ", "&a ", "*a", "<<: ", "| ", "> ",
    "|\n", "---\n", "!!str ", "${var.a}", "%{ if ", "null", "1e99", "service", "web", "image", "é", "\\u00e9",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_data(text in ".{0,200}") {
        survives_as("yaml", &text);
        survives_as("json", &text);
    }

    #[test]
    fn random_pieces_of_data(pieces in prop::collection::vec(prop::sample::select(&DATA_PIECES[..]), 0..40)) {
        survives_as("yaml", &pieces.concat());
        survives_as("json", &pieces.concat());
        survives_as("yaml", &format!("service: {}", pieces.concat()));
        survives_as("json", &format!("{{\"service\": {}}}", pieces.concat()));
    }

    #[test]
    fn torn_data(start in any::<prop::sample::Index>(), length in 0usize..30, piece in prop::sample::select(&DATA_PIECES[..])) {
        let json = convert::to_json(SHOP);
        for (kind, text) in [("yaml", convert::to_yaml(&json)), ("json", json.to_string())] {
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = start.index(bounds.len());
            let end = (start + length).min(bounds.len() - 1);
            survives_as(kind, &format!("{}{piece}{}", &text[..bounds[start]], &text[bounds[end]..]));
        }
    }
}

#[test]
fn aliases_grow_within_bounds() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
    }
    survives_as("yaml", &text);
}

#[test]
fn deep_data() {
    for depth in [60, 100, 5000] {
        let json = format!("{{\"locals\": {{\"a\": {}1{}}}}}", "[".repeat(depth), "]".repeat(depth));
        survives_as("json", &json);
        survives_as("yaml", &json);
        survives_as("yaml", &(0..depth).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>());
        survives_as("yaml", &"- ".repeat(depth));
    }
}

/// The same bytes at every path.
struct Everywhere(&'static [u8]);

impl basalt_stackfile::Files for Everywhere {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }
    fn list(&self, _: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        Ok(Vec::new())
    }
    fn is_folder(&self, _: &Path) -> bool {
        false
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn absolute(&self, path: &Path) -> std::io::Result<std::path::PathBuf> {
        Ok(path.to_owned())
    }
}

#[test]
fn modules_in_ever_longer_paths() {
    // As a link to the folder above makes them.
    let files = Everywhere(b"module \"m\" { source = \"./again/x.hcl\" }\n");
    let loaded = load_from(&files, Path::new("/s.hcl"), &Inputs::default());
    assert_eq!(loaded.diagnostics[0].message, "more than 8 modules within each other");
}

#[test]
fn not_utf8() {
    let loaded = load_from(&Everywhere(&[b'a', 0xff, 0xfe]), Path::new("/s.hcl"), &Inputs::default());
    assert_eq!(loaded.diagnostics[0].message, "`/s.hcl` is not UTF-8 text");
}

/// Defines tests that a deep or long text does no harm, each in a thread of its own.
macro_rules! survives {
    ($($name:ident: $text:expr,)*) => {
        $(#[test] fn $name() { survives(&$text) })*
    };
}

survives! {
    deep_lists: format!("locals {{ a = {}1{} }}", "[".repeat(5000), "]".repeat(5000)),
    deepest_lists_that_parse: format!("locals {{ a = {}1{} }}", "[".repeat(60), "]".repeat(60)),
    long_sums: format!("locals {{ a = {}1 }}", "1 + ".repeat(5000)),
    longest_sums_that_parse: format!("locals {{ a = {}1 }}", "1 + ".repeat(120)),
    many_signs: format!("locals {{ a = {}1 }}", "-".repeat(5000)),
    many_conditions: format!("locals {{ a = {}1 }}", "!true ? 1 : ".repeat(5000)),
    many_attributes: format!("locals {{ a = x{} }}\n", ".b".repeat(50_000)),
    many_attributes_of_a_local: format!("locals {{\n  a = [1]\n  b = local.a{}\n}}\n", ".b".repeat(50_000)),
    many_splats: format!("locals {{ a = [[1]]{} }}", "[*]".repeat(5000)),
    deep_blocks: "a {\n".repeat(5000),
    long_chains: format!("locals {{\n{}  a5000 = 1\n}}\n", (0..5000).map(|i| format!("  a{i} = [local.a{}]\n", i + 1)).collect::<String>()),
    doubling: format!(
        "locals {{\n  a0 = \"aaaa\"\n{}}}\n",
        (0..60).map(|i| format!("  a{} = \"${{local.a{i}}}${{local.a{i}}}\"\n", i + 1)).collect::<String>()
    ),
}
