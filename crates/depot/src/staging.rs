//! What one import or bake makes, before it counts.
//!
//! Contents are written into a directory of their own and moved to their places only when all of them are on disk, so
//! that whatever is found under its digest is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use basalt_model::Digest;
use composefs::INLINE_CONTENT_MAX_V0;
use composefs::fsverity::{FsVerityHashValue, FsVerityHasher, compute_verity};
use composefs::tree::{LeafContent, RegularFile};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result, io as on};
use crate::sealing;
use crate::store::{Lock, Store, sync_dir};
use crate::tree::{ObjectId, Tree};

/// Files up to this size are read whole, hashed, and written only if they are new; larger ones are streamed through a file.
const READ_WHOLE: u64 = 1 << 20;

/// Up to so many new files are synced one by one; beyond, syncing the whole file system is faster.
const SYNC_ONE_BY_ONE: usize = 16;

/// How much is read at once.
const CHUNK: usize = 128 << 10;

/// What one import or bake makes. Dropped without [`Staging::commit`], nothing of it stays.
pub(crate) struct Staging<'a> {
    store: &'a Store,
    dir: tempfile::TempDir,
    /// New objects, and where they wait.
    objects: BTreeMap<String, PathBuf>,
    /// New blobs, and where they wait.
    blobs: BTreeMap<Digest, PathBuf>,
    count: u64,
    seal: bool,
    lock: Lock,
}

