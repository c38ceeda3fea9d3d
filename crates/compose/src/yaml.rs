//! YAML to nodes that know where they stand and whether they were used.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// The deepest nesting: far above what Compose files have, few enough levels to walk without care.
const DEEPEST: usize = 64;

/// The most nodes, aliases counted each time: a file of aliases to aliases grows without end.
const MOST_NODES: usize = 1 << 20;

/// A node, and where it is written.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it is: `services.web.ports[0]`.
    pub(crate) path: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) enum Data {
    /// A key without a value, or `null`.
    Null,
    Scalar(Scalar),
    List(Vec<Rc<Node>>),
    Map(Vec<(String, Rc<Node>)>),
}

/// A string, number or bool, as written.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    used: Cell<bool>,
}

impl Node {
    /// Returns the text of a scalar, which counts as used from now on.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(scalar) => {
                scalar.used.set(true);
                Some(&scalar.text)
            }
            _ => None,
        }
    }

    /// Returns the text of a scalar without using it.
    pub(crate) fn peek(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Rc<Node>]> {
        match &self.data {
            Data::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn map(&self) -> Option<&[(String, Rc<Node>)]> {
        match &self.data {
            Data::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.map()?.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Counts all scalars in it as used.
    pub(crate) fn use_all(&self) {
        self.walk(&mut |_, scalar| scalar.used.set(true));
    }

    /// Returns the scalars in it that nobody used.
    pub(crate) fn unused(&self) -> Vec<&Node> {
        let mut unused = Vec::new();
        self.walk(&mut |node, scalar| {
            if !scalar.used.get() {
                unused.push(node);
            }
        });
        unused
    }

    /// Calls `each` with every scalar.
    pub(crate) fn walk<'n>(&'n self, each: &mut impl FnMut(&'n Self, &'n Scalar)) {
        match &self.data {
            Data::Null => {}
            Data::Scalar(scalar) => each(self, scalar),
            Data::List(items) => items.iter().for_each(|item| item.walk(each)),
            Data::Map(entries) => entries.iter().for_each(|(_, node)| node.walk(each)),
        }
    }
}

/// Why a text is not YAML that can be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotYaml {
    pub(crate) line: usize,
    pub(crate) why: String,
}

/// Returns the first document of a YAML text.
pub(crate) fn parse(text: &str) -> Result<Rc<Node>, NotYaml> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => {
                let empty = || Rc::new(Node { path: String::new(), line: 1, data: Data::Null });
                return Ok(root.unwrap_or_else(empty));
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            _ if root.is_some() => return Err(wrong(line, "more than one document")),
            event => root = Some(reader.node(event, line, String::new(), 0)?),
        }
    }
}

