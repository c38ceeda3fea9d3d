//! Image manifests and indexes (OCI image spec, "Image Manifest" and "Image Index"; Docker image manifest v2, schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a Docker manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The longest manifest, index or configuration: 4 MiB (OCI distribution spec, "Pushing Manifests").
pub const LONGEST_DOCUMENT: u64 = 4 << 20;

/// The most layers: no file system driver takes more than a few hundred, and the largest images have 127.
pub const MOST_LAYERS: usize = 1000;

/// The most images of an index.
const MOST_IMAGES: usize = 1000;

/// Points to content (OCI image spec, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is; empty if nothing says so.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What an image of an index is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Returns a descriptor that says no more than it has to.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

/// What an image of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system, as in Go's GOOS.
    pub os: String,
    /// The processor, as in Go's GOARCH.
    pub architecture: String,
    /// Which kind of that processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    pub media_type: String,
    /// What the image says about running it.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Returns an OCI manifest of these parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers }
    }
}

/// Either kind of document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images to choose from.
    Index(Vec<Descriptor>),
}

/// Why a text is no manifest or index that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidManifest(pub String);

/// Every field that tells the kinds apart, so that a document that is both at once is seen as such. A field that stands
/// twice is refused by serde.
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

/// Reads a manifest or index. `said` is the media type that its descriptor or the registry gives it, empty if nothing does.
///
/// # Errors
/// If it is malformed, too large, no container image, or says of itself that it is of another kind than `said` or than its
/// fields show: one document must not be two images for two readers (CVE-2021-41190).
pub fn parse(bytes: &[u8], said: &str) -> Result<Document, InvalidManifest> {
    let refuse = |why: String| Err(InvalidManifest(why));
    let raw: Raw = match serde_json::from_slice(bytes) {
        Ok(raw) => raw,
        Err(error) => return refuse(format!("it is malformed: {error}")),
    };
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return refuse("its schema version is not 2; writing the image again with a current tool mends that".into());
    }
    let own = raw.media_type.as_deref().unwrap_or_default();
    let kind = match (own, said) {
        ("", said) | (said, "") => said,
        (own, said) if own == said => said,
        (own, said) => return refuse(format!("it says it is `{own}`, but is given as `{said}`")),
    };
    let is_index = match kind {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        "" => raw.manifests.is_some(),
        other => return refuse(format!("media type `{other}` is neither an image manifest nor an index")),
    };
    match (is_index, raw.manifests, raw.config, raw.layers) {
        (true, Some(images), None, None) if images.len() > MOST_IMAGES => {
            refuse(format!("it has {} images, more than {MOST_IMAGES}", images.len()))
        }
        (true, Some(images), None, None) => Ok(Document::Index(images)),
        (false, None, Some(_), Some(layers)) if layers.len() > MOST_LAYERS => {
            refuse(format!("it has {} layers, more than {MOST_LAYERS}", layers.len()))
        }
        (false, None, Some(config), Some(layers)) => {
            if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
                return refuse(format!("its configuration is `{}`: it is no container image", config.media_type));
            }
            if config.size > LONGEST_DOCUMENT {
                return refuse(format!("its configuration has {} bytes, more than {LONGEST_DOCUMENT}", config.size));
            }
            let media_type = if kind.is_empty() { OCI_MANIFEST } else { kind }.to_owned();
            Ok(Document::Manifest(Manifest { schema_version: 2, media_type, config, layers }))
        }
        _ => refuse("its fields are those of a manifest and of an index at once, or of neither".into()),
    }
}

/// Returns this machine's image of an index.
///
/// # Errors
/// If it has none, or its manifest is too long.
pub fn choose(images: Vec<Descriptor>) -> Result<Descriptor, InvalidManifest> {
    let all = images.iter().filter_map(|image| image.platform.as_ref());
    let offered: Vec<String> = all.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
    let Some(image) = images.into_iter().find(Descriptor::is_for_this_machine) else {
        let why = format!("it has no image for linux/{} (it has: {})", architecture(), offered.join(", "));
        return Err(InvalidManifest(why));
    };
    if image.size > LONGEST_DOCUMENT {
        let why = format!("its image has a manifest of {} bytes, more than {LONGEST_DOCUMENT}", image.size);
        return Err(InvalidManifest(why));
    }
    Ok(image)
}

impl Descriptor {
    /// Returns whether it is said to be for machines such as this one.
    pub fn is_for_this_machine(&self) -> bool {
        self.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture())
    }
}

/// Returns this machine's architecture as images name it (Go's GOARCH).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let blob = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":1}}"#, "ab".repeat(32));
        let config = blob(OCI_CONFIG);
        let check = |text: &str, said: &str, expected: Result<&str, &str>| {
            let found = parse(text.as_bytes(), said).map_err(|e| e.to_string());
            match (&found, expected) {
                (Ok(Document::Manifest(m)), Ok(kind)) if m.media_type == kind => {}
                (Ok(Document::Index(_)), Ok("index")) => {}
                (Err(e), Err(part)) if e.contains(part) => {}
                _ => panic!("{text} as `{said}`: {found:?}, expected {expected:?}"),
            }
        };
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        check(&manifest, OCI_MANIFEST, Ok(OCI_MANIFEST));
        check(&manifest, DOCKER_MANIFEST, Ok(DOCKER_MANIFEST));
        check(&manifest, "", Ok(OCI_MANIFEST));
        check(&manifest, OCI_INDEX, Err("at once, or of neither"));
        check(&manifest, "text/html", Err("neither an image manifest nor an index"));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(index, OCI_INDEX, Ok("index"));
        check(index, DOCKER_LIST, Ok("index"));
        check(index, OCI_MANIFEST, Err("at once, or of neither"));
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        check(&both, OCI_MANIFEST, Err("at once"));
        check(&both, OCI_INDEX, Err("at once"));
        check(&both, "", Err("at once"));
        let own = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{config},"layers":[]}}"#);
        check(&own, OCI_MANIFEST, Err("it says it is"));
        check(r#"{"schemaVersion":1,"fsLayers":[]}"#, "", Err("schema version"));
        check(r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#, "", Err("malformed"));
        check("", "", Err("malformed"));
        let chart = blob("application/vnd.cncf.helm.config.v1+json");
        check(&format!(r#"{{"schemaVersion":2,"config":{chart},"layers":[]}}"#), "", Err("no container image"));
        let layers = vec![config.as_str(); MOST_LAYERS + 1].join(",");
        check(
            &format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#),
            "",
            Err("1001 layers, more than 1000"),
        );
        check(&manifest.replace("sha256:", "sha512:"), "", Err("malformed"));
    }
}
