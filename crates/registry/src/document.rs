//! Manifests and indexes, as far as a transfer has to know them (OCI image spec, "Image Manifest" and "Image Index"; Docker
//! image manifest v2, schema 2).

use basalt_model::Digest;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What a registry is told that we read.
pub(crate) const ACCEPT: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// The longest manifest or index: 4 MiB (OCI distribution spec, "Pushing Manifests").
pub(crate) const LONGEST_DOCUMENT: u64 = 4 << 20;

/// The longest configuration: nobody's has more than some hundred kilobytes.
pub(crate) const LONGEST_CONFIG: u64 = LONGEST_DOCUMENT;

/// The most layers: no file system driver takes more than a few hundred, and the largest images have 127.
const MOST_LAYERS: usize = 1000;

/// The most images of an index.
const MOST_IMAGES: usize = 1000;

/// Points to content (OCI image spec, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

/// What an image of an index is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// A manifest that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// Either kind of document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

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
pub(crate) fn parse(what: &str, bytes: &[u8], said: &str) -> Result<Document> {
    let refuse = |why: String| Error::Document { what: what.to_owned(), why };
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| refuse(format!("it is malformed: {e}")))?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(refuse(
            "its schema version is not 2; pushing the image again with a current tool mends that".into(),
        ));
    }
    let own = raw.media_type.as_deref().unwrap_or_default();
    let kind = match (own, said) {
        ("", said) | (said, "") => said,
        (own, said) if own == said => said,
        (own, said) => return Err(refuse(format!("it says it is `{own}`, but is given as `{said}`"))),
    };
    let is_index = match kind {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        "" => raw.manifests.is_some(),
        other => return Err(refuse(format!("media type `{other}` is neither an image manifest nor an index"))),
    };
    match (is_index, raw.manifests, raw.config, raw.layers) {
        (true, Some(images), None, None) if images.len() > MOST_IMAGES => {
            Err(refuse(format!("it has more than {MOST_IMAGES} images")))
        }
        (true, Some(images), None, None) => Ok(Document::Index(images)),
        (false, None, Some(_), Some(layers)) if layers.len() > MOST_LAYERS => {
            Err(refuse(format!("it has more than {MOST_LAYERS} layers")))
        }
        (false, None, Some(config), Some(layers)) => {
            if !CONFIGS.contains(&config.media_type.as_str()) {
                return Err(refuse(format!("its configuration is `{}`: it is no container image", config.media_type)));
            }
            if config.size > LONGEST_CONFIG {
                return Err(refuse(format!("its configuration has {} bytes, more than {LONGEST_CONFIG}", config.size)));
            }
            let media_type = if kind.is_empty() { OCI_MANIFEST } else { kind }.to_owned();
            Ok(Document::Manifest(Manifest { media_type, config, layers }))
        }
        _ => Err(refuse("its fields are those of a manifest and of an index at once, or of neither".into())),
    }
}

/// Chooses this machine's image of an index.
pub(crate) fn choose(what: &str, images: Vec<Descriptor>) -> Result<Descriptor> {
    let offered: Vec<String> =
        images.iter().filter_map(|e| e.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture))).collect();
    let fits =
        |e: &Descriptor| e.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture());
    images.into_iter().find(fits).ok_or_else(|| Error::Document {
        what: what.to_owned(),
        why: format!("it has no image for linux/{} (it has: {})", architecture(), offered.join(", ")),
    })
}

/// Returns this machine's architecture as images name it (Go's GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let blob = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":1}}"#, "ab".repeat(32));
        let config = blob(CONFIGS[0]);
        let check = |text: &str, said: &str, expected: std::result::Result<&str, &str>| {
            let found = parse("x", text.as_bytes(), said).map_err(|e| e.to_string());
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
            Err("more than 1000 layers"),
        );
        check(&manifest.replace("sha256:", "sha512:"), "", Err("malformed"));
    }
}
