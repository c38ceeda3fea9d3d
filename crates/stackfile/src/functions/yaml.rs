//! Values to YAML 1.2 and back.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::encoding::quoted;
use super::{Call, collections};
use crate::fault::{Eval, Faults};
use crate::number::Number;
use crate::value::{DEEPEST, Data, Value};

/// Returns the value of a YAML text.
pub(super) fn decode(call: &Call, text: &str) -> Eval<Value> {
    call.ev.cx.spend(text.len(), call.at)?;
    let mut reader = Reader { call, parser: Parser::new_from_str(text), anchors: BTreeMap::new() };
    let mut value = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(value.unwrap_or_else(|| call.value(Data::Null))),
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            _ if value.is_some() => return Err(reader.wrong("more than one document", line)),
            event => value = Some(reader.node(event, line, 0)?),
        }
    }
}

struct Reader<'r, 'c, 't> {
    call: &'r Call<'c>,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: BTreeMap<usize, Value>,
}

impl<'t> Reader<'_, '_, 't> {
    /// Returns the next event and its line.
    fn next(&mut self) -> Eval<(Event<'t>, usize)> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => {
                let reason = self.call.unless_sensitive(0, format!(": {}", error.info()));
                Err(self.wrong(&format!("not YAML{reason}"), error.marker().line()))
            }
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn wrong(&self, reason: &str, line: usize) -> Faults {
        self.call.wrong(0, format!("{reason} (line {line})"))
    }

    /// Returns the node that begins with an event.
    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Eval<Value> {
        if depth > DEEPEST {
            return Err(self.wrong(&format!("more than {DEEPEST} levels"), line));
        }
        let (anchor, data) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, self.scalar(&text, style, tag.as_deref(), line)?),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor);
                let value = value.ok_or_else(|| self.wrong("an alias within what it stands for", line))?;
                // Aliases of aliases grow without end: they are charged for before they are copied.
                self.call.ev.cx.spend(value.size(), self.call.at)?;
                if value.depth() + depth > DEEPEST {
                    return Err(self.wrong(&format!("more than {DEEPEST} levels"), line));
                }
                return Ok(value.clone());
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, line, depth + 1)?);
                }
                (anchor, Data::List(items))
            }
            Event::MappingStart(anchor, _) => (anchor, Data::Map(self.mapping(depth)?)),
            _ => return Err(self.wrong("not YAML", line)),
        };
        let value = self.call.value(data);
        self.call.ev.cx.spend(value.size().min(64), self.call.at)?;
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self, depth: usize) -> Eval<BTreeMap<String, Value>> {
        let mut map = BTreeMap::new();
        let mut merged: Vec<BTreeMap<String, Value>> = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, line, depth + 1)?;
            let (event, line) = self.next()?;
            let value = self.node(event, line, depth + 1)?;
            if merge {
                let sources = match value.data {
                    Data::List(items) => items.into_iter().map(|item| item.data).collect(),
                    data => vec![data],
                };
                for source in sources {
                    match source {
                        Data::Map(source) => merged.push(source),
                        _ => return Err(self.wrong("`<<` merges maps alone", line)),
                    }
                }
                continue;
            }
            let key = key.to_text().map_err(|_| self.wrong("a key that is no string", line))?;
            if map.contains_key(&key) {
                let shown = self.call.unless_sensitive(0, format!(" `{}`", key.escape_debug()));
                return Err(self.wrong(&format!("the key{shown} stands twice"), line));
            }
            map.insert(key, value);
        }
        // What is written in the map itself wins, then the first that is merged.
        for source in merged {
            for (key, value) in source {
                map.entry(key).or_insert(value);
            }
        }
        Ok(map)
    }

    /// Returns a scalar by the core schema (YAML 1.2.2 §10.3.2).
    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, line: usize) -> Eval<Data> {
        let suffix = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
        let as_text = || Ok(Data::Text(text.to_owned()));
        match (tag, suffix) {
            (None, _) if style != ScalarStyle::Plain => as_text(),
            (None, _) => match plain(text) {
                Some(data) => Ok(data),
                None => as_text(),
            },
            (_, Some("str" | "binary" | "timestamp")) => as_text(),
            (_, Some("int" | "float" | "bool" | "null")) => {
                plain(text).ok_or_else(|| self.wrong("the text is not what its tag says", line))
            }
            _ => Err(self.wrong("a tag that is not known", line)),
        }
    }
}

