//! Reading images from layouts, archives and bare roots.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use basalt_model::Digest;
use basalt_model::manifest::{Descriptor, Manifest, OCI_CONFIG};
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::depot::Depot;
use crate::erofs;
use crate::error::{Error, Result, io as on};
use crate::feed::{Feed, Stored, feed};
use crate::layer::{self, Used};
use crate::layout::{self, Found, blob_name};
use crate::manifest::{self, OCI_LAYER, Packing};
use crate::mounts;
use crate::progress::{Progress, Reporting};
use crate::record::ImageRecord;
use crate::source::{Kind, Reference, Source};
use crate::staging::Staging;
use crate::tree::{self, Tree};
use crate::{docker, rootfs};

impl Depot {
    /// Imports the image that `reference` names and returns the digest of its manifest:
    ///
    /// - `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`: the manifest as it is; of several platforms, this machine's;
    /// - `docker-archive:FILE[:TAG]`: an OCI manifest made for it, the same whoever wrote the archive and however it or
    ///   its layers are packed;
    /// - `dir:DIR` and `tar:FILE`: a bare root, as an image of one layer.
    ///
    /// Archives may be packed as a whole with gzip or zstd.
    ///
    /// # Errors
    /// If there is no such image, or something of it is refused; then nothing of it stays in the depot.
    pub fn import(&self, reference: &str, progress: &dyn Progress) -> Result<Digest> {
        let reference = Reference::parse(reference)?;
        let mut intake = Intake::new(self, progress)?;
        match reference.kind {
            Kind::OciDir | Kind::OciArchive => {
                let source = Source::open(&reference, &mut intake.staging, self.limits())?;
                let found = layout::find(&reference, &source)?;
                if self.is_whole(&found.digest)? {
                    return Ok(found.digest);
                }
                intake.oci(&source, &found)?;
                intake.record(&reference.text, found)
            }
            Kind::DockerArchive => {
                let source = Source::open(&reference, &mut intake.staging, self.limits())?;
                let image = docker::find(&reference, &source)?;
                if let Some(digest) = intake.known(&image)? {
                    return Ok(digest);
                }
                let found = intake.docker(&reference, &source, &image)?;
                intake.record(&reference.text, found)
            }
            Kind::RootDir | Kind::RootTar => {
                let found = intake.root(&reference)?;
                if self.is_whole(&found.digest)? {
                    return Ok(found.digest);
                }
                intake.record(&reference.text, found)
            }
        }
    }

    /// Lays the layers of an image of this depot once more, and puts in their places what of it is missing.
    pub(crate) fn rebuild(&self, digest: &Digest, record: &ImageRecord, progress: &dyn Progress) -> Result<()> {
        let (manifest, config) = self.documents(digest, record)?;
        let diff_ids = config.diff_ids(&format!("configuration `{}`", record.config))?;
        let mut intake = Intake::new(self, progress)?;
        intake.layers(None, &manifest, &diff_ids)?;
        let Intake { mut tree, mut staging, .. } = intake;
        mounts::add_standard(&mut tree)?;
        staging.keep_only(&mut tree);
        let _lock = staging.commit()?;
        let erofs = erofs::write(self.store(), tree)?;
        if erofs != record.erofs {
            self.store().write_record("images", digest, &ImageRecord { erofs, ..record.clone() })?;
        }
        Ok(())
    }
}

/// An image being taken in.
pub(crate) struct Intake<'a> {
    depot: &'a Depot,
    progress: &'a dyn Progress,
    pub(crate) staging: Staging<'a>,
    tree: Tree,
    used: Used,
    layers: Vec<Digest>,
}

/// A layer being taken in.
struct Incoming<'a> {
    /// What it is called in errors: its digest, or its name in the archive.
    name: &'a str,
    content: Box<dyn Read + Send>,
    /// Bytes as it comes.
    length: u64,
    packing: Option<Packing>,
    /// The digest that was promised for it as it comes.
    digest: Option<Digest>,
    /// The digest that was promised for it unpacked.
    diff_id: Option<Digest>,
    store: Stored,
}

impl<'a> Intake<'a> {
    fn new(depot: &'a Depot, progress: &'a dyn Progress) -> Result<Self> {
        let staging = Staging::new(depot.store())?;
        Ok(Self { depot, progress, staging, tree: tree::empty(), used: Used::default(), layers: Vec::new() })
    }

    /// Takes an OCI image's configuration and layers.
    fn oci(&mut self, source: &Source, found: &Found) -> Result<()> {
        let what = format!("configuration of image `{}`", found.digest);
        let descriptor = &found.manifest.config;
        let digest = descriptor.digest;
        let path = match self.staging.find_blob(&digest) {
            Some(path) => check_size(&what, path, descriptor.size)?,
            None => {
                let content = blob(source, &what, &digest)?;
                self.staging.put_blob(&what, content, &digest, descriptor.size)?
            }
        };
        let bytes = std::fs::read(&path).map_err(on("read", &path))?;
        let config = Config::parse(&what, &bytes)?;
        config.check_platform(&what)?;
        self.layers(Some(source), &found.manifest, &config.diff_ids(&what)?)
    }

