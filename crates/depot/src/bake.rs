//! Baking: from files of this machine to an image that is the same, bit for bit, wherever it is baked.
//!
//! The layer is stored unpacked: compressed bytes differ between versions of a compressor, and with them the digest of
//! the image would. Nothing of the machine goes in: no clock, no owners, no permission bits but "executable".

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use basalt_model::{Bake, BakeFrom, Digest, ImageConfig, digest_of};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::config::{self, Config, Process, RootFs, architecture};
use crate::depot::Depot;
use crate::erofs;
use crate::error::{Error, Result, io as on};
use crate::layer::{self, Used};
use crate::manifest::{self, Descriptor, Document, Manifest, OCI_CONFIG, OCI_LAYER};
use crate::mounts;
use crate::progress::Progress;
use crate::record::ImageRecord;
use crate::staging::Staging;
use crate::tree::{self, Tree};
use crate::walk::{Content, Put, Puts, walk};

/// What a bake's inputs are hashed with; counted up whenever the same inputs would give another image than before.
const RECIPE: &str = "basalt bake 1";

/// When a baked image was made, as far as it says (OCI image spec, "created"): fixed, for the same bytes anywhere.
const CREATED: &str = "1970-01-01T00:00:00Z";

impl Depot {
    /// Bakes an image over `from` (an image of this depot, which `bake.from` must ask for) or from scratch, and returns
    /// the digest of its manifest. The same inputs give the same digest on any machine of the same architecture, and
    /// are baked only once.
    ///
    /// # Errors
    /// If a step can't be done (the error names the step and the path), or the depot can't be written. Then nothing
    /// half-made stays.
    pub fn bake(&self, bake: &Bake, from: Option<&Digest>, progress: &dyn Progress) -> Result<Digest> {
        config::check(&bake.config)?;
        match (&bake.from, from) {
            (BakeFrom::Scratch, None) | (BakeFrom::Image(_), Some(_)) => {}
            (BakeFrom::Scratch, Some(_)) => {
                return Err(Error::BakeSays("it starts from scratch, not from an image".into()));
            }
            (BakeFrom::Image(_), None) => return Err(Error::BakeSays("the image it starts from was not given".into())),
        }
        let mut staging = Staging::new(self.store())?;
        let base = match from {
            Some(digest) => self.base(digest)?,
            None => Base::scratch(),
        };
        let puts = walk(&bake.steps, &mut base.tree.clone(), self.limits(), progress)?;
        let key = key(from, &bake.config, &base.architecture, &puts);
        if let Some(digest) = self.store().read_record::<Digest>("bakes", &key)?
            && self.is_whole(&digest)?
        {
            return Ok(digest);
        }

        let Base { mut tree, mut layers, mut diff_ids, .. } = base;
        if !puts.all.is_empty() {
            let (path, digest, size) = write_layer(&puts, &mut staging, progress)?;
            let file = File::open(&path).map_err(on("open", &path))?;
            let (name, mut used) = (digest.to_string(), Used::default());
            layer::apply(&name, file, size, &mut tree, &mut staging, self.limits(), &mut used)?;
            staging.adopt_blob(path, digest);
            layers.push(Descriptor::new(OCI_LAYER, digest, size));
            diff_ids.push(digest.to_string());
        }
        mounts::add_standard(&mut tree)?;

        let config = Config {
            created: Some(CREATED.to_owned()),
            architecture: base.architecture,
            os: "linux".to_owned(),
            config: Some(Process::over(&base.process, &bake.config)),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        };
        let config = basalt_model::canonical_bytes(&config);
        let config_digest = staging.put_bytes(&config)?;
        let manifest = Manifest::new(Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64), layers);
        let digest = staging.put_bytes(&basalt_model::canonical_bytes(&manifest))?;
        let layers = manifest.layers.iter().map(|layer| layer.digest("layer")).collect::<Result<_>>()?;

