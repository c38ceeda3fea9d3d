//! How far baking and importing are: a bar on a terminal, a plain line elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use basalt_depot::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// Work on fewer bytes is over before anyone wonders, so that a plain line about it would only be noise: 16 MiB.
const WORTH_SAYING: u64 = 16 << 20;

/// Shows the work on one image.
pub struct ImageProgress {
    out: Output,
    name: String,
    bar: ProgressBar,
    said: Mutex<bool>,
}

impl ImageProgress {
    /// Starts to show the work on the image `name`.
    pub fn new(out: Output, name: &str) -> Self {
        let bar = if out.error_live { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100)); // ten pictures a second look like movement
        Self { out, name: name.to_owned(), bar, said: Mutex::new(false) }
    }
}

impl Progress for ImageProgress {
    fn report(&self, what: &str, done: u64, total: Option<u64>) {
        if !self.out.error_live {
            let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if !*said && total.unwrap_or(done) >= WORTH_SAYING {
                *said = true;
                self.out.note(&format!("image {}: {what}\n", self.name));
            }
            return;
        }
        let template = match total {
            Some(total) => {
                self.bar.set_length(total);
                "{spinner} image {prefix}: {msg} {bar:20} {bytes}/{total_bytes}"
            }
            None => "{spinner} image {prefix}: {msg} {bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_position(done);
    }

    fn step(&self, (number, total): (usize, usize), title: &str, cached: bool) {
        let place = if number == 0 { String::new() } else { format!("step {number} of {total}: ") };
        let cached = if cached { " (as before)" } else { "" };
        self.say(&format!("image {}: {place}{title}{cached}", self.name));
        self.bar.set_message(title.to_owned());
    }

    fn line(&self, text: &str) {
        self.say(&format!("  {text}"));
    }
}

impl ImageProgress {
    /// Says a line that stays, above the bar if there is one.
    fn say(&self, line: &str) {
        if self.out.error_live {
            self.bar.println(line);
        } else {
            self.out.note(&format!("{line}\n"));
        }
    }
}

impl basalt_registry::Progress for ImageProgress {
    fn report(&self, what: &str, done: u64, total: Option<u64>) {
        Progress::report(self, what, done, total);
    }
}

impl Drop for ImageProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
