//! Patterns of file names: those of `.dockerignore`, and those of what a Dockerfile copies.
//!
//! `*` and `?` match within one part of a path, `[a-z]` and `[^a]` one character, `\` takes away a character's meaning,
//! `**` matches any number of parts. A pattern that begins with `!` takes back what earlier ones left out.

/// One part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of parts.
    Any,
    /// One part of a path.
    One(Vec<char>),
}

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a pattern. Slashes at its ends, doubled ones and `.` say nothing.
    pub(crate) fn new(text: &str) -> Self {
        let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
        Self(parts.map(|part| if part == "**" { Part::Any } else { Part::One(part.chars().collect()) }).collect())
    }

    /// Returns whether it matches a whole path (without a slash in front).
    pub(crate) fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        matches(&self.0, &path)
    }

    /// Returns whether it could match something below a directory, or the directory itself.
    pub(crate) fn may_match_below(&self, dir: &str) -> bool {
        let dir: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
        let mut pattern = self.0.iter();
        dir.iter().all(|part| match pattern.next() {
            Some(Part::One(one)) => matches_part(one, &part.chars().collect::<Vec<_>>()),
            // From here on anything goes; one that is used up matches only what is above.
            Some(Part::Any) => true,
            None => false,
        }) || self.0.contains(&Part::Any)
    }
}

fn matches(pattern: &[Part], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((Part::Any, rest)) => (0..=path.len()).any(|n| matches(rest, &path[n..])),
        Some((Part::One(one), rest)) => path
            .split_first()
            .is_some_and(|(first, more)| matches_part(one, &first.chars().collect::<Vec<_>>()) && matches(rest, more)),
    }
}

/// Matches one part, going back to the last `*` where it fails: linear in memory, at most quadratic in time.
fn matches_part(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            if p == pattern.len() {
                return true;
            }
        } else if let Some(length) = matches_one(&pattern[p.min(pattern.len())..], text[t]) {
            p += length;
            t += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Returns how long the first item of a pattern is, if it matches a character.
fn matches_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => {
            let end = pattern.iter().skip(2).position(|c| *c == ']').map(|n| n + 2)?;
            let negated = matches!(pattern[1], '^' | '!');
            let set = &pattern[if negated { 2 } else { 1 }..end];
            let mut at = 0;
            let mut found = false;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == '-' {
                    found |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    found |= set[at] == c;
                    at += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        plain => (*plain == c).then_some(1),
    }
}

/// What is left out of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Exclude(Vec<(Pattern, bool)>);

impl Exclude {
    /// Reads patterns in order.
    pub(crate) fn new(patterns: &[String]) -> Self {
        let patterns = patterns.iter().map(|p| p.trim()).filter(|p| !p.is_empty());
        Self(
            patterns
                .map(|pattern| match pattern.strip_prefix('!') {
                    Some(rest) => (Pattern::new(rest.trim()), false),
                    None => (Pattern::new(pattern), true),
                })
                .collect(),
        )
    }

    /// Returns whether a path below the folder is left out: the last pattern that matches it or a directory above decides.
    pub(crate) fn leaves_out(&self, path: &str) -> bool {
        let parents = path.match_indices('/').map(|(n, _)| &path[..n]).chain([path]).collect::<Vec<_>>();
        let last = self.0.iter().rev().find(|(pattern, _)| parents.iter().any(|path| pattern.matches(path)));
        last.is_some_and(|(_, out)| *out)
    }

    /// Returns whether something below a directory that is left out might be taken back in.
    pub(crate) fn may_take_back(&self, dir: &str) -> bool {
        self.0.iter().any(|(pattern, out)| !out && pattern.may_match_below(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_docker() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} {path}");
        };
        check("*.txt", "a.txt", true);
        check("*.txt", "d/a.txt", false);
        check("**/*.txt", "d/e/a.txt", true);
        check("**/*.txt", "a.txt", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("/a//./b/", "a/b", true);
        check("*", "", false);
        check("[", "[", false);
        check(&"*a".repeat(50), &"a".repeat(200), true);
        check(&format!("{}b", "*a".repeat(50)), &"a".repeat(200), false);
    }

    #[test]
    fn the_last_match_decides() {
        let check = |patterns: &[&str], path: &str, expected: bool| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            assert_eq!(Exclude::new(&patterns).leaves_out(path), expected, "{patterns:?} {path}");
        };
        check(&["target"], "target", true);
        check(&["target"], "target/debug/x", true);
        check(&["target"], "src/target", false);
        check(&["*.md", "!README.md"], "README.md", false);
        check(&["*.md", "!README.md"], "other.md", true);
        check(&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true);
        check(&["*", "!src"], "src/main.c", false);
        check(&["*", "!src"], "doc", true);
        check(&["**/node_modules"], "a/b/node_modules/c", true);
        check(&[], "a", false);
    }

    #[test]
    fn what_may_be_taken_back_is_looked_for() {
        let exclude = |patterns: &[&str]| Exclude::new(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert!(exclude(&["docs", "!docs/a/b.md"]).may_take_back("docs"));
        assert!(exclude(&["docs", "!docs/a/b.md"]).may_take_back("docs/a"));
        assert!(!exclude(&["docs", "!docs/a/b.md"]).may_take_back("docs/c"));
        assert!(exclude(&["docs", "!**/b.md"]).may_take_back("docs/c"));
        assert!(!exclude(&["docs"]).may_take_back("docs"));
    }
}
