//! Text that is redrawn in place on a terminal.

use crate::error::Result;
use crate::output::Output;
use crate::render::clip;

/// A terminal's size where it does not say (the DEC VT100's, which all others kept).
const USUAL: (usize, usize) = (80, 24);

/// A stretch of lines at the end of the screen.
#[derive(Debug)]
pub struct Live {
    out: Output,
    drawn: usize,
    last: String,
}

impl Live {
    /// Returns an empty stretch.
    pub fn new(out: Output) -> Self {
        Self { out, drawn: 0, last: String::new() }
    }

    /// Replaces the lines by those of `text`, as far as they fit the screen.
    ///
    /// # Errors
    /// If the terminal can't be written.
    pub fn draw(&mut self, text: &str) -> Result<()> {
        if text == self.last {
            return Ok(());
        }
        let (columns, rows) = size();
        let all = text.lines().count();
        // The last row stays free for the cursor: a screen that scrolls can't be redrawn.
        let room = rows.saturating_sub(1).max(1);
        let mut frame = self.back();
        let shown = if all > room { room - 1 } else { all };
        for line in text.lines().take(shown) {
            frame.push_str(&clip(line, columns));
            frame.push('\n');
        }
        if all > shown {
            frame.push_str(&clip(&format!("… and {} more lines", all - shown), columns));
            frame.push('\n');
        }
        self.out.text(&frame)?;
        self.drawn = shown + usize::from(all > shown);
        text.clone_into(&mut self.last);
        Ok(())
    }

    /// Takes the lines away.
    ///
    /// # Errors
    /// If the terminal can't be written.
    pub fn clear(&mut self) -> Result<()> {
        let back = self.back();
        self.drawn = 0;
        self.last.clear();
        self.out.text(&back)
    }

    /// Returns what leads to the first line and empties all below it (ECMA-48 §8.3.22 CUU, §8.3.39 ED).
    fn back(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r\x1b[J", self.drawn) }
    }
}

/// Returns the terminal's columns and rows.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}
