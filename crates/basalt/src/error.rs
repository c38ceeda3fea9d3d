//! How a verb ends: with an outcome, or with an error that says what happened, why, and how to mend it.

use std::error::Error;
use std::process::ExitCode;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// A plan has changes (`plan --detailed-exitcode`).
    ChangesPresent,
    /// A rollout was rolled back or aborted, or a job failed; what is to be said about it has been said.
    RolledBack,
    /// The stack is invalid; its faults have been shown.
    Invalid,
    /// A person stopped following (Ctrl-C); what was begun goes on.
    Interrupted,
}

impl Outcome {
    /// Returns the exit code.
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::ChangesPresent => 2,
            Self::RolledBack => 3,
            Self::Invalid => 4,
            // 128 + SIGINT, as shells count.
            Self::Interrupted => 130,
        })
    }
}

/// What kind of error, which decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something failed: 1.
    Internal,
    /// What was asked for can't be: 4.
    Invalid,
    /// The controller can't be reached: 5.
    Unreachable,
}

/// Why a verb failed. It is printed once, by `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What kind.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl CliError {
    /// Returns an error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), help: None }
    }

    /// Returns an error for something that failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Returns an error for something that can't be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Returns an error for a controller that can't be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    /// Returns an error that says what `error` and its sources say.
    pub fn of(kind: Kind, error: &dyn Error) -> Self {
        let mut this = Self::new(kind, error.to_string());
        if let Some(source) = error.source() {
            this.push(source);
        }
        this
    }

    /// Returns the error with `error` and its sources as the reason.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.push(error);
        self
    }

    /// Returns the error with a line on how to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Internal => 1,
            Kind::Invalid => 4,
            Kind::Unreachable => 5,
        })
    }

    /// Takes over an error with its sources. A cause that says what the one before it ends with is left out.
    fn push(&mut self, error: &dyn Error) {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            let before = self.causes.last().unwrap_or(&self.message);
            if !before.ends_with(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
    }
}

/// What a verb returns.
pub type Result<T, E = CliError> = std::result::Result<T, E>;
