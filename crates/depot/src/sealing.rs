//! Sealing files with fs-verity (kernel documentation, "fs-verity: read-only file-based authenticity protection"), where
//! kernel and file system have it: the kernel then refuses every write, and checks what is read against the file's digest.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use composefs::fsverity::{EnableVerityError, enable_verity_with_retry};

use crate::depot::Depot;
use crate::tree::ObjectId;

/// Tries it on a file of its own in `dir`.
pub(crate) fn is_possible(dir: &Path) -> io::Result<bool> {
    let (mut file, path) = tempfile::NamedTempFile::new_in(dir)?.into_parts();
    file.write_all(b"sealed")?;
    drop(file);
    // Kernels and file systems without it say so in many ways.
    Ok(enable_verity_with_retry::<ObjectId>(File::open(&path)?).is_ok())
}

/// Seals a file that nobody has open for writing.
pub(crate) fn seal(path: &Path) -> io::Result<()> {
    match enable_verity_with_retry::<ObjectId>(File::open(path)?) {
        Ok(()) | Err(EnableVerityError::AlreadyEnabled) => Ok(()),
        Err(EnableVerityError::Io(e)) => Err(e),
        Err(e) => Err(io::Error::other(e)),
    }
}

impl Depot {
    /// Returns what is so on this machine and worth knowing, in sentences.
    pub fn notes(&self) -> Vec<String> {
        match is_possible(&self.store().staging()) {
            Ok(true) => Vec::new(),
            Ok(false) | Err(_) => vec![
                "no fs-verity in this kernel or file system: images are verified when they are taken in and by \
                 `basalt image verify`, not at every read"
                    .to_owned(),
            ],
        }
    }
}
