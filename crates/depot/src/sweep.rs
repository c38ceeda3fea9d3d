//! Removing what no kept image needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use basalt_model::Digest;

use crate::depot::Depot;
use crate::error::{Result, io};
use crate::record::{DerivedRecord, ImageRecord};
use crate::store::{Store, sync_dir};
use crate::verify::objects_of;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Images.
    pub images: usize,
    /// Files: blobs, trees and objects.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
}

impl Depot {
    /// Removes all images but those in `keep`, and everything that only they needed. Waits until nobody works on the
    /// depot. Killed midway, it leaves every kept image whole, and the next sweep removes the rest.
    ///
    /// `keep` must name the images of all running instances: what the kernel has mounted is not asked.
    ///
    /// # Errors
    /// If a kept image can't be read (then no file is removed), or a file can't be removed.
    pub fn gc(&self, keep: &BTreeSet<Digest>) -> Result<Freed> {
        let store = self.store();
        let _alone = store.lock_alone()?;
        store.clear_staging()?;
        let needed = needed(store, keep)?;
        let mut freed = Freed::default();
        // Records first: once an image is not there any more, its files may go.
        for digest in store.keys("images")? {
            if !keep.contains(&digest) {
                remove(&store.record("images", &digest))?;
                freed.images += 1;
            }
        }
        for key in store.keys("derived")? {
            let derived = store.read_record::<DerivedRecord>("derived", &key).ok().flatten();
            if !derived.is_some_and(|derived| keep.contains(&derived.image)) {
                remove(&store.record("derived", &key))?;
            }
        }
        for key in store.keys("bakes")? {
            let image = store.read_record::<Digest>("bakes", &key).ok().flatten();
            if !image.is_some_and(|image| keep.contains(&image)) {
                remove(&store.record("bakes", &key))?;
            }
        }
        for dir in ["images", "derived", "bakes"] {
            sync_dir(&store.dir().join(dir))?;
        }
        for dir in ["blobs/sha256", "erofs"] {
            sweep(&store.dir().join(dir), &needed, &mut freed)?;
        }
        for dir in list(&store.objects())? {
            sweep(&dir, &needed, &mut freed)?;
        }
        Ok(freed)
    }
}

/// Returns every file that the kept images need.
fn needed(store: &Store, keep: &BTreeSet<Digest>) -> Result<BTreeSet<PathBuf>> {
    let mut needed = BTreeSet::new();
    let mut trees = BTreeSet::new();
    for digest in keep {
        if let Some(record) = store.read_record::<ImageRecord>("images", digest)? {
            let blobs = [digest, &record.config].into_iter().chain(&record.layers);
            needed.extend(blobs.map(|blob| store.blob(blob)));
            trees.insert(record.erofs);
        }
    }
    for key in store.keys("derived")? {
        if let Some(derived) = store.read_record::<DerivedRecord>("derived", &key)?
            && keep.contains(&derived.image)
        {
            trees.insert(derived.erofs);
        }
    }
    for erofs in trees {
        // Trees with mount points point to the same objects as their image's; reading them all is the safe way.
        needed.extend(objects_of(store, &erofs)?);
        needed.insert(store.erofs(&erofs));
    }
    Ok(needed)
}

fn sweep(dir: &Path, needed: &BTreeSet<PathBuf>, freed: &mut Freed) -> Result<()> {
    for path in list(dir)? {
        if !needed.contains(&path) {
            freed.bytes += fs::metadata(&path).map_err(io("read", &path))?.len();
            freed.files += 1;
            remove(&path)?;
        }
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(io("list", dir))?;
    entries.map(|entry| entry.map(|e| e.path()).map_err(io("list", dir))).collect()
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(io("remove", path))
}
