//! The append-only record.

use basalt_model::{Digest, Event, Millis};

/// Keeps events in order. Rows are chained: the hash of each covers the hash before it.
pub trait Journal: Send {
    /// Appends events in one transaction and returns once they are on disk.
    ///
    /// # Errors
    /// If they could not be written and synced; then none of them is there.
    fn append(&mut self, at: Millis, events: &[Event]) -> Result<Vec<Row>, JournalError>;

    /// Returns up to `limit` rows with a sequence number above `after`, in order.
    ///
    /// # Errors
    /// If a row can't be read, or its hash does not fit its content and the row before it.
    fn read(&self, after: u64, limit: usize) -> Result<Vec<Row>, JournalError>;
}

/// One row of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Counted from 1, without gaps.
    pub seq: u64,
    /// When it was decided or seen.
    pub at: Millis,
    /// What.
    pub event: Event,
    /// SHA-256 over the hash of the row before it and this row's own content.
    pub hash: Digest,
}

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} ({path})")]
pub struct JournalError {
    /// What happened.
    pub what: String,
    /// The journal's file.
    pub path: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
