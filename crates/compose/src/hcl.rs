//! Blocks of a stack, and their text.

use std::collections::BTreeMap;

/// The widest line before a list or map is written over several lines.
const WIDEST: usize = 110;

/// A text with references to variables in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Vec<Part>);

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Variable { name: String, default: Option<String> },
}

impl Text {
    pub(crate) fn literal(text: impl Into<String>) -> Self {
        Self(vec![Part::Literal(text.into())])
    }

    /// Returns the literal parts.
    pub(crate) fn plain(&self) -> String {
        let literal = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Variable { default, .. } => default.clone().unwrap_or_default(),
        };
        self.0.iter().map(literal).collect()
    }

    /// Returns it with its literal parts changed.
    pub(crate) fn map(self, change: impl Fn(String) -> String) -> Self {
        let part = |part| match part {
            Part::Literal(text) => Part::Literal(change(text)),
            part => part,
        };
        Self(self.0.into_iter().map(part).collect())
    }

    /// Returns whether it refers to no variable.
    pub(crate) fn is_literal(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Literal(_)))
    }
}

/// An expression.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    Text(Text),
    /// As it is: a number, a reference, a call.
    Raw(String),
    List(Vec<Expr>),
    Map(Vec<(String, Expr)>),
}

impl Expr {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Text::literal(text))
    }

    pub(crate) fn texts(items: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }
}

/// A block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) word: &'static str,
    pub(crate) labels: Vec<String>,
    pub(crate) attributes: Vec<(&'static str, Expr)>,
    pub(crate) blocks: Vec<Block>,
}

impl Block {
    pub(crate) fn new(word: &'static str, label: &str) -> Self {
        Self { word, labels: vec![label.to_owned()], ..Self::default() }
    }

    pub(crate) fn plain(word: &'static str) -> Self {
        Self { word, ..Self::default() }
    }

    pub(crate) fn set(&mut self, name: &'static str, value: Expr) {
        self.attributes.push((name, value));
    }

    /// Sets a list of names if there are any.
    pub(crate) fn set_all(&mut self, name: &'static str, items: Vec<Expr>) {
        if !items.is_empty() {
            self.set(name, Expr::List(items));
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: Expr) -> Self {
        self.set(name, value);
        self
    }
}

/// Writes blocks. Knows how variables are written.
pub(crate) struct Writer<'w> {
    /// The name in the stack of each variable, and whether its defaults differ from place to place.
    pub(crate) variables: &'w BTreeMap<String, (String, bool)>,
}

impl Writer<'_> {
    /// Returns the text of a block.
    pub(crate) fn block(&self, block: &Block) -> String {
        let mut text = String::new();
        self.write(block, 0, &mut text);
        text
    }

    fn write(&self, block: &Block, indent: usize, text: &mut String) {
        let pad = " ".repeat(indent);
        let labels: String = block.labels.iter().map(|label| format!(" {}", quoted(label))).collect();
        text.push_str(&format!("{pad}{}{labels} {{", block.word));
        if block.blocks.is_empty()
            && let [(name, value)] = block.attributes.as_slice()
        {
            let line = self.expr(value, indent);
            if !line.contains('\n') {
                text.push_str(&format!(" {name} = {line} }}\n"));
                return;
            }
        }
        if block.attributes.is_empty() && block.blocks.is_empty() {
            text.push_str("}\n");
            return;
        }
        text.push('\n');
        self.attributes(&block.attributes, indent + 2, text);
        let mut before_is_short = block.attributes.is_empty();
        for inner in &block.blocks {
            let mut part = String::new();
            self.write(inner, indent + 2, &mut part);
            let is_short = part.matches('\n').count() == 1;
            let together = before_is_short && is_short || text.ends_with("{\n");
            if !together {
                text.push('\n');
            }
            text.push_str(&part);
            before_is_short = is_short;
        }
        text.push_str(&format!("{pad}}}\n"));
    }

    /// Writes attributes, their `=` below each other as long as each takes one line.
    fn attributes(&self, attributes: &[(&'static str, Expr)], indent: usize, text: &mut String) {
        let pad = " ".repeat(indent);
        let lines: Vec<(&str, String)> =
            attributes.iter().map(|(name, value)| (*name, self.expr(value, indent))).collect();
        for run in lines.chunk_by(|(_, a), (_, b)| !a.contains('\n') && !b.contains('\n')) {
            let width = run.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            for (name, value) in run {
                text.push_str(&format!("{pad}{name:width$} = {value}\n"));
            }
        }
    }

    /// Returns the text of an expression that stands behind a `=` in an indented line.
    fn expr(&self, expr: &Expr, indent: usize) -> String {
        match expr {
            Expr::Raw(text) => text.clone(),
            Expr::Text(text) => self.text(text),
            Expr::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.expr(item, indent + 2)).collect();
                let line = format!("[{}]", items.join(", "));
                if line.len() + indent <= WIDEST && !line.contains('\n') {
                    return line;
                }
                let pad = " ".repeat(indent);
                let lines: String = items.iter().map(|item| format!("{pad}  {item},\n")).collect();
                format!("[\n{lines}{pad}]")
            }
            Expr::Map(entries) if entries.is_empty() => "{}".to_owned(),
            Expr::Map(entries) => {
                let pad = " ".repeat(indent);
                let entries: Vec<(String, String)> =
                    entries.iter().map(|(name, value)| (key(name), self.expr(value, indent + 2))).collect();
                let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                let lines: String =
                    entries.iter().map(|(name, value)| format!("{pad}  {name:width$} = {value}\n")).collect();
                format!("{{\n{lines}{pad}}}")
            }
        }
    }

    fn text(&self, text: &Text) -> String {
        if let [Part::Variable { name, default }] = text.0.as_slice() {
            return self.variable(name, default.as_deref());
        }
        let part = |part: &Part, escape: fn(&str) -> String| match part {
            Part::Literal(text) => escape(text),
            Part::Variable { name, default } => format!("${{{}}}", self.variable(name, default.as_deref())),
        };
        let plain = text.plain();
        // A heredoc reads better, and can hold what ends with a line break and has no line that would end it.
        let heredoc = text.is_literal() && plain.ends_with('\n') && plain.matches('\n').count() > 1;
        if heredoc && !plain.contains(['\r', '\0']) && !plain.lines().any(|line| line.trim() == "EOT") {
            return format!("<<EOT\n{}EOT", text.0.iter().map(|p| part(p, templated)).collect::<String>());
        }
        format!("\"{}\"", text.0.iter().map(|p| part(p, escaped)).collect::<String>())
    }

    fn variable(&self, name: &str, default: Option<&str>) -> String {
        match (self.variables.get(name), default) {
            (Some((variable, true)), Some(default)) => format!("coalesce(var.{variable}, {})", quoted(default)),
            (Some((variable, _)), _) => format!("var.{variable}"),
            // All variables that are referred to are declared.
            (None, _) => quoted(default.unwrap_or_default()),
        }
    }
}

/// Returns the key of a map: quoted if it is no identifier.
fn key(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && !matches!(text, "true" | "false" | "null" | "for" | "in" | "if") {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Returns a string in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Returns a text as it stands within quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in templated(text).chars() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns a text with the signs that begin a template doubled.
fn templated(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}
