//! Tokens of HCL, for formatting: nothing is lost but white space.

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'t> {
    pub(crate) kind: Kind,
    /// As written.
    pub(crate) text: &'t str,
    /// Whether white space stands before it.
    pub(crate) spaced: bool,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Newline,
    Comment,
    /// A name or number.
    Word,
    /// A quoted text or heredoc, with all that is in it.
    Text,
    /// Anything else.
    Sign,
}

impl Token<'_> {
    /// Returns 1 for an opening bracket, -1 for a closing one.
    pub(crate) fn opens(&self) -> i32 {
        match self.text {
            "(" | "[" | "{" => 1,
            ")" | "]" | "}" => -1,
            _ => 0,
        }
    }
}

/// Signs of more than one character, longest first.
const SIGNS: [&str; 8] = ["...", "==", "!=", "<=", ">=", "&&", "||", "=>"];

/// Returns all tokens of a text.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut spaced = false;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            '\n' => (Kind::Newline, 1),
            _ if first.is_whitespace() => {
                rest = &rest[first.len_utf8()..];
                spaced = true;
                continue;
            }
            '#' => (Kind::Comment, line(rest)),
            _ if rest.starts_with("//") => (Kind::Comment, line(rest)),
            _ if rest.starts_with("/*") => (Kind::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2)),
            '"' => (Kind::Text, quoted(rest)),
            '<' if heredoc(rest).is_some() => (Kind::Text, heredoc(rest).unwrap_or(1)),
            _ if word(first) => (Kind::Word, rest.find(|c| !word(c) && c != '-').unwrap_or(rest.len())),
            _ => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                (Kind::Sign, sign.map_or(first.len_utf8(), str::len))
            }
        };
        let length = if kind == Kind::Word && first.is_ascii_digit() { number(rest) } else { length };
        tokens.push(Token { kind, text: &rest[..length], spaced });
        rest = &rest[length..];
        spaced = false;
    }
    tokens
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Returns the length of the number that a text begins with.
fn number(text: &str) -> usize {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut length = digits(text);
    if let Some(part) = text[length..].strip_prefix('.')
        && digits(part) > 0
    {
        length += 1 + digits(part);
    }
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        if digits(&exponent[sign..]) > 0 {
            length += 1 + sign + digits(&exponent[sign..]);
        }
    }
    // A name that begins with a digit is none, yet must not be torn apart.
    length + text[length..].find(|c| !word(c)).unwrap_or(text.len() - length)
}

/// Returns the length of the quoted text that a text begins with.
fn quoted(text: &str) -> usize {
    let mut at = 1;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        match c {
            '"' => return at + 1,
            '\\' => at += 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ if rest.starts_with("$${") || rest.starts_with("%%{") => at += 3,
            _ if rest.starts_with("${") || rest.starts_with("%{") => at += 2 + inside(&rest[2..]),
            _ => at += c.len_utf8(),
        }
    }
    text.len()
}

/// Returns the length of an interpolation behind its opening brace, the closing one included.
fn inside(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '"' => {
                at += quoted(&text[at..]);
                continue;
            }
            '{' => depth += 1,
            '}' if depth == 0 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    text.len()
}

/// Returns the length of the heredoc that a text begins with, without the line break behind it.
fn heredoc(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("<<")?;
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let (first, body) = rest.split_once('\n')?;
    let delimiter = first.trim();
    if delimiter.is_empty() || !delimiter.chars().all(|c| word(c) || c == '-') {
        return None;
    }
    let mut at = text.len() - body.len();
    for line in body.split_inclusive('\n') {
        if line.trim() == delimiter {
            return Some(at + line.trim_end().len());
        }
        at += line.len();
    }
    None
}
