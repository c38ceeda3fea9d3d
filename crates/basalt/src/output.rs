//! Where results go and what they look like.

use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::cli::{Form, Global, When};
use crate::error::{CliError, Result};
use crate::render::Style;

/// Where results go and what they look like.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Text or JSON.
    pub form: Form,
    /// Colour of what goes to standard output.
    pub style: Style,
    /// Colour of what goes to standard error.
    pub error_style: Style,
    /// Whether standard output is a terminal that can be redrawn.
    pub live: bool,
    /// Whether standard error is a terminal.
    pub error_live: bool,
}

impl Output {
    /// Returns what was asked for: colour on terminals, unless NO_COLOR (no-color.org) or a dumb terminal says otherwise.
    pub fn new(global: &Global) -> Self {
        let (live, error_live) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let style = |terminal: bool| Style {
            colour: match global.color {
                When::Always => true,
                When::Never => false,
                When::Auto => terminal && !refused && !dumb,
            },
        };
        let (style, error_style) = (style(live), style(error_live));
        Self { form: global.output, style, error_style, live: live && !dumb, error_live: error_live && !dumb }
    }

    /// Returns whether results are for programs.
    pub fn json(&self) -> bool {
        self.form == Form::Json
    }

    /// Writes a value as one JSON document.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn document<T: Serialize>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))?;
        self.text(&format!("{text}\n"))
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub fn row<T: Serialize>(&self, value: &T) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|error| unwritable(&error))?;
        self.text(&format!("{text}\n"))
    }

    /// Writes text to standard output. When nobody reads it any more (`| head`), the program ends well.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn text(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(unwritable(&error)),
        }
    }

    /// Writes text to standard error; that it can't be written is no reason to stop.
    pub fn note(&self, text: &str) {
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

fn unwritable(error: &dyn std::error::Error) -> CliError {
    CliError::internal("the result can't be written").because(error)
}
