//! The folder in which what is fetched lies until the depot has it.
//!
//! `blobs/sha256/HEX` are whole and were checked, `HEX.part` are not yet whole; a lock for each lets one transfer at a time
//! fetch it. `layouts/HEX` are OCI image layouts over them, one for each manifest. `known/HEX` remember what never changes
//! (which image of an index is for this machine) and what a tag was last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use basalt_model::Digest;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result, io as on};

/// What a broken transfer has left is kept so long for the next attempt.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// How often a lock that another process holds is tried.
const RETRY_LOCK: Duration = Duration::from_millis(50);

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    dir: PathBuf,
}

/// A lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    /// Opens the folder, making it if it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        for sub in ["blobs/sha256", "locks", "layouts", "known"] {
            let sub = dir.join(sub);
            fs::create_dir_all(&sub).map_err(on("create", &sub))?;
        }
        // Contents of private images are nobody's business.
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(on("restrict", dir))?;
        let dir = dir.canonicalize().map_err(on("find", dir))?;
        Ok(Self { dir })
    }

    /// Returns where a whole blob lies.
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.to_hex())
    }

    /// Returns where a blob grows.
    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(format!("{}.part", digest.to_hex()))
    }

    /// Keeps others from clearing away what is used.
    pub(crate) async fn hold(&self) -> Result<Lock> {
        lock(&self.dir.join("lock"), FlockOperation::NonBlockingLockShared).await
    }

    /// Keeps others from fetching the same blob.
    pub(crate) async fn lock_blob(&self, digest: &Digest) -> Result<Lock> {
        lock(&self.dir.join("locks").join(digest.to_hex()), FlockOperation::NonBlockingLockExclusive).await
    }

    /// Writes a layout whose only image is `manifest`, given as its descriptor, and returns its folder.
    pub(crate) fn layout(&self, manifest: &Digest, descriptor: &serde_json::Value) -> Result<PathBuf> {
        let dir = self.dir.join("layouts").join(manifest.to_hex());
        fs::create_dir_all(&dir).map_err(on("create", &dir))?;
        let blobs = dir.join("blobs");
        match std::os::unix::fs::symlink("../../blobs", &blobs) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(on("link", &blobs)(e)),
            _ => {}
        }
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [descriptor] });
        self.write(&dir.join("index.json"), index.to_string().as_bytes())?;
        self.write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(dir)
    }

    /// Writes a short blob, which is named by its content.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.write(&self.blob(digest), bytes)
    }

    /// Reads a short blob and hashes it; `None` if it is not there or damaged.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.blob(digest)).ok()?;
        (hash(&bytes) == *digest).then_some(bytes)
    }

    /// Remembers something under a key.
    pub(crate) fn remember<T: Serialize>(&self, key: &Digest, value: &T) -> Result<()> {
        self.write(&self.dir.join("known").join(key.to_hex()), &basalt_model::canonical_bytes(value))
    }

    /// Recalls what was remembered; what can't be read was not.
    pub(crate) fn recall<T: DeserializeOwned>(&self, key: &Digest) -> Option<T> {
        let bytes = fs::read(self.dir.join("known").join(key.to_hex())).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Clears away what is not needed any more, if nobody else uses the folder: these blobs, and old leavings.
    pub(crate) fn clear(&self, blobs: &[Digest], held: Lock) -> Result<()> {
        drop(held);
        let path = self.dir.join("lock");
        let Some(_alone) = try_lock(&path, FlockOperation::NonBlockingLockExclusive)? else { return Ok(()) };
        for blob in blobs {
            remove(&self.blob(blob))?;
        }
        for sub in ["layouts", "locks"] {
            let dir = self.dir.join(sub);
            fs::remove_dir_all(&dir).map_err(on("remove", &dir))?;
            fs::create_dir_all(&dir).map_err(on("create", &dir))?;
        }
        let dir = self.dir.join("blobs/sha256");
        for entry in fs::read_dir(&dir).map_err(on("list", &dir))? {
            let entry = entry.map_err(on("list", &dir))?;
            let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if old.is_some_and(|old| old > KEEP) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes a file whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(on("write", path))?;
        io::Write::write_all(&mut file, bytes).map_err(on("write", path))?;
        file.persist(path).map_err(|e| on("write", path)(e.error))?;
        Ok(())
    }
}

/// Returns the digest of bytes.
pub(crate) fn hash(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(on("remove", path)(e)),
        _ => Ok(()),
    }
}

async fn lock(path: &Path, how: FlockOperation) -> Result<Lock> {
    loop {
        if let Some(lock) = try_lock(path, how)? {
            return Ok(lock);
        }
        tokio::time::sleep(RETRY_LOCK).await;
    }
}

fn try_lock(path: &Path, how: FlockOperation) -> Result<Option<Lock>> {
    let file = File::options().create(true).append(true).open(path).map_err(on("open", path))?;
    match rustix::fs::flock(&file, how) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
        Err(e) => Err(Error::Io { what: "lock", path: path.to_owned(), source: e.into() }),
    }
}
