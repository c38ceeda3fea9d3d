//! The copy of the route table on disk, with which a gateway comes back alone: a table, and on lines of their own what has changed
//! since. Once the changes are longer than the table, it is written anew.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use basalt_model::RouteTable;

use crate::table_change::TableChange;

/// The copy of the route table on disk.
#[derive(Debug)]
pub(crate) struct Copy {
    path: PathBuf,
    /// Where changes are added, once this has written a table.
    tail: Option<Tail>,
    /// Whether the last table could not be kept.
    behind: bool,
}

/// The end of a copy.
#[derive(Debug)]
struct Tail {
    file: File,
    /// How many bytes may still be added.
    room: usize,
}

impl Copy {
    /// Returns the copy in a data directory; makes its folder.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub(crate) fn in_data(data: &Path) -> io::Result<Self> {
        let folder = data.join("gateway");
        fs::create_dir_all(&folder)?;
        Ok(Self { path: folder.join("routes.json"), tail: None, behind: false })
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the table; `None` if none was ever kept.
    ///
    /// # Errors
    /// If it can't be read. A table is never half written, so this means a damaged disk.
    pub(crate) fn load(&self) -> io::Result<Option<RouteTable>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut table = RouteTable::default();
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
        serde_json::from_slice::<TableChange>(lines.next().unwrap_or_default())?.apply(&mut table);
        while let Some(line) = lines.next() {
            match serde_json::from_slice::<TableChange>(line) {
                Ok(change) if line.ends_with(b"\n") => change.apply(&mut table),
                Err(error) if lines.peek().is_some() => return Err(error.into()),
                // It was being written when the machine failed: nobody was told that it is in force.
                _ => {}
            }
        }
        Ok(Some(table))
    }

    /// Returns whether the last table could not be kept.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Replaces the table that was kept last by `new`, to which `change` leads; returns once that is on disk.
    ///
    /// # Errors
    /// If it can't be written and synced; then the old table is still there.
    pub(crate) fn store(&mut self, change: &TableChange, new: &RouteTable) -> io::Result<()> {
        // After an error there is no tail: what was written of it last is not known, and the whole table replaces it.
        if let Some(tail) = self.tail.take()
            && let Ok(tail) = tail.add(change, &self.path)
        {
            self.tail = tail;
        }
        if self.tail.is_none() { self.store_whole(new) } else { Ok(()) }
    }

    /// Replaces whatever was kept by a table; returns once that is on disk.
    ///
    /// # Errors
    /// As for [`Copy::store`].
    pub(crate) fn store_whole(&mut self, table: &RouteTable) -> io::Result<()> {
        let written = self.write(table);
        self.behind = written.is_err();
        self.tail = Some(written?);
        Ok(())
    }

    fn write(&self, table: &RouteTable) -> io::Result<Tail> {
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        let table = line(&TableChange::between(&RouteTable::default(), table))?;
        file.write_all(&table)?;
        file.sync_data()?;
        fs::rename(&temporary, &self.path)?;
        // The new name is on disk only once its folder is.
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        Ok(Tail { file, room: table.len() })
    }
}

impl Tail {
    /// Adds a change. Returns `None` if there is no room for it, or if this is no longer the file at `path`: a gateway that leaves
    /// may have replaced it.
    fn add(mut self, change: &TableChange, path: &Path) -> io::Result<Option<Self>> {
        let line = line(change)?;
        let (here, there) = (self.file.metadata()?, fs::metadata(path)?);
        let Some(room) = self.room.checked_sub(line.len()) else { return Ok(None) };
        if (here.dev(), here.ino()) != (there.dev(), there.ino()) {
            return Ok(None);
        }
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        Ok(Some(Self { room, ..self }))
    }
}

fn line(change: &TableChange) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(change)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use basalt_model::{Name, Route, ServiceRoutes};

    use super::*;

    /// A table with a few services, of which one is another with each version.
    fn table(version: u64) -> RouteTable {
        let one = |n: u64| {
            let path = format!("/{}", if n == version % 5 { version } else { 0 });
            let routes = vec![Route::new(None, &path, "http".parse().unwrap())];
            let name: Name = format!("s-{n}").parse().unwrap();
            (name, Arc::new(ServiceRoutes { routes, ..ServiceRoutes::default() }))
        };
        RouteTable { version, services: (0..4).map(one).collect() }
    }

    fn store(copy: &mut Copy, old: &RouteTable, new: &RouteTable) -> io::Result<()> {
        copy.store(&TableChange::between(old, new), new)
    }

    #[test]
    fn a_table_comes_back_and_damage_is_told() {
        let data = tempfile::tempdir().unwrap();
        let copy = || Copy::in_data(data.path()).unwrap();
        assert_eq!(copy().load().unwrap(), None);
        let mut writing = copy();
        let (mut old, mut longest) = (RouteTable::default(), 0);
        for version in 1..100 {
            // Another process goes on with what was kept.
            if version % 30 == 0 {
                writing = copy();
            }
            store(&mut writing, &old, &table(version)).unwrap();
            old = table(version);
            assert_eq!(copy().load().unwrap().as_ref(), Some(&old));
            longest = longest.max(fs::read(writing.path()).unwrap().len());
        }
        let whole = serde_json::to_vec(&table(99)).unwrap().len();
        assert!(whole < longest && longest <= 2 * whole + 8, "{longest} of {whole}");

        fs::write(writing.path(), "").unwrap();
        assert!(copy().load().is_err());
        fs::write(writing.path(), "{\"version\":").unwrap();
        assert!(copy().load().is_err());
        let first = "{\"version\":1,\"services\":{}}\n";
        fs::write(writing.path(), format!("{first}{{\"vers\n{first}")).unwrap();
        assert!(copy().load().is_err());
    }

    #[test]
    fn who_finds_the_copy_replaced_writes_it_whole() {
        let data = tempfile::tempdir().unwrap();
        let [mut ours, mut theirs] = [(); 2].map(|()| Copy::in_data(data.path()).unwrap());
        store(&mut ours, &RouteTable::default(), &table(1)).unwrap();
        // A gateway that leaves is late.
        store(&mut theirs, &RouteTable::default(), &table(0)).unwrap();
        store(&mut ours, &table(1), &table(2)).unwrap();
        assert_eq!(ours.load().unwrap(), Some(table(2)));
    }

    #[test]
    fn a_change_that_was_not_written_whole_is_none() {
        let data = tempfile::tempdir().unwrap();
        let mut copy = Copy::in_data(data.path()).unwrap();
        store(&mut copy, &RouteTable::default(), &table(1)).unwrap();
        let first = fs::read(copy.path()).unwrap();
        store(&mut copy, &table(1), &table(2)).unwrap();
        let both = fs::read(copy.path()).unwrap();
        assert!(both.starts_with(&first));
        for end in first.len()..both.len() {
            fs::write(copy.path(), &both[..end]).unwrap();
            assert_eq!(copy.load().unwrap(), Some(table(1)), "{end}");
            // Its end may have reached the disk before its middle.
            let mut holed = both.clone();
            holed[end] = 0;
            fs::write(copy.path(), &holed).unwrap();
            assert_eq!(copy.load().unwrap(), Some(table(1)), "{end}");
        }
        // A table of before there were lines.
        fs::write(copy.path(), first.trim_ascii_end()).unwrap();
        assert_eq!(copy.load().unwrap(), Some(table(1)));
    }
}
