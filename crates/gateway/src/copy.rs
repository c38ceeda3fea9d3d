//! The copy of the route table on disk, with which a gateway comes back alone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use basalt_model::RouteTable;

/// The copy of the route table on disk.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    path: PathBuf,
}

impl Copy {
    /// Returns the copy in a data directory; makes its folder.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub(crate) fn in_data(data: &Path) -> io::Result<Self> {
        let folder = data.join("gateway");
        fs::create_dir_all(&folder)?;
        Ok(Self { path: folder.join("routes.json") })
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the table; `None` if none was ever kept.
    ///
    /// # Errors
    /// If it can't be read. A copy is never half written, so this means a damaged disk.
    pub(crate) fn load(&self) -> io::Result<Option<RouteTable>> {
        match fs::read(&self.path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the table; returns once it is on disk.
    ///
    /// # Errors
    /// If it can't be written and synced; then the old copy is still there.
    pub(crate) fn store(&self, table: &RouteTable) -> io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(table)?)?;
        file.sync_data()?;
        fs::rename(&temporary, &self.path)?;
        // The new name is on disk only once its folder is.
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_and_damage_is_told() {
        let data = tempfile::tempdir().unwrap();
        let copy = Copy::in_data(data.path()).unwrap();
        assert_eq!(copy.load().unwrap(), None);
        for version in [1, 2] {
            let table = RouteTable { version, ..RouteTable::default() };
            copy.store(&table).unwrap();
            assert_eq!(copy.load().unwrap(), Some(table));
        }
        fs::write(copy.path(), "{\"version\":").unwrap();
        assert!(copy.load().is_err());
    }
}