    /// Lays the layers of a manifest, from the depot where it has them.
    fn layers(&mut self, source: Option<&Source>, manifest: &Manifest, diff_ids: &[Digest]) -> Result<()> {
        let layers = &manifest.layers;
        if diff_ids.len() != layers.len() {
            let why = format!("it names {} layers, and the manifest {}", diff_ids.len(), layers.len());
            return Err(manifest::refuse(&format!("configuration `{}`", manifest.config.digest), why));
        }
        for (i, (layer, diff_id)) in layers.iter().zip(diff_ids).enumerate() {
            let digest = layer.digest;
            let (what, name) = (format!("layer `{digest}`"), digest.to_string());
            let (content, store): (Box<dyn Read + Send>, _) = match (self.staging.find_blob(&digest), source) {
                (Some(path), _) => {
                    let path = check_size(&what, path, layer.size)?;
                    (Box::new(File::open(&path).map_err(on("open", &path))?), Stored::Already)
                }
                (None, Some(source)) => (blob(source, &what, &digest)?, Stored::Packed(self.staging.fresh_path())),
                (None, None) => return Err(manifest::refuse(&what, "it is missing".to_owned())),
            };
            let incoming = Incoming {
                name: &name,
                content,
                length: layer.size,
                packing: Some(Packing::of(layer)?),
                digest: Some(digest),
                diff_id: Some(*diff_id),
                store,
            };
            self.lay(&format!("layer {}/{} {}", i + 1, layers.len(), digest.short()), incoming)?;
            self.layers.push(digest);
        }
        Ok(())
    }

    /// Returns the digest of a Docker archive's image if all of it is here: then its layers need not be read.
    fn known(&self, image: &docker::Image) -> Result<Option<Digest>> {
        let mut layers = Vec::new();
        for diff_id in &image.diff_ids {
            let path = self.depot.store().blob(diff_id);
            let Ok(meta) = std::fs::metadata(&path) else { return Ok(None) };
            layers.push(Descriptor::new(OCI_LAYER, *diff_id, meta.len()));
        }
        let config = Digest::from_bytes(Sha256::digest(&image.config).into());
        let found = made(config, image.config.len(), layers);
        Ok(if self.depot.is_whole(&found.digest)? { Some(found.digest) } else { None })
    }

