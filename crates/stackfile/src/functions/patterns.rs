//! Functions that take regular expressions. Their syntax is that of the `regex` crate, which is RE2's but for rare escapes;
//! matching takes linear time.

use regex::{Captures, Regex, RegexBuilder};

use super::{Call, Function, whole};
use crate::fault::{Eval, all};
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole(
        "regex(pattern, string)",
        "What the pattern matches first: a string, a list of its groups, or a map of its named groups. No match is an error.",
        (r#"regex("(?P<host>[a-z]+):(?P<port>\\d+)", "db:5432")"#, r#"{"host":"db","port":"5432"}"#),
        |c| {
            let (pattern, text) = (pattern(c, 0, &c.text(0)?)?, c.text(1)?);
            c.ev.cx.spend(text.len(), c.at)?;
            let found = pattern.captures(&text).ok_or_else(|| {
                let shown = c.unless_sensitive(1, format!(", which is {}", c.args[1].shown()));
                c.fault(format!("the pattern matches nothing in the string{shown}"))
            })?;
            groups(c, &pattern, &found)
        },
    ),
    whole(
        "regexall(pattern, string)",
        "All that the pattern matches, each as `regex` returns it; an empty list if nothing.",
        (r#"regexall("[a-z]+", "ab 12 cd")"#, r#"["ab","cd"]"#),
        |c| {
            let (pattern, text) = (pattern(c, 0, &c.text(0)?)?, c.text(1)?);
            c.ev.cx.spend(text.len(), c.at)?;
            let found = pattern.captures_iter(&text).map(|found| {
                c.ev.cx.spend(found.get_match().len(), c.at)?;
                Ok(c.value(groups(c, &pattern, &found)?))
            });
            Ok(Data::List(all(found)?))
        },
    ),
    whole(
        "replace(string, old, new)",
        "The string with `old` replaced by `new` throughout. In slashes, `old` is a pattern, and `$1` or `${name}` in `new` \
         a group of it.",
        (r#"replace("1.2.3", "/(\\d+)\\.(\\d+)/", "$2.$1")"#, r#""2.1.3""#),
        replace,
    ),
];

/// Returns the compiled pattern.
fn pattern(call: &Call, i: usize, pattern: &str) -> Eval<Regex> {
    /// Memory of a compiled pattern, in bytes: far above what patterns of people need.
    const LARGEST: usize = 1 << 20;
    call.ev.cx.spend(pattern.len().saturating_mul(64), call.at)?;
    RegexBuilder::new(pattern).size_limit(LARGEST).dfa_size_limit(LARGEST).build().map_err(|error| {
        // The last line of the message says what is wrong; those before draw the pattern.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let reason = call.unless_sensitive(i, format!(": {reason}"));
        call.wrong(i, format!("not a regular expression{reason}"))
    })
}

/// Returns a match: its groups by name or in a list, or the whole of it.
fn groups(call: &Call, pattern: &Regex, found: &Captures) -> Eval<Data> {
    let value = |group: Option<regex::Match>| match group {
        Some(text) => Value::text(text.as_str(), call.at),
        None => call.value(Data::Null),
    };
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    let named = names.iter().filter(|name| name.is_some()).count();
    if names.is_empty() {
        return Ok(Data::Text(found.get_match().as_str().to_owned()));
    }
    if named == 0 {
        return Ok(Data::List((1..=names.len()).map(|i| value(found.get(i))).collect()));
    }
    if named < names.len() {
        return Err(call.wrong(0, "the groups have names in part: name all of them, or none"));
    }
    let entries = names.into_iter().flatten().map(|name| (name.to_owned(), value(found.name(name))));
    Ok(Data::Map(entries.collect()))
}

fn replace(call: &Call) -> Eval<Data> {
    let (text, old, new) = (call.text(0)?, call.text(1)?, call.text(2)?);
    if old.is_empty() {
        return Err(call.wrong(1, "needs a text to look for"));
    }
    let inner = old.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let Some(inner) = inner else {
        let found = text.matches(&old).count();
        call.fits(found.checked_mul(new.len()).and_then(|grown| grown.checked_add(text.len())))?;
        return Ok(Data::Text(text.replace(&old, &new)));
    };
    let pattern = pattern(call, 1, inner)?;
    call.ev.cx.spend(text.len(), call.at)?;
    let mut replaced = String::new();
    let mut end = 0;
    for found in pattern.captures_iter(&text) {
        let whole = found.get_match();
        replaced.push_str(&text[end..whole.start()]);
        let before = replaced.len();
        found.expand(&new, &mut replaced);
        call.fits(Some(replaced.len() - before))?;
        end = whole.end();
        if replaced.len() > crate::template::LONGEST_TEXT {
            return Err(call.fault("text longer than 16 MiB"));
        }
    }
    replaced.push_str(&text[end..]);
    call.made(replaced)
}
