//! Checking that everything in the depot is what its name says.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use basalt_model::Digest;
use composefs::erofs::reader::collect_objects;
use composefs::fsverity::{FsVerityHashValue, FsVerityHasher};

use crate::depot::Depot;
use crate::error::{Error, Result, io};
use crate::progress::Progress;
use crate::record::{DerivedRecord, ImageRecord};
use crate::staging::hash;
use crate::store::Store;
use crate::tree::ObjectId;

/// What a check of the depot found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Images that were checked.
    pub images: usize,
    /// Files that were hashed: blobs, trees and objects.
    pub files: u64,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The image that needs it.
    pub image: Digest,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl Depot {
    /// Hashes everything that the images need, and returns what is missing or changed.
    ///
    /// # Errors
    /// If the depot itself can't be read; what is wrong with an image is in the result.
    pub fn verify(&self, progress: &dyn Progress) -> Result<Verified> {
        let _lock = self.store().lock()?;
        let store = self.store();
        let images = store.keys("images")?;
        let mut check = Check { store, seen: BTreeSet::new(), found: Verified::default(), image: None };
        for (i, digest) in images.iter().enumerate() {
            progress.report("verify", i as u64, Some(images.len() as u64));
            check.image = Some(*digest);
            check.found.images += 1;
            match store.read_record::<ImageRecord>("images", digest) {
                Ok(Some(record)) => {
                    check.tree(&record.erofs);
                    for blob in [digest, &record.config].into_iter().chain(&record.layers) {
                        check.blob(blob);
                    }
                }
                Ok(None) => {}
                Err(e) => check.problem(store.record("images", digest), e.to_string()),
            }
        }
        for key in store.keys("derived")? {
            if let Ok(Some(derived)) = store.read_record::<DerivedRecord>("derived", &key)
                && images.contains(&derived.image)
            {
                check.image = Some(derived.image);
                check.tree(&derived.erofs);
            }
        }
        progress.report("verify", images.len() as u64, Some(images.len() as u64));
        Ok(check.found)
    }
}

/// Returns the objects that a tree points to.
pub(crate) fn objects_of(store: &Store, erofs: &str) -> Result<BTreeSet<PathBuf>> {
    let path = store.erofs(erofs);
    let bytes = std::fs::read(&path).map_err(io("read", &path))?;
    let objects = collect_objects::<ObjectId>(&bytes);
    let objects = objects.map_err(|e| Error::Damaged { path, why: e.to_string() })?;
    Ok(objects.iter().map(|id| store.object(id)).collect())
}

struct Check<'a> {
    store: &'a Store,
    seen: BTreeSet<PathBuf>,
    found: Verified,
    image: Option<Digest>,
}

impl Check<'_> {
    fn tree(&mut self, erofs: &str) {
        let path = self.store.erofs(erofs);
        if !self.seen.insert(path.clone()) {
            return;
        }
        self.file(&path, erofs, verity);
        match objects_of(self.store, erofs) {
            Ok(objects) => objects.into_iter().for_each(|path| self.object(path)),
            Err(e) => self.problem(path, e.to_string()),
        }
    }

    fn object(&mut self, path: PathBuf) {
        if self.seen.insert(path.clone()) {
            let part = |path: Option<&Path>| path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
            let id = part(path.parent()).unwrap_or_default() + &part(Some(&path)).unwrap_or_default();
            self.file(&path, &id, verity);
        }
    }

    fn blob(&mut self, digest: &Digest) {
        let path = self.store.blob(digest);
        if self.seen.insert(path.clone()) {
            self.file(&path, &digest.to_hex(), |file| hash(file).map(|digest| digest.to_hex()));
        }
    }

    fn file(&mut self, path: &Path, expected: &str, hash: impl FnOnce(File) -> std::io::Result<String>) {
        self.found.files += 1;
        match File::open(path).and_then(hash) {
            Ok(found) if found == expected => {}
            Ok(found) => self.problem(path.to_owned(), format!("its content has the digest {found}: it was changed")),
            Err(e) => self.problem(path.to_owned(), e.to_string()),
        }
    }

    fn problem(&mut self, path: PathBuf, what: String) {
        if let Some(image) = self.image {
            self.found.problems.push(Problem { image, path, what });
        }
    }
}

/// Returns a file's fs-verity digest.
fn verity(file: File) -> std::io::Result<String> {
    let mut hasher = FsVerityHasher::<ObjectId>::new();
    let mut reader = BufReader::new(file);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.digest().to_hex()),
            n => hasher.write_all(&buffer[..n])?,
        }
    }
}
