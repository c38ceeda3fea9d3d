//! Functions of strings. What they call a character is a grapheme cluster (UAX #29), as people see one.

use unicode_segmentation::UnicodeSegmentation;

use super::{Call, Function, texts, whole};
use crate::fault::Eval;
use crate::value::Data;

pub(super) const TABLE: &[Function] = &[
    whole("chomp(string)", "The string without line breaks at its end.", (r#"chomp("a\n\n")"#, r#""a""#), |c| {
        Ok(Data::Text(c.text(0)?.trim_end_matches(['\r', '\n']).to_owned()))
    }),
    whole(
        "endswith(string, suffix)",
        "Whether the string ends with the suffix.",
        (r#"endswith("hello", "lo")"#, "true"),
        |c| Ok(Data::Bool(c.text(0)?.ends_with(&c.text(1)?))),
    ),
    whole(
        "indent(spaces, string)",
        "The string with so many spaces before each line but the first.",
        (r#"indent(2, "a:\nb")"#, r#""a:\n  b""#),
        indent,
    ),
    whole(
        "join(separator, lists...)",
        "The elements of the lists as one string, the separator between them.",
        (r#"join(", ", ["a", "b"], ["c"])"#, r#""a, b, c""#),
        join,
    ),
    whole("lower(string)", "The string in small letters.", (r#"lower("ÄB")"#, r#""äb""#), |c| {
        c.made(c.text(0)?.to_lowercase())
    }),
    whole(
        "split(separator, string)",
        "The parts of the string between the separators, as a list.",
        (r#"split(",", "a,b,,c")"#, r#"["a","b","","c"]"#),
        split,
    ),
    whole(
        "startswith(string, prefix)",
        "Whether the string begins with the prefix.",
        (r#"startswith("hello", "he")"#, "true"),
        |c| Ok(Data::Bool(c.text(0)?.starts_with(&c.text(1)?))),
    ),
    whole(
        "strcontains(string, part)",
        "Whether the part is in the string.",
        (r#"strcontains("hello", "ell")"#, "true"),
        |c| Ok(Data::Bool(c.text(0)?.contains(&c.text(1)?))),
    ),
    whole("strrev(string)", "The characters in reverse order.", (r#"strrev("añb")"#, r#""bña""#), |c| {
        Ok(Data::Text(c.text(0)?.graphemes(true).rev().collect()))
    }),
    whole(
        "substr(string, offset, length)",
        "So many characters from the offset on. A negative offset counts from the end; length -1 means the rest.",
        (r#"substr("hello world", -5, 3)"#, r#""wor""#),
        substr,
    ),
    whole(
        "title(string)",
        "The string with the first letter of each word as a capital.",
        (r#"title("hello world")"#, r#""Hello World""#),
        |c| c.made(title(&c.text(0)?)),
    ),
    whole(
        "trim(string, characters)",
        "The string without any of the characters at its begin and end.",
        (r#"trim("?!hello?!", "!?")"#, r#""hello""#),
        |c| {
            let (text, set) = (c.text(0)?, c.text(1)?);
            Ok(Data::Text(text.trim_matches(|ch| set.contains(ch)).to_owned()))
        },
    ),
    whole(
        "trimprefix(string, prefix)",
        "The string without the prefix, if it begins with it.",
        (r#"trimprefix("v1.2", "v")"#, r#""1.2""#),
        |c| {
            let (text, prefix) = (c.text(0)?, c.text(1)?);
            Ok(Data::Text(text.strip_prefix(prefix.as_str()).unwrap_or(&text).to_owned()))
        },
    ),
    whole(
        "trimsuffix(string, suffix)",
        "The string without the suffix, if it ends with it.",
        (r#"trimsuffix("app.toml", ".toml")"#, r#""app""#),
        |c| {
            let (text, suffix) = (c.text(0)?, c.text(1)?);
            Ok(Data::Text(text.strip_suffix(suffix.as_str()).unwrap_or(&text).to_owned()))
        },
    ),
    whole(
        "trimspace(string)",
        "The string without white space at its begin and end.",
        (r#"trimspace("  a b\n")"#, r#""a b""#),
        |c| Ok(Data::Text(c.text(0)?.trim().to_owned())),
    ),
    whole("upper(string)", "The string in capital letters.", (r#"upper("äb")"#, r#""ÄB""#), |c| {
        c.made(c.text(0)?.to_uppercase())
    }),
];

fn indent(call: &Call) -> Eval<Data> {
    let (spaces, text) = (call.size(0)?, call.text(1)?);
    let breaks = text.bytes().filter(|b| *b == b'\n').count();
    call.fits(breaks.checked_mul(spaces).and_then(|more| more.checked_add(text.len())))?;
    Ok(Data::Text(text.replace('\n', &format!("\n{}", " ".repeat(spaces)))))
}

fn join(call: &Call) -> Eval<Data> {
    let separator = call.text(0)?;
    let mut items = Vec::new();
    for i in 1..call.args.len() {
        items.extend(call.texts(i)?);
    }
    let gaps = items.len().saturating_sub(1);
    call.fits(separator.len().checked_mul(gaps).and_then(|n| n.checked_add(items.iter().map(String::len).sum())))?;
    Ok(Data::Text(items.join(&separator)))
}

fn split(call: &Call) -> Eval<Data> {
    let (separator, text) = (call.text(0)?, call.text(1)?);
    call.ev.cx.spend(text.len(), call.at)?;
    let parts: Vec<String> = match separator.as_str() {
        "" => text.graphemes(true).map(str::to_owned).collect(),
        _ => text.split(separator.as_str()).map(str::to_owned).collect(),
    };
    Ok(texts(parts, call.at))
}

fn substr(call: &Call) -> Eval<Data> {
    let (text, offset, length) = (call.text(0)?, call.integer(1)?, call.integer(2)?);
    call.ev.cx.spend(text.len(), call.at)?;
    let characters: Vec<&str> = text.graphemes(true).collect();
    let count = characters.len() as i128;
    // An offset before the begin means the begin, one behind the end gives nothing.
    let start = if offset < 0 { (count + offset).max(0) } else { offset.min(count) };
    let end = match length {
        -1 => count,
        0.. => start.saturating_add(length).min(count),
        _ => return Err(call.wrong(2, "a length is not negative; -1 means the rest")),
    };
    Ok(Data::Text(characters[start as usize..end as usize].concat()))
}

/// Returns the text with a capital at the begin of each word. Letters, digits and `_` make words.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut within = false;
    for ch in text.chars() {
        if within {
            titled.push(ch);
        } else {
            titled.extend(ch.to_uppercase());
        }
        within = ch.is_alphanumeric() || ch == '_';
    }
    titled
}