    /// Takes a Docker archive's image: the configuration as it is, the layers unpacked.
    fn docker(&mut self, reference: &Reference, source: &Source, image: &docker::Image) -> Result<Found> {
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let missing = || reference.fail(format!("layer `{name}` is missing"));
            let (content, length): (Box<dyn Read + Send>, u64);
            let store = match self.staging.find_blob(diff_id) {
                Some(path) => {
                    let file = File::open(&path).map_err(on("open", &path))?;
                    length = file.metadata().map_err(on("read", &path))?.len();
                    content = Box::new(file);
                    Stored::Already
                }
                None => {
                    (content, length) = source.file(name)?.ok_or_else(missing)?;
                    Stored::Unpacked(self.staging.fresh_path())
                }
            };
            let diff_id = Some(*diff_id);
            let incoming = Incoming { name, content, length, packing: None, digest: None, diff_id, store };
            let laid = self.lay(name, incoming)?;
            layers.push(Descriptor::new(OCI_LAYER, laid.0, laid.1));
            self.layers.push(laid.0);
        }
        let config = self.staging.put_bytes(&image.config)?;
        Ok(made(config, image.config.len(), layers))
    }

    /// Takes a bare root.
    fn root(&mut self, reference: &Reference) -> Result<Found> {
        let path = reference.existing()?;
        let (file, packing, store) = if reference.kind == Kind::RootDir {
            let layer = self.staging.fresh_path();
            rootfs::write_layer(&path, &layer, self.depot.limits(), self.progress)?;
            let file = File::open(&layer).map_err(on("open", &layer))?;
            // It was written where unpacked layers wait, and stays there.
            (file, Packing::None, Some(layer))
        } else {
            let (file, packing) = reference.packed(&path)?;
            (file, packing, None)
        };
        let length = file.metadata().map_err(on("read", &path))?.len();
        let fresh = self.staging.fresh_path();
        let incoming = Incoming {
            name: &reference.text,
            content: Box::new(file),
            length,
            packing: Some(packing),
            digest: None,
            diff_id: None,
            store: if store.is_some() { Stored::Already } else { Stored::Unpacked(fresh) },
        };
        let (digest, size) = self.lay(&format!("read {}", path.display()), incoming)?;
        if let Some(layer) = store {
            self.staging.adopt_blob(layer, digest);
        }
        self.layers.push(digest);
        let config = basalt_model::canonical_bytes(&rootfs::config(&digest));
        let config_digest = self.staging.put_bytes(&config)?;
        Ok(made(config_digest, config.len(), vec![Descriptor::new(OCI_LAYER, digest, size)]))
    }

    /// Takes in one layer, and returns its digest and length unpacked.
    fn lay(&mut self, shown: &str, incoming: Incoming<'_>) -> Result<(Digest, u64)> {
        let Incoming { name, content, length, packing, digest, diff_id, store } = incoming;
        let (packed_to, unpacked_to) = match &store {
            Stored::Already => (None, None),
            Stored::Packed(path) => (Some(path.clone()), None),
            Stored::Unpacked(path) => (None, Some(path.clone())),
        };
        let content = Box::new(Reporting::new(content, self.progress, shown, Some(length)));
        let (tree, staging, used, limits) = (&mut self.tree, &mut self.staging, &mut self.used, self.depot.limits());
        let allowed = limits.for_layer(length, used.bytes);
        let feeding = Feed { content, packing, store, most: length.saturating_add(1) };
        let (packed, (laid, unpacked)) = feed(feeding, |stream| {
            let mut hashing = Hashing { inner: stream, hasher: Sha256::new(), length: 0 };
            let laid = layer::apply(name, &mut hashing, length, tree, staging, limits, used);
            // Content that can't be laid may not be what was promised, and then that is said. Too much is too much.
            let whole = laid.is_ok() || {
                let rest = io::copy(&mut (&mut hashing).take(allowed), &mut io::sink());
                rest.is_ok() && hashing.length < allowed
            };
            let found = Digest::from_bytes(hashing.hasher.finalize().into());
            (laid, whole.then_some((found, hashing.length)))
        });
        let whole = |why: String| Error::Layer { layer: name.to_owned(), why };
        let packed = packed.map_err(|e| whole(format!("it can't be taken in: {e}")))?;
        let mismatch = |what: &str, expected: String, found: String| Error::Mismatch {
            what: format!("layer `{name}`{what}"),
            expected,
            found,
        };
        if let (Some(expected), Some(found)) = (digest, packed.digest) {
            if packed.length != length {
                let more = packed.length > length;
                let found = if more { "more".to_owned() } else { format!("{} bytes", packed.length) };
                return Err(mismatch("", format!("{length} bytes"), found));
            }
            if found != expected {
                return Err(mismatch("", expected.to_string(), found.to_string()));
            }
        }
        if let (Some(expected), Some((found, _))) = (diff_id, unpacked)
            && found != expected
        {
            return Err(mismatch(", unpacked", expected.to_string(), found.to_string()));
        }
        laid?;
        let (found, size) = unpacked.ok_or_else(|| whole("it was not read to its end".to_owned()))?;
        if let (Some(path), Some(digest)) = (packed_to, digest) {
            self.staging.adopt_blob(path, digest);
        }
        if let Some(path) = unpacked_to {
            self.staging.adopt_blob(path, found);
        }
        Ok((found, size))
    }

    /// Puts everything in its place and records the image.
    fn record(self, origin: &str, found: Found) -> Result<Digest> {
        let Self { depot, mut staging, mut tree, layers, .. } = self;
        let config = found.manifest.config.digest;
        staging.put_bytes(&found.bytes)?;
        mounts::add_standard(&mut tree)?;
        staging.keep_only(&mut tree);
        let _lock = staging.commit()?;
        let erofs = erofs::write(depot.store(), tree)?;
        let record = ImageRecord { erofs, config, layers, origin: origin.to_owned() };
        depot.store().write_record("images", &found.digest, &record)?;
        Ok(found.digest)
    }
}

/// Returns the manifest that is made for an image that comes without one.
fn made(config: Digest, length: usize, layers: Vec<Descriptor>) -> Found {
    let manifest = Manifest::new(Descriptor::new(OCI_CONFIG, config, length as u64), layers);
    let bytes = basalt_model::canonical_bytes(&manifest);
    Found { digest: Digest::from_bytes(Sha256::digest(&bytes).into()), bytes, manifest }
}

/// Opens a blob of a layout.
fn blob(source: &Source, what: &str, digest: &Digest) -> Result<Box<dyn Read + Send>> {
    let found = source.file(&blob_name(digest))?;
    found.map(|(content, _)| content).ok_or_else(|| manifest::refuse(what, "it is missing".to_owned()))
}

fn check_size(what: &str, path: PathBuf, size: u64) -> Result<PathBuf> {
    let found = std::fs::metadata(&path).map_err(on("read", &path))?.len();
    if found == size {
        return Ok(path);
    }
    Err(Error::Mismatch { what: what.to_owned(), expected: format!("{size} bytes"), found: format!("{found} bytes") })
}

/// Hashes and counts what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    length: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.length += n as u64;
        Ok(n)
    }
}
