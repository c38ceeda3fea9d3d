//! Trees as EROFS files, in the format of composefs.

use std::fs;

use composefs::erofs::format::FormatVersion;
use composefs::erofs::reader::erofs_to_filesystem;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::{FsVerityHashValue, compute_verity};

use crate::error::{Error, Result, io};
use crate::store::Store;
use crate::tree::{ObjectId, Tree};

/// The format without a table of whiteouts in the root: objects lie in a data-only layer of the overlay, so there is
/// nothing to hide, and a root may have directories named `00` to `ff` of its own.
const FORMAT: FormatVersion = FormatVersion::V2;

/// Writes a tree as an EROFS file and returns its id. The same tree gives the same bytes.
pub(crate) fn write(store: &Store, mut tree: Tree) -> Result<String> {
    tree.compact();
    let dir = store.dir().join("erofs");
    let tree = ValidatedFileSystem::new(tree).map_err(|e| Error::Damaged { path: dir, why: format!("{e:#}") })?;
    let bytes = mkfs_erofs_versioned(&tree, FORMAT);
    let id = compute_verity::<ObjectId>(&bytes).to_hex();
    let path = store.erofs(&id);
    if !path.is_file() {
        store.write(&path, &bytes)?;
    }
    Ok(id)
}

/// Reads a tree from an EROFS file.
pub(crate) fn read(store: &Store, id: &str) -> Result<Tree> {
    let path = store.erofs(id);
    let bytes = fs::read(&path).map_err(io("read", &path))?;
    erofs_to_filesystem(&bytes).map_err(|e| Error::Damaged { path, why: format!("{e:#}") })
}

/// Returns a tree's bytes, having read them again.
#[cfg(fuzzing)]
pub(crate) fn round_trip(mut tree: Tree) -> std::result::Result<Vec<u8>, String> {
    tree.compact();
    let tree = ValidatedFileSystem::new(tree).map_err(|e| format!("{e:#}"))?;
    let bytes = mkfs_erofs_versioned(&tree, FORMAT);
    let again = erofs_to_filesystem::<crate::tree::ObjectId>(&bytes).map_err(|e| format!("{e:#}"))?;
    let again = ValidatedFileSystem::new(again).map_err(|e| format!("{e:#}"))?;
    let second = mkfs_erofs_versioned(&again, FORMAT);
    if second == bytes { Ok(bytes.into_vec()) } else { Err("read and written again, it is another tree".into()) }
}
