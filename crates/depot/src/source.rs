//! Where an image is imported from: an OCI layout in a directory or archive, a Docker archive, or a bare root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::archive::{TarError, TarReader};
use crate::error::{Error, Result, io as on};
use crate::limits::Limits;
use crate::manifest::Packing;
use crate::staging::Staging;
use crate::tree;
use basalt_model::manifest::LONGEST_DOCUMENT;

/// The most entries of an archive: an image has at most a few hundred blobs; multi-platform ones a few thousand.
const MOST_ENTRIES: usize = 100_000;

/// The most links followed in an archive: older `docker save` links equal layers to one another, once.
const MOST_LINKS: usize = 4;

/// An image reference that names a place on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) tag: Option<String>,
    pub(crate) text: String,
}

/// What lies at a reference's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OciDir,
    OciArchive,
    DockerArchive,
    RootDir,
    RootTar,
}

impl Reference {
    /// Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `dir:DIR` or `tar:FILE`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let fail = |why: &str| Error::Reference { reference: text.to_owned(), why: why.to_owned() };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let kind = match kind {
            "oci" => Kind::OciDir,
            "oci-archive" => Kind::OciArchive,
            "docker-archive" => Kind::DockerArchive,
            "dir" => Kind::RootDir,
            "tar" => Kind::RootTar,
            _ => {
                return Err(fail(
                    "expected `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`, with `:TAG` behind it if there \
                     are several, or a root as `dir:DIR` or `tar:FILE`",
                ));
            }
        };
        // A path that is there as it stands may have colons itself.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if !kind.is_root() && !Path::new(rest).exists() => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(fail("it has no path"));
        }
        Ok(Self { kind, path: path.into(), tag, text: text.to_owned() })
    }

    /// Returns its path, if there is something of the right kind.
    pub(crate) fn existing(&self) -> Result<PathBuf> {
        match self.kind {
            Kind::OciDir | Kind::RootDir if self.path.is_dir() => Ok(self.path.clone()),
            Kind::OciDir | Kind::RootDir => Err(self.fail("there is no such directory")),
            _ if self.path.is_file() => Ok(self.path.clone()),
            _ => Err(self.fail("there is no such file")),
        }
    }

    /// Opens a file of it and returns how it is packed.
    pub(crate) fn packed(&self, path: &Path) -> Result<(File, Packing)> {
        let mut file = File::open(path).map_err(on("open", path))?;
        let mut first = [0; 6];
        let length = (&file).take(first.len() as u64).read(&mut first).map_err(on("read", path))?;
        file.seek(SeekFrom::Start(0)).map_err(on("read", path))?;
        let other = match &first[..length] {
            [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [b'P', b'K', 3, 4, ..] => "zip",
            first => return Ok((file, Packing::by_magic(first))),
        };
        Err(self
            .fail(format!("it is packed with {other}, which is not taken; pack it with zstd or gzip, or not at all")))
    }

    pub(crate) fn fail(&self, why: impl Into<String>) -> Error {
        Error::Reference { reference: self.text.clone(), why: why.into() }
    }
}

impl Kind {
    /// Returns whether it is a root and no image.
    pub(crate) fn is_root(self) -> bool {
        matches!(self, Self::RootDir | Self::RootTar)
    }
}

/// Gives out files of a directory or archive by name.
pub(crate) enum Source {
    Dir(PathBuf),
    Archive { path: PathBuf, files: BTreeMap<Vec<u8>, Place> },
}

/// Where something lies in an archive.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

impl Source {
    /// Opens a layout or archive. An archive that is packed as a whole is unpacked to `staging` first.
    ///
    /// # Errors
    /// If it is not there or can't be read, or is no archive that is taken, or unpacks to more than is allowed.
    pub(crate) fn open(reference: &Reference, staging: &mut Staging<'_>, limits: &Limits) -> Result<Self> {
        let path = reference.existing()?;
        match reference.kind {
            Kind::OciDir | Kind::RootDir => Ok(Self::Dir(path)),
            Kind::OciArchive | Kind::DockerArchive | Kind::RootTar => {
                let (file, packing) = reference.packed(&path)?;
                match packing {
                    Packing::None => Self::scan(reference, path),
                    packing => Self::scan(reference, unpack(reference, file, packing, staging, limits)?),
                }
            }
        }
    }

