//! The journal's file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_model::{Digest, Event, Millis};
use basalt_seam::{Journal, JournalError, Row};
use rusqlite::{Connection, OpenFlags, params};

use crate::chain::{Link, START};

/// The version of the row format that is written. Rows of every version up to this one can be read.
const FORMAT: u32 = 1;

/// How long to wait for another process that reads or copies the file.
const BUSY: Duration = Duration::from_secs(10);

/// A journal in one SQLite file (WAL, `synchronous = FULL`), which any SQLite tool can open beside it.
#[derive(Debug)]
pub struct SqliteJournal {
    connection: Connection,
    path: PathBuf,
    last: (u64, Digest),
}

impl SqliteJournal {
    /// Opens the journal for appending, and makes it if there is none. Checks the whole chain.
    ///
    /// # Errors
    /// If the file can't be used, was written by a newer version, or its chain is broken.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        close_to_others(path).map_err(|error| JournalError {
            what: "the journal can't be opened".to_owned(),
            path: path.display().to_string(),
            source: Some(error.into()),
        })?;
        let connection = Connection::open(path).map_err(wrap(path, "the journal can't be opened"))?;
        let setup = "PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS journal (
                seq INTEGER PRIMARY KEY,
                at INTEGER NOT NULL,
                format INTEGER NOT NULL,
                kind TEXT NOT NULL,
                subject TEXT NOT NULL,
                data TEXT NOT NULL,
                hash TEXT NOT NULL
            ) STRICT;
            CREATE TRIGGER IF NOT EXISTS journal_no_update BEFORE UPDATE ON journal
                BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
            CREATE TRIGGER IF NOT EXISTS journal_no_delete BEFORE DELETE ON journal
                BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;";
        connection.busy_timeout(BUSY).map_err(wrap(path, "the journal can't be opened"))?;
        connection.execute_batch(setup).map_err(wrap(path, "the journal can't be set up"))?;
        let mut journal = Self { connection, path: path.to_owned(), last: (0, START) };
        journal.last = journal.check()?;
        Ok(journal)
    }

    /// Opens an existing journal for reading beside the process that appends.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn open_reader(path: &Path) -> Result<Self, JournalError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(wrap(path, "the journal can't be opened"))?;
        connection.busy_timeout(BUSY).map_err(wrap(path, "the journal can't be opened"))?;
        Ok(Self { connection, path: path.to_owned(), last: (0, START) })
    }

    /// Checks the whole chain and returns the last row's number and hash.
    ///
    /// # Errors
    /// At the first row that does not fit.
    pub fn check(&self) -> Result<(u64, Digest), JournalError> {
        /// Rows held in memory at once while checking.
        const PAGE: usize = 1000;
        let mut last = (0, START);
        loop {
            let rows = self.rows_after(last, PAGE)?;
            match rows.last() {
                Some(row) => last = (row.seq, row.hash),
                None => return Ok(last),
            }
        }
    }

    /// Returns rows after the given one, each checked against the one before.
    fn rows_after(&self, (mut seq, mut before): (u64, Digest), limit: usize) -> Result<Vec<Row>, JournalError> {
        let failed = wrap(&self.path, "the journal can't be read");
        let sql = "SELECT seq, at, format, data, hash FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql).map_err(&failed)?;
        let mut found = statement.query(params![seq as i64, limit as i64]).map_err(&failed)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(&failed)? {
            let (number, at): (i64, i64) = (row.get(0).map_err(&failed)?, row.get(1).map_err(&failed)?);
            let format: u32 = row.get(2).map_err(&failed)?;
            let (data, hash): (String, String) = (row.get(3).map_err(&failed)?, row.get(4).map_err(&failed)?);
            let at = Millis(at as u64);
            seq += 1;
            if format > FORMAT {
                return Err(self.broken(format!(
                    "row {seq} was written by a newer version of basalt (format {format}, this one reads up to {FORMAT})"
                )));
            }
            let expected = Link { before: &before, seq, at, format, data: &data }.hash();
            if number as u64 != seq || expected.to_string() != hash {
                return Err(self.broken(format!(
                    "row {seq} does not fit the chain: the journal was changed or damaged; restore it from a backup"
                )));
            }
            let event: Event = serde_json::from_str(&data).map_err(|error| JournalError {
                source: Some(error.into()),
                ..self.broken(format!("row {seq} can't be read"))
            })?;
            rows.push(Row { seq, at, event, hash: expected });
            before = expected;
        }
        Ok(rows)
    }

    /// Returns the stored hash of a row.
    fn hash_of(&self, seq: u64) -> Result<Digest, JournalError> {
        let text: String = self
            .connection
            .query_row("SELECT hash FROM journal WHERE seq = ?1", [seq as i64], |row| row.get(0))
            .map_err(wrap(&self.path, "the journal can't be read"))?;
        text.parse().map_err(|_| self.broken(format!("row {seq} has no hash")))
    }

    fn broken(&self, what: String) -> JournalError {
        JournalError { what, path: self.path.display().to_string(), source: None }
    }
}

