//! From text to instructions as they are written: comments dropped, continued lines joined, here-documents taken.

use crate::Fault;

/// One instruction as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    /// Its first line, counted from 1.
    pub(crate) line: usize,
    /// Its name in capitals.
    pub(crate) word: String,
    /// What follows the name.
    pub(crate) rest: String,
    /// Here-documents, in order.
    pub(crate) heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// What ends it: for `COPY` also the file's name.
    pub(crate) name: String,
    /// Its lines.
    pub(crate) content: String,
    /// Whether variables in it are replaced.
    pub(crate) expands: bool,
}

/// Cuts a text into instructions; returns the escape character too.
pub(crate) fn cut(text: &str) -> Result<(Vec<Raw>, char), Fault> {
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    let escape = escape(&lines)?;
    let mut raws = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let first = at + 1;
        let mut joined = String::new();
        loop {
            let line = lines.get(at).copied().unwrap_or_default();
            at += 1;
            if line.trim_start().starts_with('#') || (line.trim().is_empty() && !joined.is_empty()) {
                // Comments and empty lines do not end what is continued.
                if at < lines.len() && !joined.is_empty() {
                    continue;
                }
                break;
            }
            match line.trim_end().strip_suffix(escape) {
                Some(more) => joined.push_str(more),
                None => {
                    joined.push_str(line);
                    break;
                }
            }
            if at >= lines.len() {
                break;
            }
        }
        let joined = joined.trim();
        if joined.is_empty() {
            continue;
        }
        let (word, rest) = joined.split_once(char::is_whitespace).unwrap_or((joined, ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim().to_owned());
        let mut heredocs = Vec::new();
        if ["RUN", "COPY", "ADD"].contains(&word.as_str()) {
            for (name, strip, expands) in openings(&rest) {
                let mut content = String::new();
                loop {
                    let Some(line) = lines.get(at) else {
                        return Err(Fault::new(first, format!("the here-document `{name}` does not end")));
                    };
                    at += 1;
                    let line = if strip { line.trim_start_matches('\t') } else { line };
                    if line == name {
                        break;
                    }
                    content.push_str(line);
                    content.push('\n');
                }
                heredocs.push(Heredoc { name, content, expands });
            }
        }
        raws.push(Raw { line: first, word, rest, heredocs });
    }
    Ok((raws, escape))
}

/// Reads the directives at the beginning: comments of the form `# name=value` before anything else.
fn escape(lines: &[&str]) -> Result<char, Fault> {
    for (n, line) in lines.iter().enumerate() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else { break };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" if value == "\\" || value == "`" => return Ok(value.chars().next().unwrap_or('\\')),
            "escape" => {
                return Err(Fault::new(n + 1, format!("`{value}` can't be the escape character, `\\` and ` can")));
            }
            // Newer syntaxes add flags and instructions, each of which is taken or refused where it stands.
            "syntax" | "check" => {}
            _ => break,
        }
    }
    Ok('\\')
}

/// Returns the here-documents that a line opens: what ends them, whether tabs are stripped, whether variables are replaced.
fn openings(rest: &str) -> Vec<(String, bool, bool)> {
    let mut found = Vec::new();
    let mut quote: Option<char> = None;
    let chars: Vec<char> = rest.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '<' && chars.get(at + 1) == Some(&'<') && chars.get(at + 2) != Some(&'<') => {
                at += 2;
                let strip = chars.get(at) == Some(&'-');
                at += usize::from(strip);
                let quoted = chars.get(at).copied().filter(|c| *c == '\'' || *c == '"');
                at += usize::from(quoted.is_some());
                let from = at;
                while chars.get(at).is_some_and(|c| c.is_alphanumeric() || "_.-".contains(*c)) {
                    at += 1;
                }
                if at > from {
                    found.push((chars[from..at].iter().collect(), strip, quoted.is_none()));
                }
                at += usize::from(quoted.is_some());
                continue;
            }
            None if c == '<' && chars.get(at + 1) == Some(&'<') => at += 2,
            None => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_dropped() {
        let text = "# syntax=docker/dockerfile:1\n# a comment\nFROM x\n\nrun a \\\n  # within\n\n  && b\nRUN c\n";
        let (raws, escape) = cut(text).unwrap();
        assert_eq!(escape, '\\');
        let seen: Vec<_> = raws.iter().map(|r| (r.line, r.word.as_str(), r.rest.as_str())).collect();
        assert_eq!(seen, [(3, "FROM", "x"), (5, "RUN", "a   && b"), (9, "RUN", "c")]);
    }

    #[test]
    fn here_documents_are_taken() {
        let text = "RUN <<EOF\na $X\nEOF\nCOPY <<-'A' <<B /d/\n\tone\n\tA\ntwo\nB\nRUN x <<< y\n";
        let (raws, _) = cut(text).unwrap();
        assert_eq!(raws[0].heredocs, [Heredoc { name: "EOF".into(), content: "a $X\n".into(), expands: true }]);
        assert_eq!(raws[1].heredocs[0], Heredoc { name: "A".into(), content: "one\n".into(), expands: false });
        assert_eq!(raws[1].heredocs[1].content, "two\n");
        assert_eq!(raws[2].heredocs, []);
        assert_eq!(cut("RUN <<EOF\na\n").unwrap_err().line, 1);
    }

    #[test]
    fn the_escape_character_can_be_chosen() {
        let (raws, escape) = cut("# escape=`\nRUN a `\n b\n").unwrap();
        assert_eq!((escape, raws[0].rest.as_str()), ('`', "a  b"));
        assert!(cut("# escape=x\n").is_err());
    }
}
