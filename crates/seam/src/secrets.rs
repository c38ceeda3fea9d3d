//! The store of secrets.

use std::fmt;

use basalt_model::Name;
use serde::{Deserialize, Serialize};

/// Keeps secrets by name and version. A version never changes.
pub trait Secrets: Send + Sync {
    /// Returns the newest version of a secret, or `None` if there is no such secret.
    ///
    /// # Errors
    /// If the store can't be read.
    fn latest(&self, name: &Name) -> Result<Option<u64>, SecretsError>;

    /// Returns a version of a secret in clear.
    ///
    /// # Errors
    /// If there is no such version or it can't be decrypted.
    fn reveal(&self, name: &Name, version: u64) -> Result<SecretBytes, SecretsError>;
}

/// A secret in clear. It shows itself only to who asks for [`SecretBytes::expose`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Wraps bytes that must not be shown.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes hidden)", self.0.len())
    }
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
#[error("secret `{name}`: {what}")]
pub struct SecretsError {
    /// The secret.
    pub name: Name,
    /// What happened.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
