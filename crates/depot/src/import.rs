//! Reading images from layouts and archives.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use basalt_model::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::config::{Config, architecture};
use crate::depot::Depot;
use crate::erofs;
use crate::error::{Error, Result, io};
use crate::layer::{self, Used};
use crate::limits::LONGEST_DOCUMENT;
use crate::manifest::{self, Descriptor, Document, Manifest, OCI_CONFIG, OCI_LAYER, Packing, REF_NAME};
use crate::mounts;
use crate::progress::{Progress, Reporting};
use crate::record::ImageRecord;
use crate::source::{Kind, Reference, Source};
use crate::staging::Staging;
use crate::tree;

/// The deepest nesting of indexes: a layout's own, and one for platforms; one more for who nests them needlessly.
const DEEPEST_INDEX: usize = 3;

impl Depot {
    /// Imports the image that `reference` names: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:TAG]`,
    /// and returns the digest of its manifest (for a Docker archive, of the OCI manifest made for it, always the same).
    /// Of several platforms, this machine's is taken.
    ///
    /// # Errors
    /// If there is no such image, or something of it is refused; then nothing of it stays in the depot.
    pub fn import(&self, reference: &str, progress: &dyn Progress) -> Result<Digest> {
        let reference = Reference::parse(reference)?;
        let source = Source::open(&reference)?;
        let mut staging = Staging::new(self.store())?;
        let found = match reference.kind {
            Kind::OciDir | Kind::OciArchive => oci(&reference, &source)?,
            Kind::DockerArchive => docker(&reference, &source, &mut staging, self, progress)?,
        };
        if self.store().read_record::<ImageRecord>("images", &found.digest)?.is_some() {
            return Ok(found.digest);
        }
        self.take(&reference.text, &found, &source, staging, progress)?;
        Ok(found.digest)
    }

    /// Takes a manifest's configuration and layers, makes the tree, and records the image.
    fn take(
        &self,
        origin: &str,
        found: &Found,
        source: &Source,
        mut staging: Staging<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let what = format!("configuration of image `{}`", found.digest);
        let descriptor = &found.manifest.config;
        let config_digest = descriptor.digest(&what)?;
        let config_path = fetch(source, &mut staging, &what, &config_digest, descriptor.size, true)?;
        let bytes = std::fs::read(&config_path).map_err(io("read", &config_path))?;
        let config = Config::parse(&what, &bytes)?;
        config.check_platform(&what)?;
        let diff_ids = config.diff_ids(&what)?;
        let layers = &found.manifest.layers;
        if diff_ids.len() != layers.len() {
            let why = format!("it names {} layers, and the manifest {}", diff_ids.len(), layers.len());
            return Err(manifest::refuse(&what, why));
        }
        staging.put_bytes(&found.bytes)?;

        let mut tree = tree::empty();
        let mut used = Used::default();
        let mut digests = Vec::new();
        for (i, (layer, diff_id)) in layers.iter().zip(&diff_ids).enumerate() {
            let digest = layer.digest("layer")?;
            let packing = Packing::of(layer)?;
            let what = format!("layer {}/{} {}", i + 1, layers.len(), digest.short());
            let path = fetch(source, &mut staging, &format!("layer `{digest}`"), &digest, layer.size, false)?;
            let file = File::open(&path).map_err(io("open", &path))?;
            let packed = Reporting::new(file, progress, &what, Some(layer.size));
            let stream = packing.unpack(BufReader::with_capacity(128 << 10, packed));
            let stream = stream.map_err(|e| Error::Layer { layer: digest.to_string(), why: e.to_string() })?;
            let mut hashing = Hashing { inner: stream, hasher: Sha256::new() };
            let name = digest.to_string();
            layer::apply(&name, &mut hashing, layer.size, &mut tree, &mut staging, self.limits(), &mut used)?;
            let unpacked = Digest::from_bytes(hashing.hasher.finalize().into());
            if unpacked != *diff_id {
                return Err(Error::Mismatch {
                    what: format!("layer `{digest}`, unpacked"),
                    expected: diff_id.to_string(),
                    found: unpacked.to_string(),
                });
            }
            digests.push(digest);
        }
        mounts::add_standard(&mut tree)?;
        let _lock = staging.commit()?;
        let erofs = erofs::write(self.store(), tree)?;
        let record = ImageRecord { erofs, config: config_digest, layers: digests, origin: origin.to_owned() };
        self.store().write_record("images", &found.digest, &record)
    }
}

/// A manifest that was found at a reference.
struct Found {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
}