    /// Notes where the files of an archive lie; nothing of it is unpacked.
    fn scan(reference: &Reference, path: PathBuf) -> Result<Self> {
        let file = File::open(&path).map_err(on("open", &path))?;
        let refused = |e| match e {
            TarError::Io(e) => on("read", &path)(e),
            TarError::Refused { entry: Some(entry), why } => {
                reference.fail(format!("entry `{}`: {why}", String::from_utf8_lossy(&entry)))
            }
            TarError::Refused { entry: None, why } => reference.fail(why),
        };
        let mut files = BTreeMap::new();
        let mut tar = TarReader::new(Seeking(file));
        while let Some(entry) = tar.next().map_err(refused)? {
            let shown = String::from_utf8_lossy(&entry.path).into_owned();
            let fail = |why: String| reference.fail(format!("entry `{shown}`: {why}"));
            let parts = tree::parts(&entry.path).map_err(fail)?;
            let place = match entry.kind {
                kind if kind.is_file() || kind.is_contiguous() => {
                    Place::File { offset: entry.offset, size: entry.size }
                }
                kind if kind.is_hard_link() => Place::Link(tree::joined(&tree::parts(&entry.link).map_err(fail)?)),
                kind if kind.is_symlink() => match beside(&parts, &entry.link) {
                    Some(target) => Place::Link(target),
                    None => return Err(fail("its link leads out of the archive".into())),
                },
                kind if kind.is_dir() => continue,
                _ => return Err(fail("it is neither file, link nor directory".into())),
            };
            if files.insert(tree::joined(&parts), place).is_some() {
                return Err(fail("it stands twice in the archive".into()));
            }
            if files.len() > MOST_ENTRIES {
                return Err(reference.fail(format!("the archive has more than {MOST_ENTRIES} entries")));
            }
            // Content is passed over by seeking; what is promised beyond the end of the file shows when it is read.
            tar.content().skip().map_err(on("read", &path))?;
        }
        Ok(Self::Archive { path, files })
    }

    /// Opens a file by name; `None` if it is not there.
    pub(crate) fn file(&self, name: &str) -> Result<Option<(Box<dyn Read + Send>, u64)>> {
        match self {
            Self::Dir(dir) => {
                let path = dir.join(name);
                match File::open(&path) {
                    Ok(file) => {
                        let size = file.metadata().map_err(on("read", &path))?.len();
                        Ok(Some((Box::new(file), size)))
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(on("open", &path)(e)),
                }
            }
            Self::Archive { path, files } => {
                let mut name = name.as_bytes();
                for _ in 0..=MOST_LINKS {
                    match files.get(name) {
                        Some(Place::Link(target)) => name = target,
                        Some(Place::File { offset, size }) => {
                            let mut file = File::open(path).map_err(on("open", path))?;
                            file.seek(SeekFrom::Start(*offset)).map_err(on("read", path))?;
                            return Ok(Some((Box::new(file.take(*size)), *size)));
                        }
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads a short file whole.
    pub(crate) fn document(&self, reference: &Reference, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((content, size)) = self.file(name)? else { return Ok(None) };
        if size > LONGEST_DOCUMENT {
            return Err(reference.fail(format!("`{name}` has {size} bytes, more than {LONGEST_DOCUMENT}")));
        }
        let mut bytes = Vec::new();
        content.take(LONGEST_DOCUMENT).read_to_end(&mut bytes).map_err(on("read", &reference.path))?;
        Ok(Some(bytes))
    }
}

/// Unpacks an archive to a file in `staging`, which is gone with it.
fn unpack(
    reference: &Reference,
    file: File,
    packing: Packing,
    staging: &mut Staging<'_>,
    limits: &Limits,
) -> Result<PathBuf> {
    let packed = file.metadata().map_err(on("read", &reference.path))?.len();
    let allowed = limits.for_layer(packed, 0);
    let path = staging.fresh_path();
    let mut to = File::create_new(&path).map_err(on("create", &path))?;
    let broken = |e: io::Error| reference.fail(format!("it can't be unpacked: {e}"));
    let stream = packing.unpack(io::BufReader::with_capacity(256 << 10, file)).map_err(broken)?;
    let length = io::copy(&mut stream.take(allowed.saturating_add(1)), &mut to).map_err(broken)?;
    if length > allowed {
        return Err(reference.fail(format!("it unpacks to more than {allowed} bytes, from {packed}")));
    }
    Ok(path)
}

/// Returns where a link beside `parts` leads, or `None` if that is out of the archive.
fn beside(parts: &[std::ffi::OsString], target: &[u8]) -> Option<Vec<u8>> {
    let mut at: Vec<&[u8]> = match target.first() {
        Some(b'/') => return None,
        _ => parts[..parts.len().saturating_sub(1)].iter().map(|p| p.as_encoded_bytes()).collect(),
    };
    for step in target.split(|b| *b == b'/') {
        match step {
            b"" | b"." => {}
            b".." => drop(at.pop()?),
            name => at.push(name),
        }
    }
    Some(at.join(&b'/'))
}

/// A file whose content can be passed over without reading it.
pub(crate) struct Seeking(File);

impl Read for Seeking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl crate::archive::Content<'_, Seeking> {
    /// Passes over the content by seeking.
    fn skip(&mut self) -> io::Result<()> {
        let left = i64::try_from(self.left()).map_err(|_| io::Error::other("an entry is longer than any file"))?;
        self.stream().0.seek_relative(left)?;
        self.passed();
        Ok(())
    }
}
