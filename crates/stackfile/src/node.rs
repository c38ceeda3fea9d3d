//! Nodes of YAML and JSON to blocks and attributes, by what the schema says may stand where.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::eval::out_of_range;
use crate::fault::Fault;
use crate::number::Number;
use crate::schema::{self, Inner, Shape};
use crate::source::{At, Context};
use crate::text::character;
use crate::tree::{Attribute, Block, Body, Entry, Expr, Label, Node, NodeData, TextTemplate};

/// The key of an image whose value is a list of its steps, for files whose keys keep no order.
const STEPS: &str = "steps";

/// Returns the entries of the one value of a file, which must be a map; reports it if it is not.
pub(crate) fn top(cx: &Context, source: u32, node: Option<Node>) -> Option<Vec<Entry>> {
    match node {
        None => Some(Vec::new()),
        Some(Node { data: NodeData::Null, .. }) => Some(Vec::new()),
        Some(Node { data: NodeData::Map(entries), .. }) => Some(entries),
        Some(node) => {
            let at = At { end: node.at.start, source, ..node.at };
            cx.report(
                Fault::at(at, "a stack is a map of blocks").help("write for example {\"service\": {\"web\": { … }}}"),
            );
            None
        }
    }
}

/// Returns a number; reports it if it is out of range.
pub(crate) fn number(cx: &Context, text: &str, at: At) -> NodeData {
    match Number::parse(text) {
        Some(number) => NodeData::Number(number),
        None => {
            cx.report(out_of_range(at));
            NodeData::Null
        }
    }
}

/// Returns a string, which may be a template; reports it if it is a wrong one. `text` is the whole file.
pub(crate) fn string(cx: &Context, text: &str, string: String, at: At) -> NodeData {
    if !string.contains("${") && !string.contains("%{") {
        return NodeData::Text(string);
    }
    // Between the quotes, or as it is where there are none.
    let marked = text.get(at.start as usize..at.end as usize).unwrap_or_default();
    let start = marked.find(string.as_str()).filter(|start| *start <= 1).map(|start| at.start + start as u32);
    match hcl_edit::parser::parse_template(&string) {
        Ok(template) => NodeData::Template(Box::new(TextTemplate { template, text: string, start })),
        Err(error) => {
            let at = match start {
                Some(start) => character(at.source, text, start as usize + error.location().offset()),
                None => at,
            };
            let fault = Fault::at(at, format!("not a valid template: {}", error.message()));
            cx.report(fault.help("write `$${` and `%%{` where these signs themselves are meant"));
            NodeData::Null
        }
    }
}

/// Returns the entries; reports keys that stand there twice.
pub(crate) fn distinct(cx: &Context, entries: Vec<Entry>) -> Vec<Entry> {
    let mut first: BTreeMap<&str, At> = BTreeMap::new();
    for entry in &entries {
        if let Some(first) = first.insert(&entry.key, entry.key_at) {
            let fault = Fault::at(entry.key_at, format!("the key `{}` stands here twice", entry.key.escape_debug()));
            cx.report(fault.label("the second").place(first, "the first").help("keep one of them"));
        }
    }
    entries
}

/// Returns the body that a map is.
pub(crate) fn body(cx: &Context, source: u32, entries: Vec<Entry>, shape: &'static Shape) -> Body {
    let mut body = Body::default();
    for entry in entries {
        if entry.key == schema::DYNAMIC && !shape.blocks.is_empty() {
            dynamic(cx, source, entry, shape, &mut body);
        } else if entry.key == STEPS && shape.name == "image" {
            steps(cx, source, entry, shape, &mut body);
        } else if let Some(inner) = shape.block(&entry.key) {
            blocks(cx, source, entry, inner, &mut body);
        } else {
            body.attributes.push(Attribute {
                name: entry.key,
                name_at: entry.key_at,
                value: Rc::new(Expr::Node(entry.value)),
            });
        }
    }
    body
}