/// Finds the manifest of a layout (OCI image spec, "Image Layout").
fn oci(reference: &Reference, source: &Source) -> Result<Found> {
    let layout = source.document(reference, "oci-layout")?;
    let layout = layout.ok_or_else(|| reference.fail("it is no OCI image layout: `oci-layout` is missing"))?;
    let version: Layout = serde_json::from_slice(&layout).map_err(|e| reference.fail(format!("`oci-layout`: {e}")))?;
    if version.image_layout_version != "1.0.0" {
        return Err(reference.fail(format!("image layout `{}` is not known", version.image_layout_version)));
    }
    let index = source.document(reference, "index.json")?;
    let index = index.ok_or_else(|| reference.fail("it is no OCI image layout: `index.json` is missing"))?;
    let Document::Index(entries) = manifest::parse("`index.json`", &index, "")? else {
        return Err(reference.fail("`index.json` is a manifest, not an index"));
    };
    let entry = choose(reference, entries)?;
    follow(reference, source, entry, DEEPEST_INDEX)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// Chooses an entry of a layout's index by tag, or the one that is there.
fn choose(reference: &Reference, entries: Vec<Descriptor>) -> Result<Descriptor> {
    let tags: Vec<&str> = entries.iter().filter_map(|e| e.annotations.get(REF_NAME).map(String::as_str)).collect();
    let known = if tags.is_empty() { "none has a tag".to_owned() } else { format!("tags: `{}`", tags.join("`, `")) };
    let found = match &reference.tag {
        Some(tag) => {
            let tags = |e: &Descriptor| e.annotations.get(REF_NAME).cloned().into_iter().collect();
            by_tag(entries.iter().map(tags), tag).map(|at| &entries[at])
        }
        None if entries.len() == 1 => Ok(&entries[0]),
        None => match entries.iter().filter(|e| fits(e)).collect::<Vec<_>>()[..] {
            [one] => Ok(one),
            _ => Err(format!("it holds {} images; say which with `:TAG`", entries.len())),
        },
    };
    found.cloned().map_err(|why| reference.fail(format!("{why} ({known})")))
}

/// Returns which image has `tag`: one of the tags in full, or the end of one (`v1` for `docker.io/shop/web:v1`).
fn by_tag(images: impl Iterator<Item = Vec<String>>, tag: &str) -> std::result::Result<usize, String> {
    let images: Vec<Vec<String>> = images.collect();
    let ends = |full: &String| full.strip_suffix(tag).is_some_and(|rest| rest.ends_with([':', '/']));
    if let Some(at) = images.iter().position(|tags| tags.iter().any(|full| full == tag)) {
        return Ok(at);
    }
    let all: Vec<usize> = (0..images.len()).filter(|at| images[*at].iter().any(ends)).collect();
    match all[..] {
        [one] => Ok(one),
        [] => Err(format!("it has no tag `{tag}`")),
        _ => Err(format!("several images have the tag `{tag}`; give it in full")),
    }
}

fn fits(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
}

/// Follows a descriptor to a manifest, through indexes for platforms.
fn follow(reference: &Reference, source: &Source, entry: Descriptor, depth: usize) -> Result<Found> {
    let what = format!("manifest `{}`", entry.digest);
    let digest = entry.digest(&what)?;
    if entry.size > LONGEST_DOCUMENT {
        return Err(manifest::refuse(&what, format!("it has {} bytes, more than {LONGEST_DOCUMENT}", entry.size)));
    }
    let bytes = source.document(reference, &blob_name(&digest))?;
    let bytes = bytes.ok_or_else(|| manifest::refuse(&what, "it is missing".to_owned()))?;
    let found = Digest::from_bytes(Sha256::digest(&bytes).into());
    if found != digest || bytes.len() as u64 != entry.size {
        let show = |digest: Digest, size| format!("{digest} of {size} bytes");
        return Err(Error::Mismatch {
            what,
            expected: show(digest, entry.size),
            found: show(found, bytes.len() as u64),
        });
    }
    match manifest::parse(&what, &bytes, &entry.media_type)? {
        Document::Manifest(manifest) => Ok(Found { digest, bytes, manifest }),
        Document::Index(_) if depth == 0 => Err(manifest::refuse(&what, "indexes are nested too deep".to_owned())),
        Document::Index(entries) => {
            let offered: Vec<String> = entries
                .iter()
                .filter_map(|e| e.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture)))
                .collect();
            let entry = entries.into_iter().find(fits).ok_or_else(|| {
                let why = format!("it has no image for linux/{} (it has: {})", architecture(), offered.join(", "));
                manifest::refuse(&what, why)
            })?;
            follow(reference, source, entry, depth - 1)
        }
    }
}