fn wrong(line: usize, why: impl Into<String>) -> NotYaml {
    NotYaml { line, why: why.into() }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: BTreeMap<usize, (Rc<Node>, usize)>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, usize), NotYaml> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(wrong(error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), NotYaml> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES { Err(wrong(line, "aliases that make the file grow without end")) } else { Ok(()) }
    }

    /// Returns the node that begins with an event.
    fn node(&mut self, event: Event<'t>, line: usize, path: String, depth: usize) -> Result<Rc<Node>, NotYaml> {
        if depth > DEEPEST {
            return Err(wrong(line, format!("more than {DEEPEST} levels")));
        }
        self.count(1, line)?;
        let before = self.nodes;
        let (anchor, data) = match event {
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let (node, size) = known.ok_or_else(|| wrong(line, "an alias within what it stands for"))?;
                self.count(size, line)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let scalar = || Data::Scalar(Scalar { text: text.clone().into_owned(), used: Cell::new(false) });
                (anchor, if null { Data::Null } else { scalar() })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    let path = format!("{path}[{}]", items.len());
                    items.push(self.node(event, line, path, depth + 1)?);
                }
                (anchor, Data::List(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Data::Map(self.mapping(&path, depth)?)),
            _ => return Err(wrong(line, "not a value")),
        };
        let node = Rc::new(Node { path, line, data });
        if anchor > 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), self.nodes - before));
        }
        Ok(node)
    }

    /// Returns the entries of a mapping, with those of `<<` behind its own.
    fn mapping(&mut self, path: &str, depth: usize) -> Result<Vec<(String, Rc<Node>)>, NotYaml> {
        let mut entries: Vec<(String, Rc<Node>)> = Vec::new();
        let mut merged: Vec<Rc<Node>> = Vec::new();
        loop {
            let (event, line) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(wrong(line, "a key that is not a string")),
            };
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (event, line) = self.next()?;
            let node = self.node(event, line, inner, depth + 1)?;
            if key == "<<" {
                merged.push(node);
                continue;
            }
            if entries.iter().any(|(name, _)| *name == key) {
                return Err(wrong(line, format!("the key `{key}` stands twice")));
            }
            entries.push((key, node));
        }
        for source in merged {
            let maps = match &source.data {
                Data::List(items) => items.clone(),
                _ => vec![source],
            };
            for map in maps {
                for (key, node) in map.map().ok_or_else(|| wrong(map.line, "`<<` merges mappings alone"))? {
                    if !entries.iter().any(|(name, _)| name == key) {
                        entries.push((key.clone(), Rc::clone(node)));
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// Returns the node with what another says on top of it: mappings are joined key by key, lists of the keys that Compose joins one
/// behind the other, all else is replaced (Compose Specification, "Merge and override").
pub(crate) fn overlaid(base: &Rc<Node>, over: &Rc<Node>, key: &str) -> Rc<Node> {
    let data = match (&base.data, &over.data) {
        (_, Data::Null) => return Rc::clone(base),
        (Data::Map(below), Data::Map(above)) => {
            let mut entries: Vec<(String, Rc<Node>)> = Vec::new();
            for (name, node) in below {
                let merged = match above.iter().find(|(other, _)| other == name) {
                    Some((_, other)) => overlaid(node, other, name),
                    None => Rc::clone(node),
                };
                entries.push((name.clone(), merged));
            }
            let new = above.iter().filter(|(name, _)| !below.iter().any(|(other, _)| other == name));
            entries.extend(new.cloned());
            Data::Map(entries)
        }
        (Data::List(below), Data::List(above)) if !matches!(key, "command" | "entrypoint" | "test") => {
            Data::List(below.iter().chain(above).cloned().collect())
        }
        _ => return Rc::clone(over),
    };
    Rc::new(Node { path: over.path.clone(), line: over.line, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_aliases_and_merges() {
        let root = parse("a: &x\n  k: 1\n  l: [p, q]\nb:\n  <<: *x\n  k: 2\nc: *x\nd:\n").expect("YAML");
        let b = root.get("b").expect("b");
        assert_eq!(b.get("k").and_then(|k| k.text()), Some("2"));
        let q = &b.get("l").and_then(|l| l.list()).expect("a list")[1];
        assert_eq!((q.path.as_str(), q.line), ("a.l[1]", 3));
        q.text();
        let unused: Vec<&str> = root.unused().iter().map(|node| node.path.as_str()).collect();
        assert_eq!(unused, ["a.k", "a.l[0]", "a.l[0]", "a.k", "a.l[0]"]);
        assert!(root.get("d").is_some_and(|d| d.is_null()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let check = |text: &str, line: usize, part: &str| {
            let error = parse(text).expect_err(text);
            assert!(error.line == line && error.why.contains(part), "{text}: {error:?}");
        };
        check("a: 1\na: 2\n", 2, "`a` stands twice");
        check("a: b: c\n", 1, "");
        check("--- 1\n--- 2\n", 2, "more than one document");
        check("<<: 1\n", 1, "`<<` merges");
        let bomb: String =
            (1..9).map(|i| format!("x{i}: &x{i} [{}]\n", vec![format!("*x{}", i - 1); 9].join(", "))).collect();
        check(&format!("x0: &x0 [1, 2]\n{bomb}"), 7, "grow without end");
    }
}
