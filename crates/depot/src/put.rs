//! What is put into an image, and the layer that it becomes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use basalt_model::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::error::{Error, Result, io as on};
use crate::owner::Owner;
use crate::progress::Progress;
use crate::staging::Staging;

/// Something to be put at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Put {
    Dir { mode: u32, owner: Owner },
    Link { target: String, owner: Owner },
    File(PutFile),
}

/// A file to be put at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PutFile {
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    /// Powers that the file gives to who executes it (`security.capability`).
    pub(crate) capability: Option<Vec<u8>>,
    /// Where its content is; not part of what is remembered.
    #[serde(skip)]
    pub(crate) content: Content,
}

/// Where the content of a file comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Here(PathBuf),
    Bytes(Arc<[u8]>),
}

/// All that is put, by joined path: directories come before what is in them.
#[derive(Debug, Default)]
pub(crate) struct Puts {
    pub(crate) all: BTreeMap<Vec<u8>, Put>,
    /// Which step put it last, for errors.
    pub(crate) step: BTreeMap<Vec<u8>, usize>,
}

impl Puts {
    /// Returns it as what is remembered of it.
    pub(crate) fn remembered(&self) -> Vec<(String, &Put)> {
        self.all.iter().map(|(path, put)| (path.escape_ascii().to_string(), put)).collect()
    }

    /// Writes the layer and returns where it waits, its digest and its size.
    pub(crate) fn write_layer(
        &self,
        staging: &mut Staging<'_>,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Digest, u64)> {
        let path = staging.fresh_path();
        let file = File::create_new(&path).map_err(on("create", &path))?;
        let mut tar =
            Builder::new(Hashed { inner: BufWriter::with_capacity(128 << 10, file), hasher: Sha256::new(), size: 0 });
        let total = self.all.values().map(|put| if let Put::File(file) = put { file.size } else { 0 }).sum();
        let mut done = 0;
        for (place, put) in &self.all {
            let step = self.step.get(place).copied().unwrap_or_default();
            let shown = place.escape_ascii().to_string();
            let fail = |why: String| Error::Bake { step, path: format!("/{shown}"), why };
            append(&mut tar, place, put).map_err(|e| fail(e.to_string()))?;
            if let Put::File(file) = put {
                done += file.size;
                progress.report("bake", done, Some(total));
            }
        }
        let finish = |mut tar: Builder<Hashed<BufWriter<File>>>| {
            tar.finish()?;
            let mut hashed = tar.into_inner()?;
            hashed.flush()?;
            Ok::<_, io::Error>((Digest::from_bytes(hashed.hasher.finalize().into()), hashed.size))
        };
        let (digest, size) = finish(tar).map_err(on("write", &path))?;
        Ok((path, digest, size))
    }
}

fn append(tar: &mut Builder<impl Write>, place: &[u8], put: &Put) -> io::Result<()> {
    let place = Path::new(std::ffi::OsStr::from_bytes(place));
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_size(0);
    let owned = |header: &mut Header, owner: Owner| {
        header.set_uid(owner.0.into());
        header.set_gid(owner.1.into());
    };
    match put {
        Put::Dir { mode, owner } => {
            owned(&mut header, *owner);
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            tar.append_data(&mut header, place, io::empty())
        }
        Put::Link { target, owner } => {
            owned(&mut header, *owner);
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            // The target as it is, where the header has room for it: the other way may tidy it.
            match header.set_link_name_literal(target) {
                Ok(()) => tar.append_data(&mut header, place, io::empty()),
                Err(_) => tar.append_link(&mut header, place, target),
            }
        }
        Put::File(PutFile { mode, owner, size, digest, capability, content }) => {
            if let Some(capability) = capability {
                tar.append_pax_extensions([("SCHILY.xattr.security.capability", capability.as_slice())])?;
            }
            owned(&mut header, *owner);
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(*size);
            let content: Box<dyn Read> = match content {
                Content::Here(path) => Box::new(File::open(path)?),
                Content::Bytes(bytes) => Box::new(&bytes[..]),
            };
            let mut hashing = Hashed { inner: content.take(*size), hasher: Sha256::new(), size: 0 };
            tar.append_data(&mut header, place, &mut hashing)?;
            if hashing.size != *size || *digest != Digest::from_bytes(hashing.hasher.finalize().into()) {
                return Err(io::Error::other("it changed while it was baked; bake again when it is at rest"));
            }
            Ok(())
        }
    }
}

/// Hashes and counts what is read or written through it.
struct Hashed<T> {
    inner: T,
    hasher: Sha256,
    size: u64,
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
