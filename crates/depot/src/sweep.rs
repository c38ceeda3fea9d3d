//! Removing what no kept image needs.
//!
//! Sweeping must not keep an instance from being started, so the lock is never held for long: what is needed is found
//! out beside everyone else, and files are removed in small batches, each preceded by a look for images that are new.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use basalt_model::Digest;

use crate::depot::Depot;
use crate::error::{Result, io};
use crate::record::{DerivedRecord, ImageRecord};
use crate::store::{Lock, Store, sync_dir};
use crate::verify::objects_of;

/// How many files are removed under one lock: about ten milliseconds of work.
const BATCH: usize = 256;

/// Which images stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// These.
    Only(BTreeSet<Digest>),
    /// These, and all that were baked, imported, started or asked for since then: between an image's being made and the
    /// release that needs it being recorded, nothing else says that it is needed.
    Recent {
        /// What releases need.
        images: BTreeSet<Digest>,
        /// Since when.
        since: SystemTime,
    },
    /// All but this one.
    AllBut(Digest),
}

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
    /// Removes all images but those that stay, and everything that only they needed. Waits for who works on the depot.
    /// Killed midway, it leaves every kept image whole, and the next sweep removes the rest.
    ///
    /// What is kept must name the images of all running instances: what the kernel has mounted is not asked.
    ///
    /// # Errors
    /// If a kept image can't be read (then no file is removed), or a file can't be removed.
    pub fn gc(&self, keep: &Keep) -> Result<Freed> {
        let mut sweep = Sweep::new(self.store(), keep);
        sweep.run(&|store| store.lock_alone().map(Some), &mut |path| remove(path))?;
        Ok(sweep.freed)
    }

    /// As [`Depot::gc`], but gives way to who works on the depot, and then leaves the rest to the next sweep.
    ///
    /// # Errors
    /// As [`Depot::gc`].
    pub fn try_gc(&self, keep: &Keep) -> Result<Freed> {
        let mut sweep = Sweep::new(self.store(), keep);
        sweep.run(&Store::try_lock_alone, &mut |path| remove(path))?;
        Ok(sweep.freed)
    }
}

/// A sweep under way.
struct Sweep<'a> {
    store: &'a Store,
    keep: &'a Keep,
    /// Images and trees whose files are in `needed` already.
    seen: BTreeSet<Digest>,
    trees: BTreeSet<String>,
    needed: BTreeSet<PathBuf>,
    freed: Freed,
}

impl<'a> Sweep<'a> {
    fn new(store: &'a Store, keep: &'a Keep) -> Self {
        let (seen, trees, needed) = Default::default();
        Self { store, keep, seen, trees, needed, freed: Freed::default() }
    }

    /// Does all of it. `lock` gets the lock alone, or `None` to give up; `remove` removes a file.
    fn run(
        &mut self,
        lock: &dyn Fn(&Store) -> Result<Option<Lock>>,
        remove: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        {
            let _beside_others = self.store.lock()?;
            self.mark()?;
        }
        {
            let Some(_alone) = lock(self.store)? else { return Ok(()) };
            self.mark()?;
            self.store.clear_staging()?;
            self.records(remove)?;
        }
        let mut victims = Vec::new();
        let mut dirs = vec![self.store.dir().join("blobs/sha256"), self.store.dir().join("erofs")];
        dirs.extend(list(&self.store.objects())?);
        for dir in dirs {
            victims.extend(list(&dir)?.into_iter().filter(|path| !self.needed.contains(path)));
        }
        for batch in victims.chunks(BATCH) {
            let Some(_alone) = lock(self.store)? else { return Ok(()) };
            self.mark()?;
            for path in batch.iter().filter(|path| !self.needed.contains(*path)) {
                // Another sweep may have been quicker.
                let Ok(meta) = fs::metadata(path) else { continue };
                remove(path)?;
                self.freed.bytes += meta.len();
                self.freed.files += 1;
            }
        }
        Ok(())
    }

    fn keeps(&self, digest: &Digest) -> Result<bool> {
        Ok(match self.keep {
            Keep::Only(images) => images.contains(digest),
            Keep::AllBut(one) => digest != one,
            Keep::Recent { images, since } => {
                images.contains(digest) || self.store.used_at("images", digest)?.is_some_and(|at| at >= *since)
            }
        })
    }

    /// Notes every file that kept images need, as far as it is not noted yet.
    fn mark(&mut self) -> Result<()> {
        let store = self.store;
        for digest in store.keys("images")? {
            if self.seen.contains(&digest) || !self.keeps(&digest)? {
                continue;
            }
            if let Some(record) = store.read_record::<ImageRecord>("images", &digest)? {
                let blobs = [&digest, &record.config].into_iter().chain(&record.layers);
                self.needed.extend(blobs.map(|blob| store.blob(blob)));
                self.tree(&record.erofs)?;
                self.seen.insert(digest);
            }
        }
        for key in store.keys("derived")? {
            if !self.seen.contains(&key)
                && let Some(derived) = store.read_record::<DerivedRecord>("derived", &key)?
                && self.seen.contains(&derived.image)
            {
                self.tree(&derived.erofs)?;
                self.seen.insert(key);
            }
        }
        Ok(())
    }

