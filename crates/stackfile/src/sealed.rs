//! Sensitive values on their way into the store of secrets.

use std::fmt;

use basalt_model::Name;
use sha2::{Digest as _, Sha256};

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(String);

impl Sealed {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the store of secrets alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(sensitive)")
    }
}

/// Returns the name of the secret that stands for a sensitive value: `web-env-db-password-` and a digest of where the
/// value belongs, so that no two are the same.
pub(crate) fn name(owner: &Name, place: &str, key: &str) -> Name {
    /// Characters before the digest: with its eight digits and a hyphen, a name of the longest length.
    const READABLE: usize = 31;
    let digest = hex::encode(Sha256::digest(format!("{owner}\0{place}\0{key}")));
    let text = format!("{owner}-{place}-{key}").to_ascii_lowercase();
    let mut readable = String::new();
    for c in text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }) {
        if readable.len() < READABLE && !(c == '-' && readable.ends_with('-')) {
            readable.push(c);
        }
    }
    // Names begin with a letter or digit, so nothing but lowercase letters, digits and inner hyphens is left.
    format!("{}-{}", readable.trim_matches('-'), &digest[..8]).parse().unwrap_or_else(|_| owner.clone())
}
