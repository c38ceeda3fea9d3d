//! Finding an image in a Docker archive, as `docker save` and `podman save` write them.
//!
//! Since Docker 25 such an archive is an OCI layout as well; `manifest.json` is still there and names blobs of it.

use basalt_model::Digest;
use serde::Deserialize;

use crate::config::Config;
use crate::error::Result;
use crate::layout::by_tag;
use crate::manifest;
use crate::source::{Reference, Source};

/// An image of a Docker archive.
pub(crate) struct Image {
    /// Its configuration, as it is.
    pub(crate) config: Vec<u8>,
    /// The names of its layers in the archive, lowest first.
    pub(crate) layers: Vec<String>,
    /// Their digests, unpacked.
    pub(crate) diff_ids: Vec<Digest>,
}

/// One image of a Docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image that is meant.
///
/// # Errors
/// If there is no such image, or its configuration is refused or is for another machine.
pub(crate) fn find(reference: &Reference, source: &Source) -> Result<Image> {
    let bytes = source.document(reference, "manifest.json")?;
    let bytes = bytes.ok_or_else(|| reference.fail("it is no Docker archive: `manifest.json` is missing"))?;
    let images: Vec<Entry> =
        serde_json::from_slice(&bytes).map_err(|e| reference.fail(format!("`manifest.json`: {e}")))?;
    let entry = choose(reference, &images)?;
    let config = source.document(reference, &entry.config)?;
    let config = config.ok_or_else(|| reference.fail(format!("`{}` is missing", entry.config)))?;
    let what = format!("configuration `{}`", entry.config);
    let parsed = Config::parse(&what, &config)?;
    parsed.check_platform(&what)?;
    let diff_ids = parsed.diff_ids(&what)?;
    if diff_ids.len() != entry.layers.len() {
        let why = format!("it names {} layers, and `manifest.json` {}", diff_ids.len(), entry.layers.len());
        return Err(manifest::refuse(&what, why));
    }
    Ok(Image { config, layers: entry.layers.clone(), diff_ids })
}

fn choose<'a>(reference: &Reference, images: &'a [Entry]) -> Result<&'a Entry> {
    let tags = |image: &Entry| image.repo_tags.clone().unwrap_or_default();
    let all = images.iter().flat_map(tags).collect::<Vec<_>>().join("`, `");
    let found = match (&reference.tag, images) {
        (None, [one]) => Ok(one),
        (None, _) => Err(format!("it holds {} images; say which with `:NAME:TAG`", images.len())),
        (Some(tag), _) => by_tag(images.iter().map(tags), tag).map(|at| &images[at]),
    };
    found.map_err(|why| reference.fail(format!("{why} (tags: `{all}`)")))
}