impl<'a> Staging<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self> {
        let lock = store.lock()?;
        let parent = store.staging();
        let dir = tempfile::TempDir::new_in(&parent).map_err(on("create a directory in", &parent))?;
        let seal = sealing::is_possible(dir.path()).map_err(on("write in", &parent))?;
        Ok(Self { store, dir, objects: BTreeMap::new(), blobs: BTreeMap::new(), count: 0, seal, lock })
    }

    /// Returns a path that nothing is at yet.
    pub(crate) fn fresh_path(&mut self) -> PathBuf {
        self.count += 1;
        self.dir.path().join(self.count.to_string())
    }

    /// Takes a file's content of `size` bytes: the smallest stay in the tree, all else becomes an object.
    pub(crate) fn put_file(&mut self, mut content: impl Read, size: u64) -> io::Result<RegularFile<ObjectId>> {
        if size <= READ_WHOLE {
            let mut bytes = Vec::with_capacity(size as usize);
            content.take(size).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != size {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was said to be"));
            }
            if bytes.len() <= INLINE_CONTENT_MAX_V0 {
                return Ok(RegularFile::Inline(bytes.into()));
            }
            let id: ObjectId = compute_verity(&bytes);
            if !self.has_object(&id, size) {
                let path = self.fresh_path();
                create(&path)?.write_all(&bytes)?;
                self.objects.insert(id.to_object_pathname(), path);
            }
            return Ok(RegularFile::External(id, size));
        }
        let path = self.fresh_path();
        let mut file = create(&path)?;
        let mut hasher = FsVerityHasher::<ObjectId>::new();
        let mut buffer = vec![0; CHUNK];
        let mut written = 0;
        loop {
            let n = content.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.write_all(&buffer[..n])?;
            file.write_all(&buffer[..n])?;
            written += n as u64;
        }
        if written != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is not as long as it was said to be"));
        }
        let id = hasher.digest();
        if self.has_object(&id, size) {
            fs::remove_file(&path)?;
        } else {
            self.objects.insert(id.to_object_pathname(), path);
        }
        Ok(RegularFile::External(id, size))
    }

    fn has_object(&self, id: &ObjectId, size: u64) -> bool {
        self.objects.contains_key(&id.to_object_pathname())
            || fs::metadata(self.store.object(id)).is_ok_and(|m| m.len() == size)
    }

    /// Takes a blob whose digest is known beforehand, and refuses it if it is another.
    pub(crate) fn put_blob(&mut self, what: &str, content: impl Read, digest: &Digest, size: u64) -> Result<PathBuf> {
        if let Some(path) = self.find_blob(digest) {
            return Ok(path);
        }
        let path = self.fresh_path();
        // One byte more than promised shows that there is more.
        let (found, length) = copy_hashed(content.take(size.saturating_add(1)), &path).map_err(on("store", &path))?;
        let mismatch = |expected: String, found: String| Error::Mismatch { what: what.to_owned(), expected, found };
        if length != size {
            let found = if length > size { "more".to_owned() } else { format!("{length} bytes") };
            return Err(mismatch(format!("{size} bytes"), found));
        }
        if found != *digest {
            return Err(mismatch(digest.to_string(), found.to_string()));
        }
        self.blobs.insert(*digest, path.clone());
        Ok(path)
    }

    /// Takes a blob that lies in a file made at [`Staging::fresh_path`] and was hashed when it was written.
    pub(crate) fn adopt_blob(&mut self, path: PathBuf, digest: Digest) {
        self.blobs.entry(digest).or_insert(path);
    }

    /// Takes a short blob and returns its digest.
    pub(crate) fn put_bytes(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::from_bytes(Sha256::digest(bytes).into());
        self.put_blob("blob", bytes, &digest, bytes.len() as u64)?;
        Ok(digest)
    }

    /// Returns where a blob lies, if it is in the depot or waits here.
    pub(crate) fn find_blob(&self, digest: &Digest) -> Option<PathBuf> {
        let here = self.blobs.get(digest).cloned();
        here.or_else(|| Some(self.store.blob(digest)).filter(|path| path.is_file()))
    }

    /// Gives up the new objects that a tree does not point to: what an upper layer has replaced.
    pub(crate) fn keep_only(&mut self, tree: &mut Tree) {
        tree.compact();
        let needed: BTreeSet<String> = tree
            .leaves
            .iter()
            .filter_map(|leaf| match &leaf.content {
                LeafContent::Regular(RegularFile::External(id, _)) => Some(id.to_object_pathname()),
                _ => None,
            })
            .collect();
        self.objects.retain(|name, _| needed.contains(name));
    }

    /// Puts everything on disk, and only then in its place. The lock stays until the returned guard is dropped.
    pub(crate) fn commit(self) -> Result<Lock> {
        let objects = self.store.objects();
        let blobs = self.objects.len() + self.blobs.len();
        if blobs <= SYNC_ONE_BY_ONE {
            for path in self.objects.values().chain(self.blobs.values()) {
                File::open(path).and_then(|f| f.sync_all()).map_err(on("sync", path))?;
            }
        } else {
            sync_file_system(&objects)?;
        }
        let mut dirs = BTreeSet::new();
        for (name, path) in &self.objects {
            if self.seal {
                sealing::seal(path).map_err(on("seal (fs-verity)", path))?;
            }
            let target = objects.join(name);
            let dir = target.parent().unwrap_or(&objects).to_owned();
            if dirs.insert(dir.clone()) {
                fs::create_dir_all(&dir).map_err(on("create", &dir))?;
            }
            fs::rename(path, &target).map_err(on("move", &target))?;
        }
        for (digest, path) in &self.blobs {
            let target = self.store.blob(digest);
            fs::rename(path, &target).map_err(on("move", &target))?;
            dirs.insert(target.parent().unwrap_or(&target).to_owned());
        }
        if dirs.len() <= SYNC_ONE_BY_ONE {
            dirs.iter().try_for_each(|dir| sync_dir(dir))?;
            sync_dir(&objects)?;
        } else {
            sync_file_system(&objects)?;
        }
        Ok(self.lock)
    }
}

/// Creates an object: it is never written again. Instances see its permission bits through no mount of theirs.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o444).open(path)
}

/// Copies a stream into a new file and returns its digest and length.
pub(crate) fn copy_hashed(mut content: impl Read, path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::create_new(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let n = content.read(&mut buffer)?;
        if n == 0 {
            return Ok((Digest::from_bytes(hasher.finalize().into()), length));
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n])?;
        length += n as u64;
    }
}

/// Reads a stream to its end and returns its digest.
pub(crate) fn hash(mut content: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn sync_file_system(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(on("open", dir))?;
    rustix::fs::syncfs(&file).map_err(|e| on("sync", dir)(e.into()))
}
