//! What a program changed, as a layer (OCI image spec, "Image Layer Filesystem Changeset").
//!
//! The directory of changes says what has changed; what it has become is read through the mounted root, so that the
//! kernel's own notes (files whose content still lies below, directories that were moved) need no second reading here.
//! By now nothing of the sandbox runs any more.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::root::{RootError, at};
use crate::user::IDS;

/// Directories that are never part of an image: their contents are the kernel's.
const KERNEL: [&str; 3] = ["dev", "proc", "sys"];

/// Marks what a layer removes.
const WHITEOUT: &str = ".wh.";
/// Marks a directory whose contents below a layer removes.
const OPAQUE: &str = ".wh..wh..opq";

/// The one extended attribute that images keep.
const CAPABILITY: &str = "security.capability";
/// A capability with the root of a user namespace in it (`struct vfs_ns_cap_data`, linux/capability.h) ...
const CAPABILITY_3: [u8; 4] = [0, 0, 0, 3];
/// ... and without, as it is in every image.
const CAPABILITY_2: [u8; 4] = [0, 0, 0, 2];

/// Writes the layer: sorted, times at the epoch, owners as the program saw them.
///
/// Left out are sockets and named pipes, which are of a running program, and all below `/dev`, `/proc` and `/sys`.
pub(super) fn write(upper: &Path, merged: &Path, first_id: u32, layer: File) -> Result<(), RootError> {
    let mut tar = Builder::new(BufWriter::with_capacity(128 << 10, layer));
    tar.follow_symlinks(false);
    let mut capture = Capture { tar, upper, merged, first_id, links: HashMap::new() };
    capture.directory(Path::new(""), false)?;
    let finish = |tar: Builder<BufWriter<File>>| tar.into_inner()?.flush();
    finish(capture.tar).map_err(at("could not write what it changed"))
}

struct Capture<'a> {
    tar: Builder<BufWriter<File>>,
    upper: &'a Path,
    merged: &'a Path,
    first_id: u32,
    /// Files with several names, by inode of the directory of changes.
    links: HashMap<u64, PathBuf>,
}

impl Capture<'_> {
    /// Takes what is in a directory: what was changed, or everything if nothing of what lies below it counts any more.
    fn directory(&mut self, dir: &Path, whole: bool) -> Result<(), RootError> {
        let listed = if whole { self.merged.join(dir) } else { self.upper.join(dir) };
        let names =
            fs::read_dir(&listed).and_then(|d| d.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>());
        let mut names = names.map_err(at(format!("could not list `/{}`", dir.display())))?;
        names.sort_unstable();
        for name in names {
            let path = dir.join(&name);
            if KERNEL.iter().any(|kernel| path == Path::new(kernel)) {
                continue;
            }
            if name.as_bytes().starts_with(WHITEOUT.as_bytes()) {
                let why = io::Error::other("a name that begins with `.wh.` can't be in a layer; remove or rename it");
                return Err(at(format!("could not take `/{}`", path.display()))(why));
            }
            self.entry(&path, whole).map_err(at(format!("could not take `/{}`", path.display())))??;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, whole: bool) -> io::Result<Result<(), RootError>> {
        let changed = fs::symlink_metadata(self.upper.join(path)).ok();
        if !whole && changed.as_ref().is_some_and(is_whiteout) {
            let (dir, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            let mut marker = std::ffi::OsString::from(WHITEOUT);
            marker.push(name);
            self.marker(&dir.join(marker))?;
            return Ok(Ok(()));
        }
        let seen = self.merged.join(path);
        let meta = fs::symlink_metadata(&seen)?;
        let mut header = self.header(&meta)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(meta.mode() & 0o7777);
            self.tar.append_data(&mut header, path, io::empty())?;
            let fresh = whole || replaces(&self.upper.join(path))?;
            if fresh && !whole {
                self.marker(&path.join(OPAQUE))?;
            }
            return Ok(self.directory(path, fresh));
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            let target = fs::read_link(&seen)?;
            match header.set_link_name_literal(target.as_os_str().as_bytes()) {
                Ok(()) => self.tar.append_data(&mut header, path, io::empty())?,
                Err(_) => self.tar.append_link(&mut header, path, target)?,
            }
        } else if kind.is_file() {
            self.file(path, &seen, &meta, changed.as_ref(), header)?;
        } else if !kind.is_socket() && !kind.is_fifo() {
            return Err(io::Error::other("it is a device, which an image must not have"));
        }
        Ok(Ok(()))
    }

    fn file(
        &mut self,
        path: &Path,
        seen: &Path,
        meta: &Metadata,
        changed: Option<&Metadata>,
        mut header: Header,
    ) -> io::Result<()> {
        if let Some(inode) = changed.filter(|c| c.nlink() > 1).map(MetadataExt::ino) {
            if let Some(first) = self.links.get(&inode) {
                header.set_entry_type(EntryType::Link);
                header.set_mode(meta.mode() & 0o7777);
                let first = first.clone();
                return self.tar.append_link(&mut header, path, first);
            }
            self.links.insert(inode, path.to_owned());
        }
        if let Some(capability) = capability(seen)? {
            self.tar.append_pax_extensions([("SCHILY.xattr.security.capability", capability.as_slice())])?;
        }
        header.set_entry_type(EntryType::Regular);
        header.set_mode(meta.mode() & 0o7777);
        header.set_size(meta.len());
        self.tar.append_data(&mut header, path, File::open(seen)?)
    }

    /// Writes an empty file that marks something as removed.
    fn marker(&mut self, path: &Path) -> io::Result<()> {
        let mut header = plain_header();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn header(&self, meta: &Metadata) -> io::Result<Header> {
        let inside = |what: &str, id: u32| {
            let id = id.checked_sub(self.first_id).filter(|id| *id < IDS);
            id.ok_or_else(|| io::Error::other(format!("its {what} has no number below {IDS}")))
        };
        let mut header = plain_header();
        header.set_uid(inside("owner", meta.uid())?.into());
        header.set_gid(inside("group", meta.gid())?.into());
        Ok(header)
    }
}

fn plain_header() -> Header {
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

/// Returns whether a changed directory hides the one below it: it was made anew in its place, or moved there.
fn replaces(dir: &Path) -> io::Result<bool> {
    let opaque = attribute(dir, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y");
    Ok(opaque || attribute(dir, "trusted.overlay.redirect")?.is_some())
}

fn capability(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let Some(mut value) = attribute(path, CAPABILITY)? else { return Ok(None) };
    // The magic number is little-endian, its last byte is the revision.
    if value.len() > 4 && value[3] == CAPABILITY_3[3] {
        value[3] = CAPABILITY_2[3];
        value.truncate(value.len() - 4);
    }
    Ok(Some(value))
}

fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    /// Longer ones than any that is asked for here.
    const LONGEST: usize = 4096;
    let mut value = vec![0; LONGEST];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
