//! Commands as one string, taken apart as Compose does: by spaces, with quotes and backslashes, without any expansion.

/// Returns the words of a command.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn commands() {
        let check = |text: &str, expected: &[&str]| assert_eq!(words(text), expected, "{text}");
        check("redis-server --save 60 1", &["redis-server", "--save", "60", "1"]);
        check(r#"sh -c "echo 'a b' && x \"y\"""#, &["sh", "-c", "echo 'a b' && x \"y\""]);
        check("a '' b\\ c\n  d", &["a", "", "b c", "d"]);
        check("", &[]);
    }
}
