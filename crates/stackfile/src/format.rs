//! `basalt fmt`: HCL in its usual form. Only white space changes; comments and everything else stay as they are.
//!
//! The style is the one that people know from other tools of this language: two spaces a level, `=` of neighbouring
//! single-line attributes in one column, and so their comments.

use std::borrow::Cow;

use crate::lex::{Kind, Token, tokens};
use crate::text::unmarked;

/// Spaces a level.
const INDENT: usize = 2;

/// A line: what stands before an `=` whose value ends on this line, that and what follows, and the comment behind.
#[derive(Default)]
struct Line<'t> {
    indent: usize,
    lead: Vec<&'t Token<'t>>,
    assign: Vec<&'t Token<'t>>,
    comment: Option<&'t Token<'t>>,
}

/// Returns a line with nothing but a line feed at its end, if it has one: a carriage return that stays before it would be
/// taken for a part of it the next time.
fn line_feed(line: &str) -> Cow<'_, str> {
    match line.strip_suffix('\n') {
        Some(rest) if rest.ends_with('\r') => Cow::Owned(format!("{}\n", rest.trim_end_matches('\r'))),
        _ => Cow::Borrowed(line),
    }
}

/// Returns an HCL text in its usual form; `None` if it is no HCL, or if that would change more than white space.
pub fn format(text: &str) -> Option<String> {
    let text: String = unmarked(text).split_inclusive('\n').map(line_feed).collect();
    hcl_edit::parser::parse_body(&text).ok()?;
    let before = tokens(&text);
    let mut lines: Vec<Line> = before.split(|token| token.kind == Kind::Newline).map(line).collect();
    indent(&mut lines);
    let leads: Vec<usize> = columns(&lines, |line| (!line.assign.is_empty()).then(|| line.indent + width(&line.lead)));
    let codes: Vec<usize> = columns(&lines, |line| {
        let code = line.comment.is_some() && !line.lead.is_empty();
        code.then(|| line.indent + code_width(line, &leads, &lines))
    });
    let mut formatted = String::new();
    for (i, line) in lines.iter().enumerate() {
        let mut written = String::new();
        if !line.lead.is_empty() {
            written = " ".repeat(line.indent) + &spaced(&line.lead);
        }
        if !line.assign.is_empty() {
            written += &" ".repeat(leads[i].saturating_sub(written.chars().count()) + 1);
            written += &spaced(&line.assign);
        }
        if let Some(comment) = line.comment {
            if line.lead.is_empty() {
                written = " ".repeat(line.indent);
            } else {
                written += &" ".repeat(codes[i].saturating_sub(last_line(&written)) + 1);
            }
            written += comment.text.trim_end();
        }
        formatted += written.trim_end();
        formatted.push('\n');
    }
    let trimmed = formatted.trim_matches('\n');
    let formatted = if trimmed.is_empty() { String::new() } else { format!("{trimmed}\n") };
    // What the lexer does not understand as the parser does must not be touched.
    let same = {
        let after = tokens(&formatted);
        let whole = |tokens: &[Token]| -> Vec<String> {
            let texts = tokens.iter().filter(|token| token.kind != Kind::Newline);
            texts.map(|token| token.text.trim_end().to_owned()).collect()
        };
        whole(&before) == whole(&after) && hcl_edit::parser::parse_body(&formatted).is_ok()
    };
    same.then_some(formatted)
}

/// Takes a line of tokens apart.
fn line<'t>(tokens: &'t [Token<'t>]) -> Line<'t> {
    let mut tokens: Vec<&Token> = tokens.iter().collect();
    let comment = tokens.pop_if(|token| token.kind == Kind::Comment && !token.text.contains('\n'));
    let equals = tokens.iter().position(|token| token.text == "=").filter(|i| *i > 0);
    // A value that goes on behind this line is in no column with others.
    let whole = |i: &usize| tokens[*i..].iter().map(|token| token.opens()).sum::<i32>() == 0;
    let long = tokens.iter().any(|token| token.text.contains('\n') && !token.text.starts_with("<<"));
    let assign = match equals.filter(whole).filter(|_| !long) {
        Some(i) => tokens.split_off(i),
        None => Vec::new(),
    };
    Line { indent: 0, lead: tokens, assign, comment }
}

/// Sets how far each line is indented: one level for each line above that opened more than it closed.
fn indent(lines: &mut [Line]) {
    let mut open: Vec<i32> = Vec::new();
    for line in lines {
        let code = || line.lead.iter().chain(&line.assign);
        let net: i32 = code().map(|token| token.opens()).sum();
        let closers = code().take_while(|token| token.opens() < 0).count();
        let mut closed = -net;
        while net < 0 && closed > 0 {
            match open.last_mut() {
                Some(last) if *last > closed => {
                    *last -= closed;
                    closed = 0;
                }
                Some(last) => {
                    closed -= *last;
                    open.pop();
                }
                None => break,
            }
        }
        // `}, {` closes one and opens another.
        let level = if net >= 0 && closers > 0 { open.len().saturating_sub(1) } else { open.len() };
        line.indent = INDENT * level;
        if net > 0 {
            open.push(net);
        }
    }
}

/// Returns for each line the widest of its run of neighbours that have a width; 0 where there is none.
fn columns(lines: &[Line], width: impl Fn(&Line) -> Option<usize>) -> Vec<usize> {
    let widths: Vec<Option<usize>> = lines.iter().map(width).collect();
    let mut columns = vec![0; lines.len()];
    let mut start = 0;
    while start < widths.len() {
        let some = widths[start..].iter().take_while(|width| width.is_some()).count();
        // Behind a heredoc, another run begins.
        let ends = |line: &Line| line.assign.last().is_some_and(|token| token.text.contains('\n'));
        let run = lines[start..start + some].iter().position(ends).map_or(some, |end| end + 1);
        let widest = widths[start..start + run].iter().flatten().max().copied().unwrap_or(0);
        columns[start..start + run].fill(widest);
        start += run.max(1);
    }
    columns
}

/// Returns the width of a line without indentation and comment.
fn code_width(line: &Line, leads: &[usize], lines: &[Line]) -> usize {
    if line.assign.is_empty() {
        return last_line(&spaced(&line.lead));
    }
    let i = lines.iter().position(|other| std::ptr::eq(other, line)).unwrap_or(0);
    leads[i].saturating_sub(line.indent) + 1 + width(&line.assign)
}

fn width(tokens: &[&Token]) -> usize {
    spaced(tokens).chars().count()
}

/// Returns the characters of a text's last line.
fn last_line(text: &str) -> usize {
    text.rsplit('\n').next().unwrap_or(text).chars().count()
}

/// Returns tokens with the spaces that belong between them.
fn spaced(tokens: &[&Token]) -> String {
    let mut text = String::new();
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 && space(tokens.get(i.wrapping_sub(2)).copied(), tokens[i - 1], token) {
            text.push(' ');
        }
        text.push_str(token.text);
    }
    text
}

