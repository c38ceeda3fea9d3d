//! Access to the stack's own files, the one effect of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// What the loader needs of a file system.
pub trait Files {
    /// Returns the bytes of a file.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns the paths of what is in a folder, in any order.
    ///
    /// # Errors
    /// Whatever keeps it from being listed.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// Returns whether there is a folder at this path.
    fn is_folder(&self, path: &Path) -> bool;

    /// Returns whether there is anything at this path, a dangling link included.
    fn exists(&self, path: &Path) -> bool;

    /// Returns the path made absolute, against the working directory.
    ///
    /// # Errors
    /// The path is empty, or there is no working directory.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf>;

    /// Returns the home directory of the user, if it is known.
    fn home(&self) -> Option<PathBuf> {
        None
    }
}

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Reading a device or a pipe might never end.
        if std::fs::metadata(path)?.is_file() {
            std::fs::read(path)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
    }
}