/// Adds the blocks of one kind: maps by label, a map, or a list of either.
fn blocks(cx: &Context, source: u32, entry: Entry, inner: &'static Inner, body: &mut Body) {
    let items = match entry.value.data {
        NodeData::List(items) => items,
        _ => vec![entry.value],
    };
    for item in items {
        match (inner.label, item.data) {
            (Some(_), NodeData::Map(labels)) => {
                for label in labels {
                    let at = label.key_at;
                    let labels = vec![Label { text: label.key, at }];
                    // Several of a label, such as two files that a later one replaces.
                    let items = match label.value.data {
                        NodeData::List(items) => items,
                        _ => vec![label.value],
                    };
                    for item in items {
                        let content = content(cx, item, inner);
                        body.blocks.push(Block {
                            ident: entry.key.clone(),
                            ident_at: entry.key_at,
                            labels: labels.clone(),
                            header: at,
                            body: self::body(cx, source, content, inner.shape),
                            shape: inner.shape,
                            scope: None,
                        });
                    }
                }
            }
            (Some(label), _) => {
                let fault = Fault::at(item.at, format!("`{}` is a map by {label}", entry.key));
                cx.report(fault.help(format!("write {}: {{<{label}>: {{ … }}}}", entry.key)));
            }
            (None, data) => {
                let content = content(cx, Node { data, at: item.at }, inner);
                body.blocks.push(Block {
                    ident: entry.key.clone(),
                    ident_at: entry.key_at,
                    labels: Vec::new(),
                    header: entry.key_at,
                    body: self::body(cx, source, content, inner.shape),
                    shape: inner.shape,
                    scope: None,
                });
            }
        }
    }
}

/// Returns the entries of a block; reports it if it is no map.
fn content(cx: &Context, node: Node, inner: &Inner) -> Vec<Entry> {
    match node.data {
        NodeData::Map(entries) => entries,
        NodeData::Null => Vec::new(),
        _ => {
            let fault = Fault::at(node.at, format!("`{}` is a block, a map of keys and values", inner.word));
            let example = inner.shape.keys.first().map_or("…".to_owned(), |key| format!("{}: …", key.name));
            cx.report(fault.help(format!("write {{{example}}}")));
            Vec::new()
        }
    }
}

/// Adds `dynamic` blocks: maps by the kind of block that they make.
fn dynamic(cx: &Context, source: u32, entry: Entry, shape: &'static Shape, body: &mut Body) {
    let NodeData::Map(kinds) = entry.value.data else {
        let fault = Fault::at(entry.value.at, "`dynamic` is a map by kind of block");
        return cx.report(fault.help("write dynamic: {port: {for_each: …, content: { … }}}"));
    };
    for kind in kinds {
        let of = shape.inner(&kind.key);
        let items = match kind.value.data {
            NodeData::List(items) => items,
            _ => vec![kind.value],
        };
        for item in items {
            let NodeData::Map(entries) = item.data else {
                let fault = Fault::at(item.at, "`dynamic` needs `for_each` and `content`");
                cx.report(fault.help("write dynamic: {port: {for_each: …, content: { … }}}"));
                continue;
            };
            let mut made = Body::default();
            for entry in entries {
                match entry.value.data {
                    NodeData::Map(content) if entry.key == "content" => made.blocks.push(Block {
                        ident: entry.key,
                        ident_at: entry.key_at,
                        labels: Vec::new(),
                        header: entry.key_at,
                        body: self::body(cx, source, content, of),
                        shape: of,
                        scope: None,
                    }),
                    data => made.attributes.push(Attribute {
                        name: entry.key,
                        name_at: entry.key_at,
                        value: Rc::new(Expr::Node(Node { data, at: entry.value.at })),
                    }),
                }
            }
            body.blocks.push(Block {
                ident: schema::DYNAMIC.to_owned(),
                ident_at: entry.key_at,
                labels: vec![Label { text: kind.key.clone(), at: kind.key_at }],
                header: kind.key_at,
                body: made,
                shape: &schema::OF_DYNAMIC,
                scope: None,
            });
        }
    }
}

/// Adds the steps of an image in the order of a list, each a map of one block.
fn steps(cx: &Context, source: u32, entry: Entry, shape: &'static Shape, body: &mut Body) {
    let NodeData::List(steps) = entry.value.data else {
        let fault = Fault::at(entry.value.at, "`steps` is a list, each item a map of one block");
        return cx.report(fault.help("write steps: [{copy: {\"app\": {to: \"/app\"}}}, …]"));
    };
    for step in steps {
        let at = step.at;
        let NodeData::Map(entries) = step.data else {
            cx.report(Fault::at(at, "a step is a map of one block").help("write {copy: {\"app\": {to: \"/app\"}}}"));
            continue;
        };
        for entry in entries {
            match shape.block(&entry.key) {
                Some(inner) => blocks(cx, source, entry, inner, body),
                None => {
                    let known = shape.blocks.iter().map(|inner| inner.word);
                    let fault = Fault::at(entry.key_at, format!("there is no step `{}`", entry.key.escape_debug()));
                    cx.report(fault.maybe_help(crate::suggest::did_you_mean(&entry.key, known)));
                }
            }
        }
    }
}
