//! How an instance ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Millis;

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with this status, 0 to 255.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// The kernel ended it because it used more memory than its limit.
    OutOfMemory,
    /// It could not be started; the text says why.
    CouldNotStart(String),
    /// It was a job, and was stopped because it had not ended in time.
    TimedOut {
        /// The time it had.
        after: Millis,
    },
    /// It is gone, and nobody saw how: the machine restarted, or the kernel is older than 6.15 and the keeper was killed.
    Unseen,
}

impl Exit {
    /// Returns whether the instance ended well (status 0).
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}{}", signal_name(*signal)),
            Self::OutOfMemory => f.write_str("out of memory: it used more than `limits.memory`"),
            Self::CouldNotStart(why) => write!(f, "could not start: {why}"),
            Self::TimedOut { after } => write!(f, "did not end within {after}"),
            Self::Unseen => f.write_str("ended while nobody was watching"),
        }
    }
}

/// Returns ` (NAME)` for the signals that people meet.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        15 => " (TERM)",
        31 => " (SYS)",
        _ => "",
    }
}
