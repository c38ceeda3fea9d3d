//! The part of `docs/language.md` about blocks and keys, made from the table.

use std::fmt::Write as _;
use std::path::Path;

use super::{OPEN, Of, STACK, Shape, memory};
use crate::{Inputs, load_from, render};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/language.md");
const START: &str = "<!-- blocks -->\n";
const END: &str = "<!-- /blocks -->\n";

fn kind(of: &Of) -> String {
    match of {
        Of::Any => "anything".to_owned(),
        Of::Text => "string".to_owned(),
        Of::Bool => "bool".to_owned(),
        Of::Integer(least, most) => format!("{least} to {most}"),
        Of::Duration => "duration".to_owned(),
        Of::Size => "size".to_owned(),
        Of::Cpu => "processor time".to_owned(),
        Of::Share => "share".to_owned(),
        Of::Weight => "percentage".to_owned(),
        Of::Mode => "permission bits".to_owned(),
        Of::Words(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Of::Image => "image".to_owned(),
        Of::Reference => "reference".to_owned(),
        Of::Type => "type".to_owned(),
        Of::List(of) => format!("list of {}", kind(of)),
        Of::Map(of) => format!("map of {}", kind(of)),
        Of::Object(shape) => format!("object, see `{}`", shape.name),
    }
}

fn write(shape: &'static Shape, title: &str, about: &str, done: &mut Vec<&'static str>, text: &mut String) {
    if done.contains(&shape.name) || shape.name == OPEN.name {
        return;
    }
    done.push(shape.name);
    writeln!(text, "### {title}\n\n{about}\n").unwrap();
    if !shape.keys.is_empty() || !shape.blocks.is_empty() {
        writeln!(text, "| | kind | |\n|---|---|---|").unwrap();
    }
    for key in shape.keys {
        let name = if key.required { format!("**`{}`**", key.name) } else { format!("`{}`", key.name) };
        writeln!(text, "| {name} | {} | {} |", kind(&key.of), key.about).unwrap();
    }
    for inner in shape.blocks {
        let label = inner.label.map(|label| format!(" \"{}\"", label.to_uppercase())).unwrap_or_default();
        writeln!(text, "| `{}{label} {{ … }}` | block | {} |", inner.word, inner.about).unwrap();
    }
    text.push('\n');
    for inner in shape.blocks {
        let label = inner.label.map(|label| format!(" \"{}\"", label.to_uppercase())).unwrap_or_default();
        let within = if shape.name == STACK.name { String::new() } else { format!(" of {}", shape.name) };
        write(inner.shape, &format!("`{}{label}`{within}", inner.word), inner.about, done, text);
    }
    for key in shape.keys {
        if let Of::List(Of::Object(object)) = &key.of {
            write(object, &format!("`{}`", object.name), key.about, done, text);
        }
    }
}

#[test]
fn docs_have_every_block_and_key() {
    let mut text = String::new();
    write(&STACK, "A stack", "What a file holds.", &mut Vec::new(), &mut text);
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("BASALT_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, format!("{before}{START}{text}{END}{after}")).unwrap();
    } else {
        assert!(found == text, "docs/language.md is not as the table says: run this test with BASALT_WRITE_DOCS=1");
    }
}

#[test]
fn docs_examples_load() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut count = 0;
    let module = page.split("where `modules/cache/cache.hcl` is").nth(1).and_then(|rest| rest.split("```").nth(1));
    let module = module.and_then(|module| module.strip_prefix("hcl\n")).unwrap();
    for (i, block) in page.split("\n```").enumerate().filter(|(i, _)| i % 2 == 1) {
        let (suffix, text) = block.split_once('\n').unwrap();
        let path = format!("/s/shop.{suffix}");
        let files = memory::Memory::new(&[(&path, text), ("/s/modules/cache/cache.hcl", module), ("/bin/busybox", "")]);
        let size = ("size".to_owned(), "1".to_owned());
        let vars = if text.trim() == module.trim() { [size].into() } else { Default::default() };
        let inputs = Inputs { vars, ..Inputs::default() };
        let loaded = load_from(&files, Path::new(&path), &inputs);
        assert_eq!(render(&loaded, false), "", "example {i}:\n{text}");
        if suffix == "hcl" {
            assert_eq!(crate::format(text).as_deref().map(str::trim_end), Some(text.trim_end()), "example {i}");
        }
        count += 1;
    }
    assert!(count > 10);
}
