//! Writing and reading files whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};

use crate::error::{Result, io};

/// Writes a file (0600) whole or not at all, never over another, and returns once it is on disk.
///
/// Whoever calls holds the store's lock, so the name of the unfinished file needs no chance in it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&unfinished, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.map_err(|e| io("create", &unfinished)(e.into()))?);
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", &unfinished))?;
    let renamed = rustix::fs::renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE);
    if let Err(e) = renamed {
        let _ = rustix::fs::unlinkat(CWD, &unfinished, AtFlags::empty());
        return Err(io("write", path)(e.into()));
    }
    sync_dir(path.parent().unwrap_or(path))
}

/// Opens a file for reading without following a link.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    Ok(file.into())
}

/// Reads at most `most` bytes of a file.
pub(crate) fn read(file: &File, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a directory's entries on disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io("sync", dir))
}
