//! What happens when a table arrives: it is kept on disk, listened for, and put in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use basalt_model::RouteTable;

use crate::copy::Copy;
use crate::listeners::Listeners;
use crate::plane::{Older, Plane};

/// The name of problems with the copy.
const COPY: &str = "copy";

/// Takes tables, one after the other.
#[derive(Debug)]
pub(crate) struct Tables {
    plane: Arc<Plane>,
    listeners: Arc<Listeners>,
    /// Held while a table is taken, so that the disk never keeps an older one than is in force.
    one_at_a_time: Mutex<Turn>,
}

/// What who takes a table holds.
#[derive(Debug)]
struct Turn {
    /// The table in force, which is the one that was kept last.
    table: Arc<RouteTable>,
    copy: Copy,
}

impl Tables {
    /// Returns what takes tables for `plane` and keeps them in `copy`.
    pub(crate) fn new(plane: Arc<Plane>, listeners: Arc<Listeners>, copy: Copy) -> Self {
        Self { plane, listeners, one_at_a_time: Mutex::new(Turn { table: Arc::default(), copy }) }
    }

    /// Puts the table that is kept on disk in force. A copy that can't be read is told as a problem: the controller, too, has the table.
    pub(crate) fn restore(&self) {
        let mut turn = self.turn();
        let table = turn.copy.load().unwrap_or_else(|error| {
            let path = turn.copy.path().display();
            let problem = format!("can't read the copy of the route table `{path}`: {error}");
            tracing::error!("{problem}");
            self.plane.set_problem(COPY.to_owned(), Some(problem));
            None
        });
        // The plane is new, so nothing can be newer.
        let _ = self.put_in_force(Arc::new(table.unwrap_or_default()), &mut turn);
    }

    /// Keeps a table on disk and puts it in force. Waits for the disk.
    ///
    /// # Errors
    /// If a newer table is in force.
    pub(crate) fn take(&self, table: Arc<RouteTable>) -> Result<(), Older> {
        let mut turn = self.turn();
        self.plane.refuse_older(table.version)?;
        let Turn { table: old, copy } = &mut *turn;
        if *old != table {
            // A disk that fails must not keep requests from finding their instances.
            let problem = copy
                .store(old, &table)
                .err()
                .map(|error| format!("can't keep a copy of the route table in `{}`: {error}", copy.path().display()));
            self.plane.set_problem(COPY.to_owned(), problem);
        }
        self.put_in_force(table, &mut turn)
    }

    /// Tries again to listen where that was not possible, and has the keeper hold all sockets: it may have been restarted.
    pub(crate) fn tend(&self) {
        let turn = self.turn();
        self.listeners.prepare(&turn.table);
        self.listeners.accept(&turn.table);
        self.listeners.keep_all();
    }

    fn put_in_force(&self, table: Arc<RouteTable>, turn: &mut Turn) -> Result<(), Older> {
        // Sockets listen before the table is in force, so that who is told of it can connect, and are accepted from after it, so
        // that each connection finds its service.
        self.listeners.prepare(&table);
        self.plane.set(table.clone())?;
        self.listeners.accept(&table);
        turn.table = table;
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
