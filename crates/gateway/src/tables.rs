//! What happens when a table arrives: it is kept on disk, listened for, and put in force.

use std::sync::{Arc, Mutex, PoisonError};

use basalt_model::RouteTable;

use crate::copy::Copy;
use crate::plane::{Older, Plane};

/// Takes tables, one after the other.
#[derive(Debug)]
pub(crate) struct Tables {
    plane: Arc<Plane>,
    copy: Copy,
    /// Held while a table is taken, so that the disk never keeps an older one than is in force.
    one_at_a_time: Mutex<()>,
}

impl Tables {
    /// Returns what takes tables for `plane` and keeps them in `copy`.
    pub(crate) fn new(plane: Arc<Plane>, copy: Copy) -> Self {
        Self { plane, copy, one_at_a_time: Mutex::new(()) }
    }

    /// Puts the table that is kept on disk in force, if there is one.
    ///
    /// # Errors
    /// If the copy can't be read.
    pub(crate) fn restore(&self) -> std::io::Result<()> {
        if let Some(table) = self.copy.load()? {
            // The plane is new, so nothing can be newer.
            let _ = self.plane.set(Arc::new(table));
        }
        Ok(())
    }

    /// Keeps a table on disk and puts it in force. Waits for the disk.
    ///
    /// # Errors
    /// If a newer table is in force.
    pub(crate) fn take(&self, table: Arc<RouteTable>) -> Result<(), Older> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        self.plane.refuse_older(table.version)?;
        // A disk that fails must not keep requests from finding their instances.
        let problem =
            self.copy.store(&table).err().map(|error| {
                format!("can't keep a copy of the route table in `{}`: {error}", self.copy.path().display())
            });
        self.plane.set_problem("copy".to_owned(), problem);
        self.plane.set(table)
    }
}
