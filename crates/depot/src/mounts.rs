//! Mount points: what must be in a root before it is mounted read-only.

use crate::error::{Error, Result};
use crate::tree::{self, Found, Tree};

/// What any runtime mounts on.
const DIRS: [&str; 4] = ["/proc", "/sys", "/dev", "/etc"];

/// What a runtime binds its own files over.
const FILES: [&str; 3] = ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"];

/// Puts in what every root needs. A symbolic link at `/proc`, `/sys`, `/dev` or one of the files gives way: nobody would
/// ever see it, and a mount must not follow it to another place.
pub(crate) fn add_standard(tree: &mut Tree) -> Result<()> {
    for path in ["/proc", "/sys", "/dev"] {
        unlink(tree, path)?;
    }
    for path in DIRS {
        add_dir(tree, path)?;
    }
    for path in FILES {
        unlink(tree, path)?;
        add_file(tree, path)?;
    }
    Ok(())
}

/// Puts in a directory, with what is missing above it; one that is there is kept.
pub(crate) fn add_dir(tree: &mut Tree, path: &str) -> Result<()> {
    let at = locate(tree, path, true)?;
    if matches!(tree::look(tree, &at), Some(Found::File)) {
        return Err(fail(path, "the image has a file there; mount something else there, or elsewhere".into()));
    }
    tree::make_dirs(tree, &at, |_| {}).map(drop).map_err(|why| fail(path, why))
}

/// Puts in an empty file, with what is missing above it; one that is there is kept.
pub(crate) fn add_file(tree: &mut Tree, path: &str) -> Result<()> {
    let at = locate(tree, path, true)?;
    match tree::look(tree, &at) {
        Some(Found::Directory) => Err(fail(path, "the image has a directory there; give the path of a file".into())),
        Some(_) => Ok(()),
        None => {
            tree::make_dirs(tree, &at[..at.len().saturating_sub(1)], |_| {}).map_err(|why| fail(path, why))?;
            tree::put_empty_file(tree, &at).map_err(|why| fail(path, why))
        }
    }
}

/// Removes a symbolic link; all else is kept.
fn unlink(tree: &mut Tree, path: &str) -> Result<()> {
    let at = locate(tree, path, false)?;
    let Some((name, above)) = at.split_last() else { return Ok(()) };
    if !matches!(tree::look(tree, &at), Some(Found::Link(_))) {
        return Ok(());
    }
    if let Some(dir) = tree::parent_of(tree, above).map_err(|why| fail(path, why))? {
        dir.remove(name);
    }
    Ok(())
}

fn locate(tree: &Tree, path: &str, follow_last: bool) -> Result<tree::Parts> {
    if !path.starts_with('/') {
        return Err(fail(path, "it is not an absolute path".into()));
    }
    tree::resolve(tree, path.as_bytes(), follow_last).map_err(|why| fail(path, why))
}

fn fail(path: &str, why: String) -> Error {
    Error::MountPoint { path: path.to_owned(), why }
}
