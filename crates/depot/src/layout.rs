//! Finding an image in a layout (OCI image spec, "Image Layout").

use basalt_model::Digest;
use basalt_model::manifest::{self as described, Descriptor, Document, LONGEST_DOCUMENT, Manifest};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::manifest::{self, REF_NAME};
use crate::source::{Reference, Source};

/// The deepest nesting of indexes: a layout's own, and one for platforms; one more for who nests them needlessly.
const DEEPEST_INDEX: usize = 3;

/// A manifest that was found at a reference.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Manifest,
}

/// Finds the manifest of a layout (OCI image spec, "Image Layout").
pub(crate) fn find(reference: &Reference, source: &Source) -> Result<Found> {
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
        None => match entries.iter().filter(|e| e.is_for_this_machine()).collect::<Vec<_>>()[..] {
            [one] => Ok(one),
            _ => Err(format!("it holds {} images; say which with `:TAG`", entries.len())),
        },
    };
    found.cloned().map_err(|why| reference.fail(format!("{why} ({known})")))
}

/// Returns which image has `tag`: one of the tags in full, or the end of one (`v1` for `docker.io/shop/web:v1`).
pub(crate) fn by_tag(images: impl Iterator<Item = Vec<String>>, tag: &str) -> std::result::Result<usize, String> {
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

/// Follows a descriptor to a manifest, through indexes for platforms.
fn follow(reference: &Reference, source: &Source, entry: Descriptor, depth: usize) -> Result<Found> {
    let what = format!("manifest `{}`", entry.digest);
    let digest = entry.digest;
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
            let entry = described::choose(entries).map_err(|error| manifest::refuse(&what, error.0))?;
            follow(reference, source, entry, depth - 1)
        }
    }
}

/// Returns where a blob lies in a layout.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.to_hex())
}