    /// Trees with mount points point to the same objects as their image's; reading them all is the safe way.
    fn tree(&mut self, erofs: &str) -> Result<()> {
        if self.trees.insert(erofs.to_owned()) {
            self.needed.extend(objects_of(self.store, erofs)?);
            self.needed.insert(self.store.erofs(erofs));
        }
        Ok(())
    }

    /// Removes records before any file: once an image is not there any more, its files may go.
    fn records(&mut self, remove: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let store = self.store;
        for key in store.keys("derived")? {
            let derived = store.read_record::<DerivedRecord>("derived", &key).ok().flatten();
            if !derived.is_some_and(|derived| self.seen.contains(&derived.image)) {
                remove(&store.record("derived", &key))?;
            }
        }
        for key in store.keys("bakes")? {
            let image = store.read_record::<Digest>("bakes", &key).ok().flatten();
            if !image.is_some_and(|image| self.seen.contains(&image)) {
                remove(&store.record("bakes", &key))?;
            }
        }
        for digest in store.keys("images")? {
            if !self.seen.contains(&digest) {
                remove(&store.record("images", &digest))?;
                self.freed.images += 1;
            }
        }
        ["images", "derived", "bakes"].iter().try_for_each(|dir| sync_dir(&store.dir().join(dir)))
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(io("list", dir))?;
    entries.map(|entry| entry.map(|e| e.path()).map_err(io("list", dir))).collect()
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(io("remove", path))
}

#[cfg(test)]
mod tests {
    use basalt_model::{Bake, BakeFrom, BakeStep, ImageConfig};

    use super::*;
    use crate::error::Error;

    fn quiet(_: &str, _: u64, _: Option<u64>) {}

    fn bake(depot: &Depot, name: &str) -> Digest {
        let file = |path: &str, content: String| BakeStep::file(path, content, 0o644);
        let steps = vec![file("/shared", "s".repeat(9000)), file("/own", name.repeat(3000))];
        let digest = depot.bake(&Bake { from: BakeFrom::Scratch, steps, config: ImageConfig::default() }, None, &quiet);
        let digest = digest.unwrap();
        depot.with_mount_points(&digest, &["/scratch".to_owned()], &[]).unwrap();
        digest
    }

    /// Everything that a depot holds, by path.
    fn files(dir: &Path) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        for path in list(dir).unwrap() {
            all.extend(if path.is_dir() { files(&path) } else { BTreeSet::from([path]) });
        }
        all
    }

    #[test]
    fn cut_short_at_every_step_it_takes_nothing_that_is_needed_and_the_next_takes_the_rest() {
        let mut steps = 0;
        for cut in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let depot = Depot::open(dir.path()).unwrap();
            let kept = bake(&depot, "kept");
            let only_kept = files(dir.path());
            let keep = Keep::Only(BTreeSet::from([kept]));
            bake(&depot, "a");
            bake(&depot, "b");
            let mut left: usize = cut;
            let mut sweep = Sweep::new(depot.store(), &keep);
            let cut_short = sweep.run(&|store| store.lock_alone().map(Some), &mut |path| {
                left = left.checked_sub(1).ok_or_else(|| io("remove", path)(std::io::Error::other("cut short")))?;
                remove(path)
            });
            let verified = depot.verify(&quiet).unwrap();
            assert_eq!(verified.problems, [], "after {cut} removals");
            depot.with_mount_points(&kept, &["/scratch".to_owned()], &[]).unwrap();
            depot.gc(&keep).unwrap();
            assert_eq!(files(dir.path()), only_kept, "after {cut} removals");
            match cut_short {
                Err(Error::Io { .. }) => steps += 1,
                Err(other) => panic!("{other}"),
                Ok(()) => break,
            }
        }
        // Of a and b: image, bake and derived record, manifest, configuration, layer, two trees, an object.
        assert_eq!(steps, 2 * 9);
    }

    #[test]
    fn what_was_used_lately_stays() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        let [old, used, needed] = ["old", "used", "needed"].map(|name| bake(&depot, name));
        let hour = std::time::Duration::from_secs(3600);
        let at = |digest: &Digest| depot.store().used_at("images", digest).unwrap().unwrap();
        let now = at(&needed);
        for digest in [old, used, needed] {
            let file = fs::File::options().append(true).open(depot.store().record("images", &digest)).unwrap();
            file.set_modified(now - 48 * hour).unwrap();
        }
        assert!(depot.touch(&used).unwrap());
        assert!(at(&used) >= now);
        let keep = Keep::Recent { images: BTreeSet::from([needed]), since: now - 24 * hour };
        assert_eq!(depot.try_gc(&keep).unwrap().images, 1);
        assert!(!depot.touch(&old).unwrap());
        assert!(depot.touch(&used).unwrap() && depot.touch(&needed).unwrap());
        // One more is no longer needed, and one alone is taken by name.
        assert_eq!(depot.gc(&Keep::AllBut(used)).unwrap().images, 1);
        assert_eq!(depot.verify(&quiet).unwrap().images, 1);
    }

    #[test]
    fn a_sweep_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        bake(&depot, "a");
        let working = depot.store().lock().unwrap();
        assert_eq!(depot.try_gc(&Keep::Only(BTreeSet::new())).unwrap(), Freed::default());
        drop(working);
        assert_eq!(depot.try_gc(&Keep::Only(BTreeSet::new())).unwrap().images, 1);
    }
}
