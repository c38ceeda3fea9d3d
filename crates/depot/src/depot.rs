//! The depot itself.

use std::fs;
use std::path::Path;

use basalt_model::{Digest, digest_of};
use basalt_seam::{DepotError, MountPoints, PinnedImage};

use crate::config::Config;
use crate::error::{Error, Result, io};
use crate::limits::Limits;
use crate::record::{DerivedRecord, ImageRecord};
use crate::store::Store;
use crate::verify::objects_of;
use crate::{erofs, mounts};

/// The store of images of one data directory. Several processes may use it at once.
#[derive(Debug, Clone)]
pub struct Depot {
    store: Store,
    limits: Limits,
}

impl Depot {
    /// Opens the depot at `dir`, making it if it is not there.
    ///
    /// # Errors
    /// If the directory can't be made or written, or was laid out by a newer version.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self { store: Store::open(dir)?, limits: Limits::default() })
    }

    /// Returns the depot with other limits on what it imports.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Returns whether an image is here, and takes note that it is in use: a sweep that spares what was used lately
    /// spares it. Who is about to record a release calls this first.
    ///
    /// # Errors
    /// If the depot can't be read or written.
    pub fn touch(&self, digest: &Digest) -> Result<bool> {
        let _lock = self.store.lock()?;
        let here = self.store.read_record::<ImageRecord>("images", digest)?.is_some();
        if here {
            self.store.touch("images", digest)?;
        }
        Ok(here)
    }

    /// Returns the image with these mount points in its tree: directories and files that are missing are put in empty,
    /// owned by root (directories 0755, files 0644), what is there is kept, and symbolic links are followed inside the
    /// root. What was made once is found again by its content.
    ///
    /// # Errors
    /// If the image is not here, or has something else at the place of a mount point.
    pub fn with_mount_points(&self, digest: &Digest, dirs: &[String], files: &[String]) -> Result<PinnedImage> {
        let _lock = self.store.lock()?;
        let record = self.record(digest)?;
        self.store.touch("images", digest)?;
        let erofs = if dirs.is_empty() && files.is_empty() {
            record.erofs.clone()
        } else {
            self.derived(digest, &record, dirs, files)?
        };
        let path = self.store.blob(&record.config);
        let bytes = fs::read(&path).map_err(io("read", &path))?;
        let config = Config::parse(&format!("configuration `{}`", record.config), &bytes)?;
        Ok(PinnedImage {
            digest: *digest,
            erofs: self.store.erofs(&erofs),
            objects: self.store.objects(),
            config: config.process(),
        })
    }

    fn derived(&self, digest: &Digest, record: &ImageRecord, dirs: &[String], files: &[String]) -> Result<String> {
        let sorted = |paths: &[String]| {
            let mut paths = paths.to_vec();
            paths.sort_unstable();
            paths.dedup();
            paths
        };
        let (dirs, files) = (sorted(dirs), sorted(files));
        let key = digest_of(&(record.erofs.as_str(), digest, &dirs, &files));
        if let Some(derived) = self.store.read_record::<DerivedRecord>("derived", &key)?
            && self.store.erofs(&derived.erofs).is_file()
        {
            return Ok(derived.erofs);
        }
        let mut tree = erofs::read(&self.store, &record.erofs)?;
        for path in &dirs {
            mounts::add_dir(&mut tree, path)?;
        }
        for path in &files {
            mounts::add_file(&mut tree, path)?;
        }
        let erofs = erofs::write(&self.store, tree)?;
        self.store.write_record("derived", &key, &DerivedRecord { image: *digest, erofs: erofs.clone() })?;
        Ok(erofs)
    }

    /// Returns whether an image is here with all its files, as far as their being there shows, and takes note that it is
    /// in use. What is missing makes an import do its work once more.
    pub(crate) fn is_whole(&self, digest: &Digest) -> Result<bool> {
        let store = &self.store;
        let Some(record) = store.read_record::<ImageRecord>("images", digest)? else { return Ok(false) };
        let mut blobs = [digest, &record.config].into_iter().chain(&record.layers);
        let whole = blobs.all(|blob| store.blob(blob).is_file())
            && objects_of(store, &record.erofs).is_ok_and(|objects| objects.iter().all(|object| object.is_file()));
        if whole {
            store.touch("images", digest)?;
        }
        Ok(whole)
    }

    /// Returns the record of an image.
    pub(crate) fn record(&self, digest: &Digest) -> Result<ImageRecord> {
        let record = self.store.read_record("images", digest)?;
        record.ok_or_else(|| Error::NotHere { digest: *digest, dir: self.store.dir().to_owned() })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl basalt_seam::Depot for Depot {
    fn image(&self, digest: &Digest, mounts: &MountPoints) -> std::result::Result<PinnedImage, DepotError> {
        self.with_mount_points(digest, &mounts.dirs, &mounts.files).map_err(|error| DepotError {
            digest: *digest,
            what: error.to_string(),
            source: std::error::Error::source(&error).map(|source| source.to_string().into()),
        })
    }
}
