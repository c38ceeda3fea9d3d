//! Telling how far a transfer is.

/// Is told how far a pull or push is.
pub trait Progress: Sync {
    /// Takes note that of the work `what`, `done` of `total` bytes are done.
    fn report(&self, what: &str, done: u64, total: Option<u64>);
}

impl<F: Fn(&str, u64, Option<u64>) + Sync> Progress for F {
    fn report(&self, what: &str, done: u64, total: Option<u64>) {
        self(what, done, total);
    }
}
