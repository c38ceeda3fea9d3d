//! Where things lie in the depot's directory, its lock, and writing so that nothing half-made stays.
//!
//! ```text
//! lock                    shared by who writes or reads, exclusive for sweeping
//! format                  `1`
//! objects/xx/yyyy         contents of files, by fs-verity digest (composefs)
//! erofs/ID.erofs          trees, by fs-verity digest
//! blobs/sha256/HEX        manifests, configurations and layers, so that images can be exported
//! images/HEX              one record per image; its being there is what makes an image be there, its time the last use
//! derived/HEX             one record per image and set of mount points (a cache)
//! bakes/HEX               the image that a bake's inputs led to (a cache)
//! staging/…               what is being made; emptied when nobody works
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use basalt_model::Digest;
use composefs::fsverity::FsVerityHashValue;
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, io};
use crate::tree::ObjectId;

/// The layout that this code writes.
const FORMAT: &str = "1";

/// The depot's directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// Holds the depot's lock until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Store {
    /// Opens the depot at `dir`, making it if it is not there, and clears away what a killed process left half-made.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(io("create", dir))?;
        let dir = dir.canonicalize().map_err(io("find", dir))?;
        let store = Self { dir };
        // Contents of images are nobody's business but root's; instances see them through their own mounts.
        fs::set_permissions(&store.dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(io("restrict", &store.dir))?;
        for sub in ["objects", "erofs", "blobs/sha256", "images", "derived", "bakes", "staging"] {
            let sub = store.dir.join(sub);
            fs::create_dir_all(&sub).map_err(io("create", &sub))?;
        }
        let lock = store.lock()?;
        store.check_format()?;
        drop(lock);
        if let Some(_alone) = store.try_lock_alone()? {
            store.clear_staging()?;
        }
        Ok(store)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.join("objects")
    }

    pub(crate) fn object(&self, id: &ObjectId) -> PathBuf {
        self.dir.join("objects").join(id.to_object_pathname())
    }

    pub(crate) fn erofs(&self, id: &str) -> PathBuf {
        self.dir.join("erofs").join(format!("{id}.erofs"))
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.to_hex())
    }

    /// Returns the file of a record: `images`, `derived` or `bakes`.
    pub(crate) fn record(&self, kind: &str, key: &Digest) -> PathBuf {
        self.dir.join(kind).join(key.to_hex())
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.dir.join("staging")
    }

    /// Waits until nobody sweeps, and keeps sweepers out.
    pub(crate) fn lock(&self) -> Result<Lock> {
        self.flock(FlockOperation::LockShared)
    }

    /// Waits until nobody reads or writes, and keeps everyone out.
    pub(crate) fn lock_alone(&self) -> Result<Lock> {
        self.flock(FlockOperation::LockExclusive)
    }

    /// Returns the lock that keeps everyone out, or `None` if somebody works.
    pub(crate) fn try_lock_alone(&self) -> Result<Option<Lock>> {
        match self.flock(FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn flock(&self, how: FlockOperation) -> Result<Lock> {
        let path = self.dir.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(io("open", &path))?;
        loop {
            match rustix::fs::flock(&file, how) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io("lock", &path)(e.into())),
            }
        }
    }

    fn check_format(&self) -> Result<()> {
        let path = self.dir.join("format");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == FORMAT => Ok(()),
            Ok(text) => Err(Error::Damaged {
                path,
                why: format!("its layout is `{}`, and this version of Basalt knows `{FORMAT}` only", text.trim()),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self.write(&path, FORMAT.as_bytes()),
            Err(e) => Err(io("read", &path)(e)),
        }
    }

    /// Removes what is in staging; only for who holds the lock alone.
    pub(crate) fn clear_staging(&self) -> Result<()> {
        let staging = self.staging();
        for entry in fs::read_dir(&staging).map_err(io("list", &staging))? {
            let path = entry.map_err(io("list", &staging))?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(io("remove", &path))?;
        }
        Ok(())
    }

    /// Writes a file whole or not at all, and returns once it is on disk.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.staging()).map_err(io("write", path))?;
        file.write_all(bytes).map_err(io("write", path))?;
        file.as_file().sync_all().map_err(io("sync", path))?;
        file.persist(path).map_err(|e| io("write", path)(e.error))?;
        sync_dir(path.parent().unwrap_or(path))
    }

    /// Writes a record.
    pub(crate) fn write_record<T: Serialize>(&self, kind: &str, key: &Digest, value: &T) -> Result<()> {
        self.write(&self.record(kind, key), &basalt_model::canonical_bytes(value))
    }

    /// Reads a record; `None` if there is none.
    pub(crate) fn read_record<T: DeserializeOwned>(&self, kind: &str, key: &Digest) -> Result<Option<T>> {
        let path = self.record(kind, key);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(e) => Err(Error::Damaged { path, why: e.to_string() }),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("read", &path)(e)),
        }
    }

    /// Stamps a record with the time of now: its image is in use. The file system's clock is asked, as `used_at` is read
    /// from it too.
    pub(crate) fn touch(&self, kind: &str, key: &Digest) -> Result<()> {
        let path = self.record(kind, key);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        utimensat(CWD, &path, &times, AtFlags::empty()).map_err(|e| io("stamp", &path)(e.into()))
    }

    /// Returns when a record was stamped last; `None` if there is none.
    pub(crate) fn used_at(&self, kind: &str, key: &Digest) -> Result<Option<SystemTime>> {
        let path = self.record(kind, key);
        match fs::metadata(&path).and_then(|meta| meta.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("read", &path)(e)),
        }
    }

    /// Returns the keys of all records of a kind, sorted.
    pub(crate) fn keys(&self, kind: &str) -> Result<Vec<Digest>> {
        let dir = self.dir.join(kind);
        let mut keys = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
            let entry = entry.map_err(io("list", &dir))?;
            if let Ok(key) = format!("sha256:{}", entry.file_name().to_string_lossy()).parse() {
                keys.push(key);
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

/// Puts a directory's entries on disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(io("sync", dir))
}
