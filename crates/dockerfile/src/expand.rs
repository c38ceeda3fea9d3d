//! Words, quotes and variables, as Dockerfile's own reference has them ("Environment replacement").

/// Cuts a text into words at blanks outside of quotes. Quotes and escapes stay, for [`expand`].
pub(crate) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes away and replaces variables.
///
/// # Errors
/// A sentence, if a variable is written in a way that is not taken.
pub(crate) fn expand(text: &str, escape: char, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' if !double => out.extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => double = !double,
            c if c == escape => match chars.next() {
                // Within double quotes only these are escaped.
                Some(next) if double && next != '"' && next != '$' && next != escape => out.extend([c, next]),
                Some(next) => out.push(next),
                None => out.push(c),
            },
            '$' => variable(&mut chars, escape, lookup, &mut out)?,
            c => out.push(c),
        }
    }
    Ok(out)
}

fn variable(
    chars: &mut std::iter::Peekable<std::str::Chars>,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<String>,
    out: &mut String,
) -> Result<(), String> {
    if chars.peek() != Some(&'{') {
        let name = name(chars);
        match name.as_str() {
            "" => out.push('$'),
            name => out.push_str(&lookup(name).unwrap_or_default()),
        }
        return Ok(());
    }
    chars.next();
    let name = name(chars);
    let mut rest = String::new();
    let mut depth = 1;
    loop {
        match chars.next() {
            None => return Err(format!("`${{{name}` does not end")),
            Some('}') if depth == 1 => break,
            Some(c) => {
                depth += usize::from(c == '{');
                depth -= usize::from(c == '}');
                rest.push(c);
            }
        }
    }
    let value = lookup(&name);
    let not_empty = value.clone().filter(|value| !value.is_empty());
    let word = |text: &str| expand(text, escape, lookup);
    let found = if rest.is_empty() {
        value.unwrap_or_default()
    } else if let Some(text) = rest.strip_prefix(":-") {
        not_empty.map_or_else(|| word(text), Ok)?
    } else if let Some(text) = rest.strip_prefix(":+") {
        if not_empty.is_some() { word(text)? } else { String::new() }
    } else if let Some(text) = rest.strip_prefix('-') {
        value.map_or_else(|| word(text), Ok)?
    } else if let Some(text) = rest.strip_prefix('+') {
        if value.is_some() { word(text)? } else { String::new() }
    } else if let Some(text) = rest.strip_prefix(":?") {
        not_empty.ok_or_else(|| format!("`{name}` is not set: {text}"))?
    } else {
        return Err(format!("`${{{name}{rest}}}` is not taken; `:-`, `:+`, `-`, `+` and `:?` are"));
    };
    out.push_str(&found);
    Ok(())
}

fn name(chars: &mut std::iter::Peekable<std::str::Chars>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.peek().copied().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
        if name.is_empty() && c.is_ascii_digit() {
            break;
        }
        name.push(c);
        chars.next();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_blanks() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text, '\\'), expected, "{text}");
        check("a  b", &["a", "b"]);
        check(r#"A="x y" B='z w' C=1\ 2"#, &[r#"A="x y""#, "B='z w'", r"C=1\ 2"]);
        check("", &[]);
    }

    #[test]
    fn variables_are_replaced() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let lookup = |name: &str| match name {
                "X" => Some("x".to_owned()),
                "EMPTY" => Some(String::new()),
                _ => None,
            };
            match (expand(text, '\\', &lookup), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("$X-${X}y", Ok("x-xy"));
        check("'$X'", Ok("$X"));
        check("\"$X y\"", Ok("x y"));
        check(r"\$X", Ok("$X"));
        check("${NO:-d$X}", Ok("dx"));
        check("${EMPTY:-d}", Ok("d"));
        check("${EMPTY-d}", Ok(""));
        check("${X:+y}", Ok("y"));
        check("${NO:+y}", Ok(""));
        check("${NO:-${X}}", Ok("x"));
        check("$", Ok("$"));
        check("$1", Ok("$1"));
        check("${NO:?wanted}", Err("wanted"));
        check("${X#y}", Err("not taken"));
        check("${X", Err("does not end"));
    }
}
