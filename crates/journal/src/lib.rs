//! The journal on SQLite: append-only, hash-chained, synced before anything is done.
//!
//! It knows events only as JSON with a format version, and nothing of who decides them. Main type: [`SqliteJournal`].

#![forbid(unsafe_code)]

mod chain;
mod sqlite;

pub use sqlite::SqliteJournal;
