//! Kinds of text: HCL, YAML and JSON, one tree.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fault::Fault;
use crate::schema::Shape;
use crate::source::{At, Context};
use crate::tree::{Body, Piece};
use crate::{json, yaml};

/// Returns the text without the byte order mark that some editors begin it with, for that says nothing.
pub(crate) fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Hcl,
    Yaml,
    Json,
}

impl Format {
    /// Returns the kind that a file's suffix names.
    pub(crate) fn of_suffix(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "hcl" | "basalt" => Some(Self::Hcl),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Returns the kind of a file: what its suffix names, else what its text looks like.
    pub(crate) fn of(path: &Path, text: &str) -> Self {
        Self::of_suffix(path).unwrap_or_else(|| Self::of_text(text))
    }

    /// Returns the kind that a text looks like: JSON begins with a brace, YAML with `name:` or `---`, and all else is HCL.
    pub(crate) fn of_text(text: &str) -> Self {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', '/']));
        let Some(first) = first else { return Self::Hcl };
        let word = first.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-\"'".contains(c));
        match first.as_bytes().first() {
            Some(b'{') => Self::Json,
            _ if first == "---" || first.starts_with("--- ") || first.starts_with("%YAML") => Self::Yaml,
            _ if word.len() < first.len() && word.trim_start().starts_with(':') => Self::Yaml,
            _ => Self::Hcl,
        }
    }

    /// Parses a text; reports what is wrong with it.
    pub(crate) fn parse(self, cx: &Context, source: u32, text: &str, shape: &'static Shape) -> Option<Body> {
        match self {
            Self::Hcl => hcl(cx, source, text, shape),
            Self::Yaml => yaml::parse(cx, source, text).map(|map| crate::node::body(cx, source, map, shape)),
            Self::Json => json::parse(cx, source, text).map(|map| crate::node::body(cx, source, map, shape)),
        }
    }
}

/// How long a piece of HCL is at least, in bytes: some hundred blocks, whose trees fit into a processor's cache.
const PIECE: usize = 64 << 10;

/// Parses HCL piece by piece, for the parser's tree takes fifty times the memory of its text.
fn hcl(cx: &Context, source: u32, text: &str, shape: &'static Shape) -> Option<Body> {
    let mut body = Body::default();
    for (start, piece) in pieces(text) {
        match hcl_edit::parser::parse_body(piece) {
            Ok(parsed) => body.add_hcl(&Piece { source, start, text: piece }, parsed, shape),
            Err(_) => return whole_hcl(cx, source, text, shape),
        }
    }
    // The parser refuses an attribute that stands twice, but sees no more than a piece.
    let names: BTreeSet<&str> = body.attributes.iter().map(|attribute| attribute.name.as_str()).collect();
    if names.len() < body.attributes.len() { whole_hcl(cx, source, text, shape) } else { Some(body) }
}

/// Cuts a text behind lines that hold only a closing brace, and returns where each piece begins. A cut in the midst of a
/// heredoc, comment or block leaves a piece that is no HCL.
fn pieces(text: &str) -> Vec<(usize, &str)> {
    const END: &[u8] = b"\n}\n";
    let mut pieces = Vec::new();
    let mut start = 0;
    let behind = |start| text.as_bytes().get(start + PIECE..)?.windows(END.len()).position(|bytes| bytes == END);
    while let Some(end) = behind(start) {
        let end = start + PIECE + end + END.len();
        pieces.push((start, &text[start..end]));
        start = end;
    }
    pieces.push((start, &text[start..]));
    pieces
}

/// Parses HCL as a whole; reports what is wrong with it.
fn whole_hcl(cx: &Context, source: u32, text: &str, shape: &'static Shape) -> Option<Body> {
    match hcl_edit::parser::parse_body(text) {
        Ok(parsed) => {
            let mut body = Body::default();
            body.add_hcl(&Piece { source, start: 0, text }, parsed, shape);
            Some(body)
        }
        Err(error) => {
            let at = character(source, text, error.location().offset());
            let help = match error.message() {
                m if m.contains("block body") || m.contains("newline") => {
                    "a one-line block holds one attribute; otherwise each attribute and block has a line of its own"
                }
                m if m.contains("redefined") => "an attribute stands once in a block: keep one of them",
                m if m.contains("escape") => "a backslash is written `\\\\`",
                _ => "look for a quote, comma or bracket that is missing before this place",
            };
            cx.report(Fault::at(at, format!("not valid HCL: {}", error.message())).label("here").help(help));
            None
        }
    }
}

/// Returns the place of the character at (or around) an offset.
pub(crate) fn character(source: u32, text: &str, offset: usize) -> At {
    let start = offset.min(text.len());
    let start = (0..=start).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let length = text[start..].chars().next().map_or(0, char::len_utf8);
    At::new(source, start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_blocks_and_the_text() {
        let block = format!("a {{\n x = \"{}\"\n}}\n", "y".repeat(PIECE / 4));
        for blocks in [0, 1, 4, 5, 40] {
            let text = block.repeat(blocks) + "# é\n";
            let pieces = pieces(&text);
            assert_eq!(pieces.iter().map(|(_, piece)| *piece).collect::<String>(), text);
            assert!(pieces.iter().all(|(start, piece)| text[*start..].starts_with(piece)));
            assert_eq!(pieces.len(), blocks / 4 + 1, "{blocks}");
        }
        // A character of several bytes stands where a piece would have its least length.
        for before in 0..4 {
            let text = format!("#{}é\n}}\n# {}\n", "y".repeat(PIECE - before), "y".repeat(PIECE));
            assert_eq!(pieces(&text).iter().map(|(_, piece)| *piece).collect::<String>(), text);
        }
    }

    #[test]
    fn what_a_text_looks_like() {
        let check = |text: &str, expected| assert_eq!(Format::of_text(text), expected, "{text}");
        check("", Format::Hcl);
        check("# x: y\nservice \"web\" {\n", Format::Hcl);
        check("a = \"b: c\"", Format::Hcl);
        check("\n  {\"service\": {}}", Format::Json);
        check("# shop\nservice:\n  web:", Format::Yaml);
        check("---\nservice:", Format::Yaml);
        check("\"service\": {}", Format::Yaml);
    }
}
