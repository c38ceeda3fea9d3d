//! Where things are in a data directory.

use std::path::{Path, PathBuf};

use crate::error::{CliError, Result};

/// A data directory. Its path is absolute, since other processes are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data(PathBuf);

impl Data {
    /// Returns the data directory that was asked for, or the default one: `/var/lib/basalt` for root,
    /// `~/.local/share/basalt` for others (XDG base directories).
    ///
    /// # Errors
    /// If there is no default, or the path can't be made absolute.
    pub fn find(asked: Option<&Path>) -> Result<Self> {
        let dir = match asked {
            Some(dir) => dir.to_owned(),
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/basalt"),
            None => Self::of_user()?,
        };
        let absolute = std::path::absolute(&dir).map_err(|error| {
            CliError::invalid(format!("`{}` is no path of a data directory", dir.display())).because(&error)
        })?;
        Ok(Self(absolute))
    }

    fn of_user() -> Result<PathBuf> {
        let from = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        from("XDG_DATA_HOME")
            .or_else(|| from("HOME").map(|home| home.join(".local/share")))
            .map(|dir| dir.join("basalt"))
            .ok_or_else(|| CliError::invalid("there is no default data directory").help("name one with --data DIR"))
    }

    /// Returns the directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Returns the directory of images.
    pub fn depot(&self) -> PathBuf {
        self.0.join("depot")
    }

    /// Returns the directory of what is being pulled.
    pub fn pulls(&self) -> PathBuf {
        self.0.join("pulls")
    }

    /// Returns the directory of secrets.
    pub fn secrets(&self) -> PathBuf {
        self.0.join("secrets")
    }

    /// Returns the journal's file.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.db")
    }

    /// Returns the directory of logs, those of the roles included.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Returns the file that remembers what the gateway was told.
    pub fn edge(&self) -> PathBuf {
        self.0.join("gateway.json")
    }

    /// Returns the file that version 0.1 remembers where the gateway was told to listen in.
    pub fn http(&self) -> PathBuf {
        self.0.join("http")
    }

    /// Makes the directory, closed to others: the journal holds config files.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn make(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(|error| {
            CliError::internal(format!("the data directory `{}` can't be made", self.0.display())).because(&error)
        })
    }

    /// Returns a socket of a role: `controller`, `keeper` or `gateway`.
    pub fn socket(&self, role: &str) -> PathBuf {
        self.0.join("run").join(format!("{role}.sock"))
    }
}