/// Returns what a plain scalar means if it is no string.
fn plain(text: &str) -> Option<Data> {
    let radix = |digits: &str, radix| i128::from_str_radix(digits, radix).ok().map(|n| Data::Number(Number::from(n)));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Data::Null),
        "true" | "True" | "TRUE" => Some(Data::Bool(true)),
        "false" | "False" | "FALSE" => Some(Data::Bool(false)),
        _ if text.starts_with("0x") => radix(&text[2..], 16),
        _ if text.starts_with("0o") => radix(&text[2..], 8),
        _ => {
            let unsigned = text.strip_prefix('+').unwrap_or(text);
            // `.5` and `5.` are numbers here, though not in the stack language.
            let (sign, digits) = unsigned.strip_prefix('-').map_or(("", unsigned), |digits| ("-", digits));
            let digits = if digits.starts_with('.') { format!("0{digits}") } else { digits.to_owned() };
            let digits = digits.strip_suffix('.').unwrap_or(&digits).to_owned();
            let number = Number::parse(&format!("{sign}{}", digits.replace("e+", "e").replace("E+", "e")));
            number.map(Data::Number)
        }
    }
}

/// Returns the value as YAML in block style.
pub(super) fn encode(value: &Value) -> Eval<String> {
    let mut text = String::new();
    block(value, 0, &mut text)?;
    Ok(text)
}

/// Writes a value as lines of its own, each indented, the first line where the text ends.
fn block(value: &Value, indent: usize, text: &mut String) -> Eval<()> {
    let pad = " ".repeat(indent);
    match &value.data {
        Data::Map(map) if !map.is_empty() => {
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    text.push_str(&pad);
                }
                text.push_str(&quoted(key));
                text.push(':');
                match &value.data {
                    Data::Map(inner) if !inner.is_empty() => {
                        text.push_str(&format!("\n{pad}  "));
                        block(value, indent + 2, text)?;
                    }
                    // The items of a list stand as deep as its key.
                    Data::List(items) if !items.is_empty() => {
                        text.push_str(&format!("\n{pad}"));
                        block(value, indent, text)?;
                    }
                    _ => inline(value, indent + 2, text)?,
                }
            }
        }
        Data::List(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push_str(&pad);
                }
                text.push('-');
                match &item.data {
                    Data::Map(inner) if !inner.is_empty() => {
                        text.push(' ');
                        block(item, indent + 2, text)?;
                    }
                    Data::List(inner) if !inner.is_empty() => {
                        text.push(' ');
                        block(item, indent + 2, text)?;
                    }
                    _ => inline(item, indent + 2, text)?,
                }
            }
        }
        _ => {
            let mut line = String::new();
            inline(value, indent, &mut line)?;
            text.push_str(line.trim_start_matches(' '));
        }
    }
    Ok(())
}

/// Writes a value behind a key or dash: a space, the value, and a line break.
fn inline(value: &Value, indent: usize, text: &mut String) -> Eval<()> {
    match &value.data {
        Data::Map(_) => text.push_str(" {}\n"),
        Data::List(_) => text.push_str(" []\n"),
        Data::Text(plain) => match literal(plain, indent) {
            Some(lines) => text.push_str(&lines),
            None => text.push_str(&format!(" {}\n", quoted(plain))),
        },
        Data::Reference(..) => return Err(value.wrong_type("a value").into()),
        Data::Null | Data::Bool(_) | Data::Number(_) => text.push_str(&format!(" {}\n", collections::identity(value))),
    }
    Ok(())
}

/// Returns a text of several lines as a literal block (YAML 1.2.2 §8.1.2), if it can be written as one.
fn literal(plain: &str, indent: usize) -> Option<String> {
    let body = plain.trim_end_matches('\n');
    let breaks = plain.len() - body.len();
    let simple = |line: &str| !line.chars().any(|c| c.is_control() && c != '\t') && !line.ends_with(' ');
    if !plain.contains('\n') || body.is_empty() || body.starts_with([' ', '\t', '\n']) || !body.split('\n').all(simple)
    {
        return None;
    }
    let mut text = match breaks {
        0 => " |-\n".to_owned(),
        1 => " |\n".to_owned(),
        _ => " |+\n".to_owned(),
    };
    for line in body.split('\n') {
        if !line.is_empty() {
            text.push_str(&" ".repeat(indent));
            text.push_str(line);
        }
        text.push('\n');
    }
    text.push_str(&"\n".repeat(breaks.saturating_sub(1)));
    Some(text)
}
