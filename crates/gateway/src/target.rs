//! What a request asks for, in its normal form, so that one thing has one name: rules of routes are else passed by.

/// Returns a path with its query, and the path in its normal form; `None` if it has that already. There, characters that need no `%`
/// have none, other hexadecimal digits are large (RFC 3986 §6.2.2), a `%` without two digits is `%25`, and there are no segments `.` and
/// `..` (§5.2.4). What is no path is left as it is.
pub(crate) fn normal(target: &str) -> Option<String> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if !path.starts_with('/') || !(path.contains('%') || path.contains("/.")) {
        return None;
    }
    Some(without_dots(&decoded(path)) + query)
}

fn decoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut left = path;
    while let Some((before, behind)) = left.split_once('%') {
        out.push_str(before);
        let digits = behind.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let Some((digits, code)) = digits.and_then(|digits| Some((digits, u8::from_str_radix(digits, 16).ok()?)))
        else {
            // As it is, it might make a pair with what is decoded behind it.
            out.push_str("%25");
            left = behind;
            continue;
        };
        match char::from(code) {
            plain @ ('A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~') => out.push(plain),
            _ => out.extend(['%'].into_iter().chain(digits.chars().map(|digit| digit.to_ascii_uppercase()))),
        }
        left = &behind[2..];
    }
    out + left
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in path.split('/').skip(1) {
        folder = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let end = if folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_one_name() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=/../%41", "/a/b?c=/../%41"),
            ("/%61dmin/%7e%7E-%2f%C3%a9", "/admin/~~-%2F%C3%A9"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b?q", "/b?q"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/a/.b/..c/d.", "/a/.b/..c/d."),
            ("/a//b/../c", "/a//c"),
            ("/a//../b", "/a/b"),
            ("/..//a", "//a"),
            ("/%", "/%25"),
            ("/%4/%zz/%4", "/%254/%25zz/%254"),
            ("/%e9é%", "/%E9é%25"),
            ("/%%361/%%32e%%32e/a", "/%2561/%252e%252e/a"),
            ("/%2541", "/%2541"),
            ("*", "*"),
            ("?a", "?a"),
        ] {
            let normal = |target: &str| normal(target).unwrap_or_else(|| target.to_owned());
            assert_eq!(normal(target), expected, "{target}");
            assert_eq!(normal(expected), expected, "{expected} is normal");
        }
    }
}
