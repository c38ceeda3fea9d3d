//! What the depot takes of manifests, and how layers are packed.

use basalt_model::manifest::{self, Descriptor, Document};

use crate::error::{Error, Result};

/// Media type of a layer that is not compressed.
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The annotation that holds a tag in an image layout (OCI image spec, "Annotations").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Reads a manifest or index. `said` is what its descriptor says it is, empty if nothing does.
///
/// # Errors
/// If it is none that is taken.
pub(crate) fn parse(what: &str, bytes: &[u8], said: &str) -> Result<Document> {
    manifest::parse(bytes, said).map_err(|error| refuse(what, error.0))
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
                layer: layer.digest.to_string(),
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
