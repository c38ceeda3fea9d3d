//! Sending an image to a registry, byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_model::Digest;
use basalt_model::manifest::{self, Document, LONGEST_DOCUMENT, Manifest};
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use crate::cache::hash;
use crate::error::{Error, Result, no_manifest};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::Inner;
use crate::remote::{Ask, Payload, Remote};
use crate::upload::Upload;

/// Blobs that are sent at once, as when pulling.
const AT_ONCE: usize = 4;

/// Ten reports a second look like movement.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// An image to send.
pub struct Image<'a> {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Opens a file by its digest: the manifest, the configuration, the layers.
    pub open: &'a (dyn Fn(&Digest) -> std::io::Result<File> + Send + Sync),
}

impl Image<'_> {
    pub(crate) fn file(&self, digest: &Digest) -> Result<File> {
        (self.open)(digest).map_err(crate::error::io("open", digest.to_string().as_ref()))
    }

    fn read(&self) -> Result<(Vec<u8>, Manifest)> {
        let what = format!("manifest `{}`", self.manifest);
        let mut bytes = Vec::new();
        let file = self.file(&self.manifest)?;
        file.take(LONGEST_DOCUMENT).read_to_end(&mut bytes).map_err(crate::error::io("read", what.as_ref()))?;
        let found = hash(&bytes);
        if found != self.manifest {
            return Err(Error::Document {
                what,
                why: format!("what is kept under this digest has the digest `{found}`"),
            });
        }
        match manifest::parse(&bytes, "").map_err(no_manifest(&what))? {
            Document::Manifest(manifest) => Ok((bytes, manifest)),
            Document::Index(_) => Err(Error::Document { what, why: "it is an index, not an image".to_owned() }),
        }
    }
}

/// Pushes an image.
pub(crate) async fn push(
    inner: &Inner,
    image: &Image<'_>,
    to: &Reference,
    near: &[Reference],
    progress: &dyn Progress,
) -> Result<Digest> {
    if let Some(other) = to.digest.filter(|digest| *digest != image.manifest) {
        let why = format!("it names the digest of another image than `{}`", image.manifest);
        return Err(Error::Reference { reference: to.to_string(), why: format!("{why} (`{other}`)") });
    }
    let (bytes, manifest) = image.read()?;
    let endpoint = inner.settings.rules.target(to)?;
    let near = near.iter().find(|from| from.host == to.host && from.repository != to.repository);
    let near = near.map(|from| from.repository.clone());
    let mut scopes = vec![format!("repository:{}:pull,push", endpoint.repository)];
    scopes.extend(near.as_ref().map(|from| format!("repository:{from}:pull")));
    let remote = inner.remote(endpoint, scopes, inner.patience.attempts).await?;

    let blobs: BTreeMap<Digest, _> =
        std::iter::once(&manifest.config).chain(&manifest.layers).map(|blob| (blob.digest, blob)).collect();
    let total = blobs.values().try_fold(0u64, |sum, blob| sum.checked_add(blob.size));
    let what = format!("push {} blobs", blobs.len());
    let done = AtomicU64::new(0);
    let send = |blob| {
        let upload =
            Upload { remote: &remote, patience: &inner.patience, image, blob, near: near.as_deref(), done: &done };
        async move { upload.send().await }
    };
    let mut transfers = futures::stream::iter(blobs.into_values()).map(send).buffer_unordered(AT_ONCE);
    let mut tick = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            ended = transfers.next() => match ended {
                Some(result) => result?,
                None => break,
            },
            _ = tick.tick() => progress.report(&what, done.load(Ordering::Relaxed), total),
        }
    }
    progress.report(&what, done.load(Ordering::Relaxed), total);
    put_manifest(inner, &remote, image, to, &manifest.media_type, bytes).await?;
    Ok(image.manifest)
}

/// Sends the manifest last, when all that it names is there.
async fn put_manifest(
    inner: &Inner,
    remote: &Remote,
    image: &Image<'_>,
    to: &Reference,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<()> {
    let wanted = to.tag.clone().unwrap_or_else(|| image.manifest.to_string());
    let what = format!("manifest `{}:{wanted}`", to.repository);
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(media_type).map_err(|e| remote.answer(&what, e.to_string()))?;
    headers.insert(CONTENT_TYPE, value);
    let body = || Ok(Payload::Bytes(bytes.clone()));
    let url = remote.url(&format!("manifests/{wanted}"))?;
    let ask = Ask { method: Method::PUT, url, headers, body: &body, what: &what, attempts: inner.patience.attempts };
    let answer = remote.send(&ask).await?;
    let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    match digest.and_then(|text| text.parse::<Digest>().ok()) {
        Some(found) if found != image.manifest => Err(Error::Mismatch {
            what,
            host: remote.host().to_owned(),
            expected: image.manifest.to_string(),
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}
