//! What the depot tells people of its images.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use basalt_model::{Digest, ImageConfig};
use serde::Serialize;

use crate::depot::Depot;
use crate::error::{Result, io};
use crate::record::ImageRecord;
use crate::verify::objects_of;

/// An image in the depot, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Where it came from: the reference it was imported by, or `bake`.
    pub origin: String,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of its layers as they are stored (packed where they came packed).
    pub bytes: u64,
    /// When it was last baked, imported, started or asked for.
    pub used_at: SystemTime,
}

/// All that is known of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDetails {
    /// As in the list.
    pub info: ImageInfo,
    /// Its platform, as `os/architecture`.
    pub platform: String,
    /// What it says about running it.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<LayerInfo>,
    /// How many different files it has whose content is not in the tree itself.
    pub objects: usize,
    /// Bytes of these files.
    pub unpacked: u64,
    /// Bytes of these files that no other image here has.
    pub own: u64,
}

/// A layer as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its media type (OCI image spec, "Media Types").
    pub media_type: String,
    /// Bytes.
    pub bytes: u64,
}

impl Depot {
    /// Returns all images, sorted by digest.
    ///
    /// # Errors
    /// If the depot can't be read.
    pub fn images(&self) -> Result<Vec<ImageInfo>> {
        let _lock = self.store().lock()?;
        let mut images = Vec::new();
        for digest in self.store().keys("images")? {
            if let Some(record) = self.store().read_record("images", &digest)? {
                images.push(self.info(&digest, &record)?);
            }
        }
        Ok(images)
    }

    /// Returns the image that `name` names: its digest, or the beginning of it (with or without `sha256:`).
    ///
    /// # Errors
    /// If there is none, or there are several (the error names them), or the depot can't be read.
    pub fn find(&self, name: &str) -> Result<Digest> {
        let fail = |why: String| crate::error::Error::Reference { reference: name.to_owned(), why };
        let start = name.strip_prefix("sha256:").unwrap_or(name);
        if start.is_empty() {
            return Err(fail("give the beginning of an image's digest".into()));
        }
        let digests = self.store().keys("images")?.into_iter();
        let found: Vec<Digest> = digests.filter(|digest| digest.to_hex().starts_with(start)).collect();
        match found[..] {
            [one] => Ok(one),
            [] => Err(fail("no image here has a digest that begins so; see `basalt image list`".into())),
            _ => {
                let all: Vec<String> = found.iter().map(ToString::to_string).collect();
                Err(fail(format!("several images begin so: {}", all.join(", "))))
            }
        }
    }

    /// Returns all that is known of one image.
    ///
    /// # Errors
    /// If it is not here or can't be read.
    pub fn inspect(&self, digest: &Digest) -> Result<ImageDetails> {
        let _lock = self.store().lock()?;
        let record = self.record(digest)?;
        let (manifest, config) = self.documents(digest, &record)?;
        let layers = manifest.layers.iter().map(|layer| LayerInfo {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            bytes: layer.size,
        });
        let objects = objects_of(self.store(), &record.erofs)?;
        let mut others = BTreeSet::new();
        for other in self.store().keys("images")?.iter().filter(|other| *other != digest) {
            if let Some(other) = self.store().read_record::<ImageRecord>("images", other)? {
                others.extend(objects_of(self.store(), &other.erofs)?);
            }
        }
        let size = |path: &PathBuf| fs::metadata(path).map(|meta| meta.len()).map_err(io("read", path));
        let (mut unpacked, mut own) = (0, 0);
        for object in &objects {
            let bytes = size(object)?;
            unpacked += bytes;
            own += if others.contains(object) { 0 } else { bytes };
        }
        Ok(ImageDetails {
            info: self.info(digest, &record)?,
            platform: format!("{}/{}", config.os, config.architecture),
            config: config.process(),
            layers: layers.collect(),
            objects: objects.len(),
            unpacked,
            own,
        })
    }

    fn info(&self, digest: &Digest, record: &ImageRecord) -> Result<ImageInfo> {
        // A layer that is missing is for `verify` to name.
        let size = |layer| fs::metadata(self.store().blob(layer)).map_or(0, |meta| meta.len());
        let bytes = record.layers.iter().map(size).sum();
        let used_at = self.store().used_at("images", digest)?.unwrap_or(SystemTime::UNIX_EPOCH);
        let (origin, layers) = (record.origin.clone(), record.layers.len());
        Ok(ImageInfo { digest: *digest, origin, layers, bytes, used_at })
    }
}