/// Returns whether a space belongs between two tokens; `earlier` stands before them.
fn space(earlier: Option<&Token>, before: &Token, token: &Token) -> bool {
    let (b, t) = (before.text, token.text);
    // Words after which a value begins.
    let word = |token: &Token| token.kind == Kind::Word && !["in", "if", "for", "else", "endif"].contains(&token.text);
    let value = |token: &Token| word(token) || token.kind == Kind::Text || [")", "]", "}"].contains(&token.text);
    match (b, t) {
        ("{", "}") | ("[", "]") | ("(", ")") => false,
        (".", _) | (_, "." | "," | ")" | "]" | "...") | ("(" | "[" | "!", _) => false,
        // What was written as one, such as `a.*` and `::` in names, stays one.
        (":", ":") | ("*", _) | (_, "*") if !token.spaced && b == ":" => false,
        (_, "(") => !(word(before)),
        (_, "[") => !value(before),
        // A sign, not a subtraction.
        ("-", _) => earlier.is_some_and(value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(format(text).as_deref(), Some(expected), "{text}");
            assert_eq!(format(expected).as_deref(), Some(expected), "idempotent");
        };
        check("", "");
        check("a=1", "a = 1\n");
        check("a=1\r\r\nb=<<E\r\nx\r\r\nE\r\n", "a = 1\nb = <<E\nx\nE\n");
        check("\n\na = 1\nbcd=2 # x\ne = 3   # y\n\n", "a   = 1\nbcd = 2 # x\ne   = 3 # y\n");
        check("service \"web\"{\nimage=image.web\n}\n", "service \"web\" {\n  image = image.web\n}\n");
        check("http {   }\n", "http {}\n");
        check("port \"http\" {container=8080}\n", "port \"http\" { container = 8080 }\n");
        check("a=[1,2 ,-3 , -x,4-5, 6 -7]\n", "a = [1, 2, -3, -x, 4 - 5, 6 - 7]\n");
        check("a = f( x ,y [0] , z . b)\n", "a = f(x, y[0], z.b)\n");
        check("a = !  b && ( c||d )\n", "a = !b && (c || d)\n");
        check("a = [for x in y:x if x!=1]\n", "a = [for x in y : x if x != 1]\n");
        check("a = {for k,v in y:k=>v...}\n", "a = { for k, v in y : k => v... }\n");
        check("a = x[*].b\nb = x.*.c\n", "a = x[*].b\nb = x.*.c\n");
        check("a = 2*3\n", "a = 2 * 3\n");
        check("a = -1\n", "a = -1\n");
        check("a = {\nb=1\nlong=2\n}\n", "a = {\n  b    = 1\n  long = 2\n}\n");
        check(
            "a = [\n{ x = 1 },\n{\ny=2\n}, {\nz=3\n}\n]\n",
            "a = [\n  { x = 1 },\n  {\n    y = 2\n    }, {\n    z = 3\n  }\n]\n".replace("    }, {", "  }, {").as_str(),
        );
        check("a = f({\nb = 1\n})\n", "a = f({\n  b = 1\n})\n");
        check("  # top\na {\n// in\n/* block\n   stays */\n}\n", "# top\na {\n  // in\n  /* block\n   stays */\n}\n");
        check("a = <<-E\n   x ${ y }\n     z\n   E\nb = 1\n", "a = <<-E\n   x ${ y }\n     z\n   E\nb = 1\n");
        check("a = \"${ x }  \\\" %{ if y }z%{ endif }\"\n", "a = \"${ x }  \\\" %{ if y }z%{ endif }\"\n");
        check("ab = 1\nc = <<E\n x\nE\nd = 1\n", "ab = 1\nc  = <<E\n x\nE\nd = 1\n");
        check("a = c?1:2\r\n", "a = c ? 1 : 2\n");
    }
}