/// One image of a Docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image of a Docker archive and makes an OCI manifest for it: the configuration as it is, the layers unpacked.
fn docker(
    reference: &Reference,
    source: &Source,
    staging: &mut Staging<'_>,
    depot: &Depot,
    progress: &dyn Progress,
) -> Result<Found> {
    let bytes = source.document(reference, "manifest.json")?;
    let bytes = bytes.ok_or_else(|| reference.fail("it is no Docker archive: `manifest.json` is missing"))?;
    let images: Vec<DockerImage> =
        serde_json::from_slice(&bytes).map_err(|e| reference.fail(format!("`manifest.json`: {e}")))?;
    let image = choose_docker(reference, &images)?;
    let config = source.document(reference, &image.config)?;
    let config = config.ok_or_else(|| reference.fail(format!("`{}` is missing", image.config)))?;
    let what = format!("configuration `{}`", image.config);
    let diff_ids = Config::parse(&what, &config)?.diff_ids(&what)?;
    if diff_ids.len() != image.layers.len() {
        let why = format!("it names {} layers, and `manifest.json` {}", diff_ids.len(), image.layers.len());
        return Err(manifest::refuse(&what, why));
    }
    let config_digest = staging.put_bytes(&config)?;
    let mut layers = Vec::new();
    let mut unpacked = 0;
    for (name, diff_id) in image.layers.iter().zip(&diff_ids) {
        let missing = || reference.fail(format!("layer `{name}` is missing"));
        let size = match staging.find_blob(diff_id) {
            Some(path) => std::fs::metadata(&path).map_err(io("read", &path))?.len(),
            None => {
                let (content, packed) = source.file(name)?.ok_or_else(missing)?;
                let bytes = Reporting::new(content, progress, name, Some(packed));
                let allowed = depot.limits().for_layer(packed, unpacked);
                unpack_blob(name, bytes, diff_id, allowed, staging)?
            }
        };
        unpacked += size;
        layers.push(Descriptor::new(OCI_LAYER, *diff_id, size));
    }
    let manifest = Manifest::new(Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64), layers);
    let bytes = basalt_model::canonical_bytes(&manifest);
    Ok(Found { digest: Digest::from_bytes(Sha256::digest(&bytes).into()), bytes, manifest })
}

fn choose_docker<'a>(reference: &Reference, images: &'a [DockerImage]) -> Result<&'a DockerImage> {
    let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let all = images.iter().flat_map(tags).collect::<Vec<_>>().join("`, `");
    let found = match (&reference.tag, images) {
        (None, [one]) => Ok(one),
        (None, _) => Err(format!("it holds {} images; say which with `:NAME:TAG`", images.len())),
        (Some(tag), _) => by_tag(images.iter().map(tags), tag).map(|at| &images[at]),
    };
    found.map_err(|why| reference.fail(format!("{why} (tags: `{all}`)")))
}

/// Stores a layer of a Docker archive unpacked, however it is packed there, and returns its size.
fn unpack_blob(
    name: &str,
    content: impl Read,
    diff_id: &Digest,
    allowed: u64,
    staging: &mut Staging<'_>,
) -> Result<u64> {
    let fail = |why: String| Error::Layer { layer: name.to_owned(), why };
    let mut content = BufReader::with_capacity(128 << 10, content);
    let magic = std::io::BufRead::fill_buf(&mut content).map_err(|e| fail(e.to_string()))?;
    let packing = Packing::by_magic(magic);
    let stream = packing.unpack(content).map_err(|e| fail(e.to_string()))?;
    let path = staging.fresh_path();
    let (digest, size) =
        crate::staging::copy_hashed(stream.take(allowed.saturating_add(1)), &path).map_err(|e| fail(e.to_string()))?;
    if size > allowed {
        return Err(fail(format!("it unpacks to more than {allowed} bytes")));
    }
    if digest != *diff_id {
        return Err(Error::Mismatch {
            what: format!("layer `{name}`"),
            expected: diff_id.to_string(),
            found: digest.to_string(),
        });
    }
    staging.adopt_blob(path, digest);
    Ok(size)
}

/// Brings a blob into staging, checked, and returns where it lies.
fn fetch(
    source: &Source,
    staging: &mut Staging<'_>,
    what: &str,
    digest: &Digest,
    size: u64,
    document: bool,
) -> Result<std::path::PathBuf> {
    if document && size > LONGEST_DOCUMENT {
        return Err(manifest::refuse(what, format!("it has {size} bytes, more than {LONGEST_DOCUMENT}")));
    }
    if let Some(path) = staging.find_blob(digest) {
        check_size(what, &path, size)?;
        return Ok(path);
    }
    let (content, _) =
        source.file(&blob_name(digest))?.ok_or_else(|| manifest::refuse(what, "it is missing".to_owned()))?;
    staging.put_blob(what, content, digest, size)
}

fn check_size(what: &str, path: &Path, size: u64) -> Result<()> {
    let found = std::fs::metadata(path).map_err(io("read", path))?.len();
    if found == size {
        return Ok(());
    }
    Err(Error::Mismatch { what: what.to_owned(), expected: format!("{size} bytes"), found: format!("{found} bytes") })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
