//! Colour, and the width of text that has it.

/// Whether text gets colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether it does.
    pub colour: bool,
}

/// What a piece of text is to look like: the few looks there are, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// A name or a headline.
    Strong,
    /// What is of less weight.
    Faint,
    /// What is well, or new.
    Good,
    /// What changes, or is waited for.
    Busy,
    /// What is wrong, or goes.
    Bad,
}

impl Style {
    /// No colour.
    #[cfg(test)]
    pub const PLAIN: Self = Self { colour: false };

    /// Returns the text with a look (ECMA-48 §8.3.117, "select graphic rendition").
    pub fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Good => "32",
            Paint::Busy => "33",
            Paint::Bad => "31",
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Returns how many columns the text takes, colour codes not counted; a character is taken to be one column wide.
pub fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            rest.find(|c| c.is_ascii_alphabetic());
        } else {
            columns += 1;
        }
    }
    columns
}

/// Returns the first `columns` columns of the text, with an ellipsis if something is left out. Colour ends with it.
pub fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut out, mut taken, mut coloured) = (String::new(), 0, false);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(c);
        if c == '\x1b' {
            coloured = true;
            for c in rest.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            taken += 1;
            if taken >= columns {
                out.pop();
                break;
            }
        }
    }
    if columns > 0 {
        out.push('…');
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_do_not_count_colour() {
        let red = Style { colour: true }.paint(Paint::Bad, "wrong");
        assert_eq!(width(&red), 5);
        assert_eq!(width("├─ web"), 6);
        assert_eq!(Style::PLAIN.paint(Paint::Bad, "wrong"), "wrong");
    }

    #[test]
    fn clipping() {
        let check = |text: &str, columns: usize, expected: &str| assert_eq!(clip(text, columns), expected);
        check("short", 5, "short");
        check("longer", 5, "long…");
        check("longer", 0, "");
        check("\x1b[31mlonger\x1b[0m", 5, "\x1b[31mlong…\x1b[0m");
        check("\x1b[31mshort\x1b[0m", 5, "\x1b[31mshort\x1b[0m");
    }
}