        let _lock = staging.commit()?;
        let erofs = erofs::write(self.store(), tree)?;
        let record = ImageRecord { erofs, config: config_digest, layers, origin: "bake".to_owned() };
        self.store().write_record("images", &digest, &record)?;
        self.store().write_record("bakes", &key, &digest)?;
        Ok(digest)
    }

    /// Returns what a bake starts from.
    fn base(&self, digest: &Digest) -> Result<Base> {
        let record = self.record(digest)?;
        let (manifest, config) = self.documents(digest, &record)?;
        let mut layers = manifest.layers;
        for layer in &mut layers {
            layer.media_type = manifest::Packing::of(layer)?.media_type().to_owned();
        }
        Ok(Base {
            tree: erofs::read(self.store(), &record.erofs)?,
            layers,
            process: config.process(),
            architecture: config.architecture,
            diff_ids: config.rootfs.diff_ids,
        })
    }

    /// Returns an image's manifest and configuration.
    pub(crate) fn documents(&self, digest: &Digest, record: &ImageRecord) -> Result<(Manifest, Config)> {
        let read = |digest: &Digest| {
            let path = self.store().blob(digest);
            fs::read(&path).map_err(on("read", &path))
        };
        let what = format!("manifest `{digest}`");
        let Document::Manifest(manifest) = manifest::parse(&what, &read(digest)?, "")? else {
            return Err(manifest::refuse(&what, "it is an index".to_owned()));
        };
        Ok((manifest, Config::parse(&format!("configuration `{}`", record.config), &read(&record.config)?)?))
    }
}

/// What a bake starts from.
struct Base {
    tree: Tree,
    layers: Vec<Descriptor>,
    diff_ids: Vec<String>,
    process: ImageConfig,
    architecture: String,
}

impl Base {
    fn scratch() -> Self {
        Self {
            tree: tree::empty(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            process: ImageConfig::default(),
            architecture: architecture().to_owned(),
        }
    }
}

/// Returns the digest of everything that decides what a bake gives.
fn key(from: Option<&Digest>, config: &ImageConfig, architecture: &str, puts: &Puts) -> Digest {
    let puts: Vec<(String, &Put)> = puts.all.iter().map(|(path, put)| (path.escape_ascii().to_string(), put)).collect();
    digest_of(&(RECIPE, from, config, architecture, puts))
}

/// Writes the layer of a bake and returns where it waits, its digest and its size.
fn write_layer(puts: &Puts, staging: &mut Staging<'_>, progress: &dyn Progress) -> Result<(PathBuf, Digest, u64)> {
    let path = staging.fresh_path();
    let file = File::create_new(&path).map_err(on("create", &path))?;
    let mut tar =
        Builder::new(Hashed { inner: BufWriter::with_capacity(128 << 10, file), hasher: Sha256::new(), size: 0 });
    let total = puts.all.values().map(|put| if let Put::File { size, .. } = put { *size } else { 0 }).sum();
    let mut done = 0;
    for (place, put) in &puts.all {
        let step = puts.step.get(place).copied().unwrap_or_default();
        let shown = place.escape_ascii().to_string();
        let fail = |why: String| Error::Bake { step, path: format!("/{shown}"), why };
        append(&mut tar, place, put).map_err(|e| fail(e.to_string()))?;
        if let Put::File { size, .. } = put {
            done += size;
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

fn append(tar: &mut Builder<impl Write>, place: &[u8], put: &Put) -> io::Result<()> {
    let place = Path::new(std::ffi::OsStr::from_bytes(place));
    let mut header = Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match put {
        Put::Dir => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, place, io::empty())
        }
        Put::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            // The target as it is, where the header has room for it: the other way may tidy it.
            match header.set_link_name_literal(target) {
                Ok(()) => tar.append_data(&mut header, place, io::empty()),
                Err(_) => tar.append_link(&mut header, place, target),
            }
        }
        Put::File { mode, size, digest, content } => {
            header.set_entry_type(EntryType::Regular);
            header.set_mode(*mode);
            header.set_size(*size);
            let content: Box<dyn Read> = match content {
                Content::Here(path) => Box::new(File::open(path)?),
                Content::Text(text) => Box::new(text.as_bytes()),
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
