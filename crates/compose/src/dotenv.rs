//! Files of environment variables: `.env` and `env_file`.

/// Returns the lines of such a file, `KEY=value` or `export KEY=value`, with `$` in values still to be replaced where they may be
/// (not in single quotes: there it is doubled).
pub fn dotenv(text: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let (key, value) = (key.trim(), value.trim_start());
        if key.is_empty() {
            continue;
        }
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => {
                // A quoted value may go over lines.
                let mut rest = value[1..].to_owned();
                let mut end = closing(&rest, quote);
                while end.is_none() {
                    let Some(line) = lines.next() else { break };
                    rest.push('\n');
                    rest.push_str(line);
                    end = closing(&rest, quote);
                }
                let inner = &rest[..end.unwrap_or(rest.len())];
                if quote == '"' { unescape(inner) } else { inner.replace('$', "$$") }
            }
            // A comment begins behind a space.
            None => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
        };
        entries.push((key.to_owned(), value));
    }
    entries
}

/// Returns where the quote ends that a text is within.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(i),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some('$') => plain.push_str("$$"),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            (c, false) => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let found = dotenv(text);
            let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("A=1\n# c\n\nexport B = two # three\n", &[("A", "1"), ("B", "two")]);
        check("A=\"x\\ny # z\"\nB='a$b'\n", &[("A", "x\ny # z"), ("B", "a$$b")]);
        check("A=\"one\ntwo\"\nB=\n", &[("A", "one\ntwo"), ("B", "")]);
        check("A=x#y\nnothing\n", &[("A", "x#y")]);
    }
}
