//! Errors, printed once with their chain.

use super::{Paint, Style};
use crate::error::CliError;

/// Returns an error with its causes and how to mend it.
pub fn failure(error: &CliError, style: Style) -> String {
    let mut out = format!("{} {}\n", style.paint(Paint::Bad, "error:"), error.message);
    for cause in &error.causes {
        out.push_str(&format!("  {} {cause}\n", style.paint(Paint::Faint, "caused by:")));
    }
    if let Some(help) = &error.help {
        out.push_str(&format!("{} {}\n", style.paint(Paint::Good, "help:"), help.replace('\n', "\n      ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_and_help() {
        let io = std::io::Error::other("disk is full");
        let error = CliError::internal("the plan can't be saved to `a.plan`").because(&io).help("free some space");
        insta::assert_snapshot!(failure(&error, Style::PLAIN), @r"
        error: the plan can't be saved to `a.plan`
          caused by: disk is full
        help: free some space
        ");
    }
}
