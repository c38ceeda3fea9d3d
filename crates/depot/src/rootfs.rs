//! Images made of a bare root: a directory, or a tar of one.
//!
//! A tar is the layer as it stands, unpacked if it is packed. A directory is written as one, so that the same files give
//! the same digest wherever they lie: sorted, all times the epoch, and who owns the directory itself is root in the
//! image. Other owners, permission bits, hard links and file capabilities are kept: a root without them would not work.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use basalt_model::Digest;
use basalt_model::manifest::architecture;
use tar::{Builder, EntryType, Header};

use crate::config::{Config, RootFs};
use crate::error::{Error, Result, io as on};
use crate::limits::{DEEPEST, Limits};
use crate::progress::Progress;

/// The one extended attribute that is part of an image.
const CAPABILITY: &str = "security.capability";

/// The longest file capability (Linux `struct vfs_ns_cap_data`), with room for later revisions.
const LONGEST_CAPABILITY: usize = 64;

/// When such an image was made, as far as it says: fixed, for the same bytes anywhere.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Returns the configuration of an image that is one layer and says nothing about running it.
pub(crate) fn config(diff_id: &Digest) -> Config {
    Config {
        created: Some(CREATED.to_owned()),
        architecture: architecture().to_owned(),
        os: "linux".to_owned(),
        config: None,
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id.to_string()] },
    }
}

/// Writes a directory as a layer to the new file `to`.
///
/// # Errors
/// If something in it can't be read, or can't be part of an image; the error names it.
pub(crate) fn write_layer(root: &Path, to: &Path, limits: &Limits, progress: &dyn Progress) -> Result<()> {
    let meta = fs::metadata(root).map_err(on("read", root))?;
    let file = File::create_new(to).map_err(on("create", to))?;
    let tar = Builder::new(BufWriter::with_capacity(256 << 10, file));
    let (owner, device) = ((meta.uid(), meta.gid()), meta.dev());
    let links = BTreeMap::new();
    let mut pack = Pack { root, owner, device, tar, links, limits, progress, entries: 0, bytes: 0 };
    pack.dir(&mut Vec::new())?;
    let finished = pack.tar.into_inner().and_then(|mut buffered| buffered.flush());
    finished.map_err(on("write", to))
}

struct Pack<'a> {
    root: &'a Path,
    /// Who owns the directory, and is root in the image.
    owner: (u32, u32),
    /// The file system of the directory: what is mounted in it is not part of it.
    device: u64,
    tar: Builder<BufWriter<File>>,
    /// Where files of several names were first met, by inode.
    links: BTreeMap<u64, PathBuf>,
    limits: &'a Limits,
    progress: &'a dyn Progress,
    entries: u64,
    bytes: u64,
}