impl Journal for SqliteJournal {
    fn append(&mut self, at: Millis, events: &[Event]) -> Result<Vec<Row>, JournalError> {
        let failed = wrap(&self.path, "the journal can't be written");
        let transaction = self.connection.transaction().map_err(&failed)?;
        let (mut seq, mut before) = self.last;
        let mut rows = Vec::with_capacity(events.len());
        {
            let sql =
                "INSERT INTO journal (seq, at, format, kind, subject, data, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let mut insert = transaction.prepare_cached(sql).map_err(&failed)?;
            for event in events {
                let data = serde_json::to_string(event).map_err(|error| JournalError {
                    what: format!("the event `{}` has no JSON form", event.kind()),
                    path: self.path.display().to_string(),
                    source: Some(error.into()),
                })?;
                seq += 1;
                let hash = Link { before: &before, seq, at, format: FORMAT, data: &data }.hash();
                insert
                    .execute(params![
                        seq as i64,
                        at.0 as i64,
                        FORMAT,
                        event.kind(),
                        event.subject(),
                        data,
                        hash.to_string()
                    ])
                    .map_err(&failed)?;
                rows.push(Row { seq, at, event: event.clone(), hash });
                before = hash;
            }
        }
        transaction.commit().map_err(&failed)?;
        self.last = (seq, before);
        Ok(rows)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<Row>, JournalError> {
        let before = match after {
            0 => START,
            seq => match self.rows_exist(seq)? {
                true => self.hash_of(seq)?,
                false => return Ok(Vec::new()),
            },
        };
        self.rows_after((after, before), limit)
    }
}

impl SqliteJournal {
    fn rows_exist(&self, seq: u64) -> Result<bool, JournalError> {
        self.connection
            .query_row("SELECT EXISTS (SELECT 1 FROM journal WHERE seq = ?1)", [seq as i64], |row| row.get(0))
            .map_err(wrap(&self.path, "the journal can't be read"))
    }
}

/// Makes the file its owner's alone: config files and environments are in it. What SQLite puts beside it takes its mode.
fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

/// Returns a function that wraps a SQLite error.
fn wrap(path: &Path, what: &str) -> impl Fn(rusqlite::Error) -> JournalError + use<> {
    let (path, what) = (path.display().to_string(), what.to_owned());
    move |error| JournalError { what: what.clone(), path: path.clone(), source: Some(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(stack: &str) -> Event {
        Event::StackApplied { stack: stack.parse().unwrap() }
    }

    #[test]
    fn rows_come_back_in_order_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut journal = SqliteJournal::open(&path).unwrap();
        let first = journal.append(Millis(5), &[applied("a"), applied("b")]).unwrap();
        drop(journal);
        let mut journal = SqliteJournal::open(&path).unwrap();
        let second = journal.append(Millis(6), &[applied("c")]).unwrap();
        let all: Vec<Row> = first.into_iter().chain(second).collect();
        assert_eq!(all.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(journal.read(0, 10).unwrap(), all);
        assert_eq!(journal.read(1, 1).unwrap(), all[1..2]);
        assert_eq!(journal.read(3, 10).unwrap(), []);
        assert_eq!(journal.read(99, 10).unwrap(), []);
        assert_eq!(SqliteJournal::open_reader(&path).unwrap().read(0, 10).unwrap(), all);
    }

    #[test]
    fn it_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let mut journal = SqliteJournal::open(&path).unwrap();
        journal.append(Millis(5), &[applied("a")]).unwrap();
        for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_changed_row_is_found() {
        let check = |tamper: &str, row: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal.db");
            SqliteJournal::open(&path).unwrap().append(Millis(5), &[applied("a"), applied("b"), applied("c")]).unwrap();
            let raw = Connection::open(&path).unwrap();
            raw.execute_batch("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete;").unwrap();
            raw.execute_batch(tamper).unwrap();
            let error = SqliteJournal::open(&path).unwrap_err();
            assert!(error.what.starts_with(row), "{tamper}: {}", error.what);
        };
        check("UPDATE journal SET data = replace(data, 'b', 'x') WHERE seq = 2", "row 2 does not fit");
        check("UPDATE journal SET at = 6 WHERE seq = 1", "row 1 does not fit");
        check("DELETE FROM journal WHERE seq = 2", "row 2 does not fit");
        check("UPDATE journal SET format = 99 WHERE seq = 3", "row 3 was written by a newer version");
    }

    #[test]
    fn rows_can_not_be_changed_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        SqliteJournal::open(&path).unwrap().append(Millis(5), &[applied("a")]).unwrap();
        let raw = Connection::open(&path).unwrap();
        assert!(raw.execute("UPDATE journal SET at = 1", []).is_err());
        assert!(raw.execute("DELETE FROM journal", []).is_err());
    }
}
