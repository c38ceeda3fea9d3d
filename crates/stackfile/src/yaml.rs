//! YAML texts (version 1.2, core schema) to nodes with places.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::fault::Fault;
use crate::node;
use crate::number::Number;
use crate::source::{At, Context};
use crate::text::character;
use crate::tree::{Entry, Node, NodeData};
use crate::value::DEEPEST;

/// The most nodes of one file, those that aliases stand for included: ten times what ten thousand services have, and few
/// enough that no file of aliases to aliases grows beyond bounds.
const MOST_NODES: usize = 5_000_000;

/// Parses a text whose whole is a map; reports what is wrong with it.
pub(crate) fn parse(cx: &Context, source: u32, text: &str) -> Option<Vec<Entry>> {
    let mut reader = Reader {
        cx,
        source,
        text,
        offsets: Offsets::new(text),
        events: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    match reader.document() {
        Ok(node) => node::top(cx, source, node),
        Err(fault) => {
            cx.report(*fault);
            None
        }
    }
}

type Read<T> = Result<T, Box<Fault>>;

struct Reader<'t> {
    cx: &'t Context<'t>,
    source: u32,
    text: &'t str,
    offsets: Offsets,
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// What aliases stand for.
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    /// Reads the one document of the file.
    fn document(&mut self) -> Read<Option<Node>> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if document.is_some() => {
                    let fault = Fault::at(self.at(span), "a second document in one file");
                    return Err(Box::new(fault.help("keep one document in a file: a folder of files is one stack")));
                }
                Event::DocumentStart(_) => {}
                Event::StreamEnd => return Ok(document),
                event => document = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn next(&mut self) -> Read<(Event<'t>, Span)> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = character(self.source, self.text, self.offsets.byte(error.marker().index()));
                let fault = Fault::at(at, format!("not valid YAML: {}", error.info())).label("here");
                Err(Box::new(
                    fault.help("look for a wrong indentation, or a quote or bracket that is missing before this place"),
                ))
            }
            None => Err(Box::new(Fault::at(At::new(self.source, 0..0), "not valid YAML: it ends too early"))),
        }
    }

    fn at(&self, span: Span) -> At {
        let start = self.offsets.byte(span.start.index());
        let end = self.offsets.byte(span.end.index()).max(start);
        // A block scalar ends behind its last line break.
        let marked = self.text.get(start..end).unwrap_or_default();
        At::new(self.source, start..start + marked.trim_end().len())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Read<Node> {
        let at = self.at(span);
        self.nodes += 1;
        if depth > DEEPEST {
            return Err(Box::new(Fault::at(at, format!("more than {DEEPEST} levels of lists and maps"))));
        }
        if self.nodes > MOST_NODES {
            return Err(Box::new(Fault::at(at, "aliases make this file too large")));
        }
        let (data, at, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let texts = tag.is_some_and(|tag| tag.suffix == "str");
                let data = if style == ScalarStyle::Plain && !texts {
                    self.plain(text.into_owned(), at)
                } else {
                    node::string(self.cx, self.text, text.into_owned(), at)
                };
                (data, at, anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                (NodeData::List(items), self.joined(at, end), anchor)
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Vec::new();
                let end = loop {
                    let (event, span) = match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        next => next,
                    };
                    let key_at = self.at(span);
                    let Event::Scalar(key, ..) = event else {
                        return Err(Box::new(Fault::at(key_at, "a key is a plain text here")));
                    };
                    let (event, span) = self.next()?;
                    let value = self.node(event, span, depth + 1)?;
                    entries.push(Entry { key: key.into_owned(), key_at, value });
                };
                (NodeData::Map(node::distinct(self.cx, entries)), self.joined(at, end), anchor)
            }
            Event::Alias(of) => {
                let Some(node) = self.anchors.get(&of).cloned() else {
                    return Err(Box::new(Fault::at(at, "an alias of what encloses it")));
                };
                self.nodes += size(&node);
                (node.data, node.at, 0)
            }
            _ => return Err(Box::new(Fault::at(at, "not valid YAML: a value is missing"))),
        };
        let node = Node { data, at };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// Returns the place from the beginning of one to the end of the other.
    fn joined(&self, start: At, end: Span) -> At {
        let end = self.offsets.byte(end.end.index()).max(start.start as usize);
        let marked = self.text.get(start.start as usize..end).unwrap_or_default();
        At { end: start.start + marked.trim_end().len() as u32, ..start }
    }

    /// Returns what a text without quotes means (YAML 1.2 §10.3.2).
    fn plain(&self, text: String, at: At) -> NodeData {
        match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => NodeData::Null,
            "true" | "True" | "TRUE" => NodeData::Bool(true),
            "false" | "False" | "FALSE" => NodeData::Bool(false),
            _ => {
                let unsigned = text.strip_prefix('+').unwrap_or(&text);
                let other_base = |prefix: &str, base: u32| {
                    let digits = text.strip_prefix(prefix)?;
                    i128::from_str_radix(digits, base).ok().filter(|n| *n >= 0).map(Number::from)
                };
                let number = other_base("0x", 16).or_else(|| other_base("0o", 8)).or_else(|| Number::parse(unsigned));
                match number {
                    Some(number) => NodeData::Number(number),
                    None => node::string(self.cx, self.text, text, at),
                }
            }
        }
    }
}

/// Returns how many nodes there are in one.
fn size(node: &Node) -> usize {
    1 + match &node.data {
        NodeData::List(items) => items.iter().map(size).sum(),
        NodeData::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    }
}

/// Character numbers to byte offsets.
struct Offsets {
    /// The offset of every 64th character; `None` if all characters are of one byte.
    marks: Option<Vec<usize>>,
    text: String,
}

impl Offsets {
    const EVERY: usize = 64;

    fn new(text: &str) -> Self {
        if text.is_ascii() {
            return Self { marks: None, text: String::new() };
        }
        let marks = text.char_indices().map(|(offset, _)| offset).step_by(Self::EVERY).collect();
        Self { marks: Some(marks), text: text.to_owned() }
    }

    fn byte(&self, index: usize) -> usize {
        let Some(marks) = &self.marks else { return index };
        let Some(start) = marks.get(index / Self::EVERY) else { return self.text.len() };
        let rest = self.text[*start..].char_indices().nth(index % Self::EVERY);
        rest.map_or(self.text.len(), |(offset, _)| start + offset)
    }
}
