//! Faults while they are being collected: like diagnostics, with places as numbers.

use crate::diagnostic::Severity;
use crate::source::At;

/// A fault or warning on its way to become a [`Diagnostic`](crate::Diagnostic).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) at: Option<At>,
    pub(crate) label: Option<String>,
    pub(crate) places: Vec<(At, String)>,
    pub(crate) help: Option<String>,
}

impl Fault {
    /// Returns an error at a place.
    pub(crate) fn at(at: At, message: impl Into<String>) -> Self {
        Self { at: Some(at), ..Self::nowhere(message) }
    }

    /// Returns an error that stands in no file.
    pub(crate) fn nowhere(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, message, at: None, label: None, places: Vec::new(), help: None }
    }

    /// Makes it a warning.
    pub(crate) fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Sets what is written beside the marked text.
    pub(crate) fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Sets how to mend it.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Sets how to mend it, if that is known.
    pub(crate) fn maybe_help(self, help: Option<String>) -> Self {
        Self { help: help.or(self.help), ..self }
    }

    /// Adds another place.
    pub(crate) fn place(mut self, at: At, label: impl Into<String>) -> Self {
        self.places.push((at, label.into()));
        self
    }
}

/// Why there is no value. Empty if that has been reported already, where the value was declared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

/// A value, or why there is none.
pub(crate) type Eval<T> = Result<T, Faults>;

/// Returns all values, or the faults of all that have none.
pub(crate) fn all<T>(results: impl IntoIterator<Item = Eval<T>>) -> Eval<Vec<T>> {
    let mut values = Vec::new();
    let mut failed: Option<Faults> = None;
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(faults) => failed.get_or_insert_default().0.extend(faults.0),
        }
    }
    failed.map_or(Ok(values), Err)
}

/// Returns both values, or the faults of both.
pub(crate) fn both<A, B>(a: Eval<A>, b: Eval<B>) -> Eval<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(mut a), Err(b)) => {
            a.0.extend(b.0);
            Err(a)
        }
        (Err(faults), Ok(_)) | (Ok(_), Err(faults)) => Err(faults),
    }
}