impl Pack<'_> {
    fn dir(&mut self, at: &mut Vec<OsString>) -> Result<()> {
        let path = self.path(at);
        if at.len() >= DEEPEST {
            return Err(self.fail(at, &format!("it lies more than {DEEPEST} directories deep")));
        }
        let names = fs::read_dir(&path).and_then(|dir| dir.map(|e| e.map(|e| e.file_name())).collect());
        let mut names: Vec<OsString> = names.map_err(on("list", &path))?;
        names.sort_unstable();
        for name in names {
            at.push(name);
            self.entry(at)?;
            at.pop();
        }
        Ok(())
    }

    fn entry(&mut self, at: &mut Vec<OsString>) -> Result<()> {
        let path = self.path(at);
        let meta = fs::symlink_metadata(&path).map_err(on("read", &path))?;
        let kind = meta.file_type();
        let in_dev = at.len() > 1 && at.first().is_some_and(|top| top == "dev");
        if (kind.is_char_device() || kind.is_block_device()) && in_dev {
            return Ok(()); // a runtime mounts its own /dev
        }
        if at.last().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
            return Err(self.fail(at, "a name beginning with `.wh.` can't be in a layer; rename it"));
        }
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.fail(at, &format!("the directory has more than {} entries", self.limits.entries)));
        }
        let elsewhere = meta.dev() != self.device;
        let place: PathBuf = at.iter().collect();
        if kind.is_dir() {
            let mut header = self.header(&meta, EntryType::Directory, 0);
            let wrote = self.tar.append_data(&mut header, place.join(""), io::empty());
            wrote.map_err(|e| self.fail(at, &e.to_string()))?;
            return if elsewhere { Ok(()) } else { self.dir(at) };
        }
        if elsewhere {
            return Err(self.fail(at, "something is mounted there; unmount it"));
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(on("read", &path))?;
            return self.link(&meta, EntryType::Symlink, at, &place, target.as_os_str());
        }
        if !kind.is_file() {
            return Err(self.fail(at, "it is neither file, directory nor symbolic link; remove it or leave it out"));
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&meta.ino()).cloned() {
                return self.link(&meta, EntryType::Link, at, &place, first.as_os_str());
            }
            self.links.insert(meta.ino(), place.clone());
        }
        self.file(&meta, at, &path, &place)
    }

    fn file(&mut self, meta: &Metadata, at: &[OsString], path: &Path, place: &Path) -> Result<()> {
        let size = meta.len();
        self.bytes += size;
        if self.bytes > self.limits.unpacked {
            return Err(self.fail(at, &format!("the directory has more than {} bytes", self.limits.unpacked)));
        }
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
        let file = File::options().read(true).custom_flags(flags as i32).open(path).map_err(on("open", path))?;
        let mut value = [0; LONGEST_CAPABILITY];
        // No attribute, or a file system without any: both are no capability.
        let length = rustix::fs::fgetxattr(&file, CAPABILITY, &mut value[..]).unwrap_or(0);
        let mut header = self.header(meta, EntryType::Regular, size);
        let mut content = Counting { inner: file.take(size), count: 0 };
        let mut write = || {
            if length > 0 {
                let key = format!("SCHILY.xattr.{CAPABILITY}");
                self.tar.append_pax_extensions([(key.as_str(), &value[..length])])?;
            }
            self.tar.append_data(&mut header, place, &mut content)
        };
        write().map_err(|e| self.fail(at, &e.to_string()))?;
        if content.count != size {
            return Err(self.fail(at, "it changed while it was read; try again when it is at rest"));
        }
        self.progress.report("read", self.bytes, None);
        Ok(())
    }

    fn link(&mut self, meta: &Metadata, kind: EntryType, at: &[OsString], place: &Path, target: &OsStr) -> Result<()> {
        let mut header = self.header(meta, kind, 0);
        // The target as it is, where the header has room for it: the other way may tidy it.
        let wrote = match header.set_link_name_literal(target.as_bytes()) {
            Ok(()) => self.tar.append_data(&mut header, place, io::empty()),
            Err(_) => self.tar.append_link(&mut header, place, Path::new(target)),
        };
        wrote.map_err(|e| self.fail(at, &e.to_string()))
    }

    fn header(&self, meta: &Metadata, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        let owner = |id: u32, own: u32| u64::from(if id == own { 0 } else { id });
        header.set_entry_type(kind);
        header.set_mode(if kind.is_symlink() { 0o777 } else { meta.mode() & 0o7777 });
        header.set_uid(owner(meta.uid(), self.owner.0));
        header.set_gid(owner(meta.gid(), self.owner.1));
        header.set_mtime(0);
        header.set_size(size);
        header
    }

    fn path(&self, at: &[OsString]) -> PathBuf {
        at.iter().fold(self.root.to_owned(), |path, part| path.join(part))
    }

    fn fail(&self, at: &[OsString], why: &str) -> Error {
        Error::Reference { reference: self.path(at).display().to_string(), why: why.to_owned() }
    }
}

/// Counts what is read through it.
struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count += n as u64;
        Ok(n)
    }
}
