//! Checking that everything in the depot is what its name says, and mending what is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
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
    /// The image that needs it. Others may need it too.
    pub image: Digest,
    /// Where that image came from: the reference it was imported by, or `bake`; empty if its record is damaged.
    pub origin: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Images that were rebuilt from their layers.
    pub images: Vec<Digest>,
    /// What could not be mended.
    pub problems: Vec<Problem>,
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
        let mut origins = BTreeMap::new();
        for (i, digest) in images.iter().enumerate() {
            progress.report("verify", i as u64, Some(images.len() as u64));
            check.image = Some((*digest, String::new()));
            check.found.images += 1;
            match store.read_record::<ImageRecord>("images", digest) {
                Ok(Some(record)) => {
                    origins.insert(*digest, record.origin.clone());
                    check.image = Some((*digest, record.origin.clone()));
                    check.tree(&record.erofs);
                    for blob in [digest, &record.config].into_iter().chain(&record.layers) {
                        check.blob(blob);
                    }
                }
                Ok(None) => {}
                Err(e) => {
                    let mend = "bake or import the image again";
                    check.problem(store.record("images", digest), e.to_string(), mend.to_owned());
                }
            }
        }
        for key in store.keys("derived")? {
            if let Ok(Some(derived)) = store.read_record::<DerivedRecord>("derived", &key)
                && let Some(origin) = origins.get(&derived.image)
            {
                check.image = Some((derived.image, origin.clone()));
                check.tree(&derived.erofs);
            }
        }
        progress.report("verify", images.len() as u64, Some(images.len() as u64));
        Ok(check.found)
    }

    /// Verifies, removes what is damaged, and rebuilds trees and objects from the layers of their images. A damaged or
    /// missing layer can't be rebuilt: it comes back when its image is imported or baked again.
    ///
    /// Instances that run from a damaged file see the old one until they are replaced.
    ///
    /// # Errors
    /// If the depot itself can't be read or written.
    pub fn repair(&self, progress: &dyn Progress) -> Result<Repaired> {
        let found = self.verify(progress)?;
        let mut repaired = Repaired::default();
        if found.problems.is_empty() {
            return Ok(repaired);
        }
        {
            let _alone = self.store().lock_alone()?;
            for problem in &found.problems {
                match fs::remove_file(&problem.path) {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(e) => return Err(io("remove", &problem.path)(e)),
                }
            }
            // Trees with mount points are made again when they are asked for.
            for key in self.store().keys("derived")? {
                let derived = self.store().read_record::<DerivedRecord>("derived", &key).ok().flatten();
                if !derived.is_some_and(|derived| self.store().erofs(&derived.erofs).is_file()) {
                    let path = self.store().record("derived", &key);
                    fs::remove_file(&path).map_err(io("remove", &path))?;
                }
            }
        }
        for digest in self.store().keys("images")? {
            let Some(record) = self.store().read_record::<ImageRecord>("images", &digest)? else { continue };
            let objects = objects_of(self.store(), &record.erofs);
            if objects.is_ok_and(|objects| objects.iter().all(|path| path.is_file())) {
                continue;
            }
            if self.rebuild(&digest, &record, progress).is_ok() {
                repaired.images.push(digest);
            }
        }
        repaired.problems = self.verify(progress)?.problems;
        Ok(repaired)
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
    image: Option<(Digest, String)>,
}

impl Check<'_> {
    fn tree(&mut self, erofs: &str) {
        let path = self.store.erofs(erofs);
        if !self.seen.insert(path.clone()) {
            return;
        }
        if self.file(&path, erofs, &rebuilt(), verity)
            && let Ok(objects) = objects_of(self.store, erofs)
        {
            objects.into_iter().for_each(|path| self.object(path));
        }
    }

    fn object(&mut self, path: PathBuf) {
        if self.seen.insert(path.clone()) {
            let part = |path: Option<&Path>| path.and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
            let id = part(path.parent()).unwrap_or_default() + &part(Some(&path)).unwrap_or_default();
            self.file(&path, &id, &rebuilt(), verity);
        }
    }

    fn blob(&mut self, digest: &Digest) {
        let path = self.store.blob(digest);
        if self.seen.insert(path.clone()) {
            let again = match &self.image {
                Some((_, origin)) if origin != "bake" && !origin.is_empty() => format!("import `{origin}` again"),
                _ => "bake the image again".to_owned(),
            };
            let mend = format!("`basalt image verify --repair`, then {again}");
            self.file(&path, &digest.to_hex(), &mend, |file| hash(file).map(|digest| digest.to_hex()));
        }
    }

    /// Returns whether a file is what it should be.
    fn file(
        &mut self,
        path: &Path,
        expected: &str,
        mend: &str,
        hash: impl FnOnce(File) -> std::io::Result<String>,
    ) -> bool {
        self.found.files += 1;
        let what = match File::open(path).and_then(hash) {
            Ok(found) if found == expected => return true,
            Ok(found) => format!("its content has the digest {found}: it was changed"),
            Err(e) => e.to_string(),
        };
        self.problem(path.to_owned(), what, mend.to_owned());
        false
    }

    fn problem(&mut self, path: PathBuf, what: String, mend: String) {
        if let Some((image, origin)) = self.image.clone() {
            self.found.problems.push(Problem { image, origin, path, what, mend });
        }
    }
}

fn rebuilt() -> String {
    "`basalt image verify --repair` rebuilds it from the layers".to_owned()
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
