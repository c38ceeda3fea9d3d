//! The chain of hashes: who changes, drops or swaps a row must rewrite every row after it.

use basalt_model::{Digest, Millis};
use sha2::{Digest as _, Sha256};

/// The hash before the first row.
pub(crate) const START: Digest = Digest::from_bytes([0; 32]);

/// What one row's hash covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link<'a> {
    /// The hash of the row before.
    pub before: &'a Digest,
    /// The row's sequence number.
    pub seq: u64,
    /// The row's time.
    pub at: Millis,
    /// The version of the row's format.
    pub format: u32,
    /// The event as stored.
    pub data: &'a str,
}

impl Link<'_> {
    /// Returns SHA-256 over the hash before, then number, time and format as big-endian integers, then the data.
    /// All parts but the last have a fixed length, so no two rows have the same input.
    pub fn hash(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.before.to_hex());
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.0.to_be_bytes());
        hash.update(self.format.to_be_bytes());
        hash.update(self.data);
        Digest::from_bytes(hash.finalize().into())
    }
}
