//! What happens when a table arrives: it is kept on disk, listened for, and put in force.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use basalt_model::RouteTable;

use crate::copy::Copy;
use crate::listeners::{self, Listeners};
use crate::plane::{Older, Plane};
use crate::table_change::TableChange;

/// The name of problems with the copy.
const COPY: &str = "copy";

/// Takes tables, one after the other.
#[derive(Debug)]
pub(crate) struct Tables {
    plane: Arc<Plane>,
    listeners: Arc<Listeners>,
    /// Held while a table is taken: one is put in force at a time, and the disk never keeps an older one than was in force before.
    /// `None` once a successor keeps it.
    copy: Mutex<Option<Copy>>,
}

impl Tables {
    /// Returns what takes tables for `plane` and keeps them in `copy`.
    pub(crate) fn new(plane: Arc<Plane>, listeners: Arc<Listeners>, copy: Copy) -> Self {
        Self { plane, listeners, copy: Mutex::new(Some(copy)) }
    }

    /// Puts the table that is kept on disk in force. A copy that can't be read is told as a problem: the controller, too, has the table.
    pub(crate) fn restore(&self) {
        let copy = self.copy();
        let Some(copy) = &*copy else { return };
        let table = copy.load().unwrap_or_else(|error| {
            let path = copy.path().display();
            let problem = format!("can't read the copy of the route table `{path}`: {error}");
            tracing::error!("{problem}");
            self.plane.set_problem(COPY.to_owned(), Some(problem));
            None
        });
        let table = Arc::new(table.unwrap_or_default());
        let change = TableChange::between(&self.plane.table(), &table);
        self.put_in_force(table, change);
    }

    /// Keeps a table on disk and puts it in force. Waits for the disk.
    ///
    /// # Errors
    /// If a newer table is in force.
    pub(crate) fn take(&self, table: Arc<RouteTable>) -> Result<(), Older> {
        let mut copy = self.copy();
        self.plane.refuse_older(table.version)?;
        let old = self.plane.table();
        let change = TableChange::between(&old, &table);
        if change.changes_nothing(&old) {
            return Ok(());
        }
        // A disk that fails must not keep requests from finding their instances.
        if let Some(copy) = &mut *copy {
            let stored = copy.store(&change, &table);
            self.tell(copy.path(), stored);
        }
        self.put_in_force(table, change);
        Ok(())
    }

    /// Tries again what was not possible: to keep the table, and to listen. Has the keeper hold all sockets: it may have been
    /// restarted.
    pub(crate) fn tend(&self) {
        let mut copy = self.copy();
        if let Some(copy) = copy.as_mut().filter(|copy| copy.is_behind()) {
            let stored = copy.store_whole(&self.plane.table());
            self.tell(copy.path(), stored);
        }
        let wanted = listeners::wanted(&self.plane.table());
        self.listeners.prepare(&wanted);
        self.listeners.accept(&wanted);
        self.listeners.keep_all();
    }

    fn tell(&self, path: &Path, stored: io::Result<()>) {
        let problem =
            stored.err().map(|error| format!("can't keep a copy of the route table in `{}`: {error}", path.display()));
        self.plane.set_problem(COPY.to_owned(), problem);
    }

    fn put_in_force(&self, table: Arc<RouteTable>, change: TableChange) {
        let wanted = listeners::wanted(&table);
        // Sockets listen, and hosts have certificates, before the table is in force, so that who is told of it can connect. Connections
        // are accepted after it, so that each finds its service.
        self.listeners.prepare(&wanted);
        let certificates = self.plane.edge.certificates.get();
        let prepared = certificates.map(|certificates| certificates.prepare(&table));
        self.plane.set(table, change);
        drop(prepared);
        self.listeners.accept(&wanted);
    }

    /// Keeps none on disk from now on: a successor does, and says here what is in force.
    pub(crate) fn hand_over(&self) {
        *self.copy() = None;
    }

    fn copy(&self) -> MutexGuard<'_, Option<Copy>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
