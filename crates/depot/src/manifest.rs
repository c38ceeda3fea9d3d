//! Manifests and indexes (OCI image spec, "Image Manifest" and "Image Index"; Docker image manifest v2, schema 2).

use std::collections::BTreeMap;

use basalt_model::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::limits::MOST_LAYERS;

/// Media type of an OCI manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI configuration.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer that is not compressed.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The annotation that holds a tag in an image layout (OCI image spec, "Annotations").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Points to content (OCI image spec, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Returns the digest, which must be SHA-256.
    pub(crate) fn digest(&self, what: &str) -> Result<Digest> {
        self.digest.parse().map_err(|e: basalt_model::InvalidDigest| refuse(what, e.to_string()))
    }
}

/// What an image of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

/// A manifest that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// Returns an OCI manifest of these parts.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers }
    }
}

/// Either kind of document.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// Every field that tells the kinds apart, so that a document that is both at once is seen as such. A field that
/// stands twice is refused by serde.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or index. `media_type` is what its descriptor says it is, empty if nothing does.
///
/// # Errors
/// If it is malformed, or says of itself that it is of another kind than its descriptor says or its fields show: one
/// document must not be two images for two readers (CVE-2021-41190).
pub(crate) fn parse(what: &str, bytes: &[u8], media_type: &str) -> Result<Document> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| refuse(what, format!("it is malformed: {e}")))?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(refuse(what, "its schema version is not 2".to_owned()));
    }
    let own = raw.media_type.as_deref().unwrap_or_default();
    let said = match (own, media_type) {
        ("", said) | (said, "") => said,
        (own, said) if own == said => said,
        (own, said) => return Err(refuse(what, format!("it says it is `{own}`, but is referred to as `{said}`"))),
    };
    let is_index = match said {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        "" => raw.manifests.is_some(),
        other => return Err(refuse(what, format!("media type `{other}` is neither an image manifest nor an index"))),
    };
    match (is_index, raw.manifests, raw.config, raw.layers) {
        (true, Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (false, None, Some(config), Some(layers)) => {
            match config.media_type.as_str() {
                OCI_CONFIG | DOCKER_CONFIG => {}
                other => return Err(refuse(what, format!("its configuration is `{other}`: it is no container image"))),
            }
            if layers.len() > MOST_LAYERS {
                return Err(refuse(what, format!("it has {} layers, more than {MOST_LAYERS}", layers.len())));
            }
            let media_type = if said.is_empty() { OCI_MANIFEST } else { said };
            Ok(Document::Manifest(Manifest { schema_version: 2, media_type: media_type.to_owned(), config, layers }))
        }
        _ => Err(refuse(what, "its fields are those of a manifest and of an index at once, or of neither".to_owned())),
    }
}

/// How the content of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// Returns the packing that a layer's media type names.
    pub(crate) fn of(layer: &Descriptor) -> Result<Self> {
        match layer.media_type.as_str() {
            OCI_LAYER
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Self::Zstd),
            other => Err(Error::Layer {
                layer: layer.digest.clone(),
                why: format!("media type `{other}` is not a tar layer, plain or packed with gzip or zstd"),
            }),
        }
    }

    /// Returns the OCI media type of a layer packed so.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::None => OCI_LAYER,
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Returns the packing that a file's first bytes show.
    pub(crate) fn by_magic(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Unpacks a stream, in process.
    pub(crate) fn unpack<'a>(self, stream: impl std::io::Read + 'a) -> std::io::Result<Box<dyn std::io::Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(stream),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(stream)),
            // The decoder refuses windows above 128 MiB by itself, which bounds its memory.
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(stream)?),
        })
    }
}

pub(crate) fn refuse(what: &str, why: String) -> Error {
    Error::Document { what: what.to_owned(), why }
}
