//! Bringing an image here: into an OCI image layout, several blobs at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basalt_model::Digest;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cache::{Cache, Lock};
use crate::download::Fetch;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::registry::{Inner, Resolved};

/// Blobs that are fetched at once: one connection rarely fills a network, and registries slow down who opens many.
const AT_ONCE: usize = 4;

/// Ten reports a second look like movement.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// An image that was pulled: an OCI image layout that stays as long as this lives.
#[derive(Debug)]
pub struct Pulled {
    dir: PathBuf,
    cache: Cache,
    blobs: Vec<Digest>,
    hold: Lock,
}

impl Pulled {
    /// Returns the folder of the layout; it holds this one image, without the blobs that the caller has.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Clears away what is now kept elsewhere. What is only dropped stays, for the next attempt.
    ///
    /// # Errors
    /// If something can't be removed.
    pub fn clear(self) -> Result<()> {
        self.cache.clear(&self.blobs, self.hold)
    }
}

/// Pulls an image.
pub(crate) async fn pull(
    inner: &Arc<Inner>,
    image: &Resolved,
    have: &(dyn Fn(&Digest) -> bool + Sync),
    progress: &dyn Progress,
) -> Result<Pulled> {
    let hold = inner.cache.hold().await?;
    let mut by_digest = image.reference.clone();
    by_digest.digest = Some(image.digest);
    let remotes: Arc<[_]> = inner.remotes(&by_digest).await?.into();
    let (bytes, manifest) = inner.manifest(&remotes, &image.digest).await?;
    // Written again: it may have been cleared away meanwhile.
    inner.cache.put(&image.digest, &bytes)?;

    let mut wanted = BTreeMap::new();
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if let Some(other) = wanted.insert(blob.digest, blob.clone()).filter(|other| other.size != blob.size) {
            let what = format!("manifest `{}`", image.digest);
            return Err(Error::Document { what, why: format!("`{}` has two sizes in it", other.digest) });
        }
    }
    let blobs: Vec<Digest> = wanted.keys().copied().chain([image.digest]).collect();
    wanted.retain(|digest, _| !have(digest));

    let total = wanted.values().try_fold(0u64, |sum, blob| sum.checked_add(blob.size));
    let layers = wanted.len();
    let what = format!("pull {layers} blob{}", if layers == 1 { "" } else { "s" });
    let done = Arc::new(AtomicU64::new(0));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut transfers = JoinSet::new();
    for blob in wanted.into_values() {
        let (inner, remotes) = (Arc::clone(inner), Arc::clone(&remotes));
        let (done, turns) = (Arc::clone(&done), Arc::clone(&turns));
        transfers.spawn(async move {
            let _turn = turns.acquire().await;
            let what = format!("blob `{}`", blob.digest);
            Fetch { patience: &inner.patience, blob: &blob, what: &what }.fetch(&inner.cache, &remotes, &done).await
        });
    }
    let mut tick = tokio::time::interval(REPORT_EVERY);
    loop {
        tokio::select! {
            ended = transfers.join_next() => match ended {
                // The first that fails ends all; what they have stays for the next attempt.
                Some(Ok(result)) => result?,
                Some(Err(failed)) => {
                    let why = format!("a transfer ended: {failed}");
                    return Err(Error::Unreachable { host: image.reference.host.clone(), why });
                }
                None => break,
            },
            _ = tick.tick() => progress.report(&what, done.load(Ordering::Relaxed), total),
        }
    }
    progress.report(&what, done.load(Ordering::Relaxed), total);
    let descriptor = json!({ "mediaType": manifest.media_type, "digest": image.digest, "size": bytes.len() });
    let dir = inner.cache.layout(&image.digest, &descriptor)?;
    Ok(Pulled { dir, cache: inner.cache.clone(), blobs, hold })
}
