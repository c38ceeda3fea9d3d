//! The registry: what is asked of it, and the threads that do it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_model::Digest;
use basalt_model::manifest::{self, Document, LONGEST_DOCUMENT, Manifest};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::cache::{Cache, hash};
use crate::error::{Error, Result, no_manifest};
use crate::http::Http;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::pull::{self, Pulled};
use crate::push::{self, Image};
use crate::reference::Reference;
use crate::remote::{Ask, Remote, nothing};
use crate::rules::Endpoint;
use crate::settings::Settings;

/// The header that names what was answered (distribution spec, "Pulling manifests").
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The deepest nesting of indexes: one for platforms, and one more for who nests them needlessly.
const DEEPEST_INDEX: usize = 3;

/// A mirror that does not answer at once is passed over: what it would give is elsewhere too.
const ATTEMPTS_AT_MIRROR: u32 = 2;

/// Threads that hash what comes and write it down: two keep up with any network that four transfers fill.
const THREADS: usize = 2;

/// Images of registries. Its methods block; they may be called from anywhere, also by several threads at once.
pub struct Registry {
    inner: Arc<Inner>,
    runtime: Option<Runtime>,
}

/// What transfers share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) cache: Cache,
    pub(crate) patience: Patience,
    http: Arc<Http>,
    remotes: Mutex<Remotes>,
}

/// Ways that were found, by where they lead and what is to be done there.
type Remotes = BTreeMap<(Endpoint, Vec<String>), Arc<Remote>>;

/// A reference, and the image of this machine's platform that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The reference.
    pub reference: Reference,
    /// The digest of the image's manifest.
    pub digest: Digest,
}

/// What is remembered of a manifest or index.
#[derive(Serialize, Deserialize)]
struct Known {
    /// The manifest of this machine's platform.
    manifest: Digest,
}

/// What is remembered of a tag.
#[derive(Serialize, Deserialize)]
struct Last {
    digest: Digest,
}

impl Registry {
    /// Returns images of registries, reached as `settings` say; `cache` is the folder for what is under way.
    ///
    /// # Errors
    /// If the folder can't be made, or threads can't be started.
    pub fn new(settings: Settings, cache: &Path, patience: Patience) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = runtime.map_err(crate::error::io("start threads for", cache))?;
        let http = Arc::new(Http::new(settings.certs.clone(), patience));
        let cache = Cache::open(cache)?;
        let inner = Inner { settings, cache, patience, http, remotes: Mutex::default() };
        Ok(Self { inner: Arc::new(inner), runtime: Some(runtime) })
    }

    /// Finds out which image a reference stands for. A digest that was seen before needs no network.
    ///
    /// # Errors
    /// If no registry or mirror knows it, or it is no image for this machine.
    pub fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.block(|| self.inner.resolve(reference))
    }

    /// Returns what a tag stood for when it was last resolved here.
    pub fn last(&self, reference: &Reference) -> Option<Digest> {
        self.inner.cache.recall::<Last>(&hash(reference.to_string().as_bytes())).map(|last| last.digest)
    }

    /// Brings an image into an OCI image layout, up to four blobs at a time. Blobs that the caller has are left out.
    /// What was fetched before a break is gone on with.
    ///
    /// # Errors
    /// If no registry or mirror gives it whole, or something of it is not what its digest says.
    pub fn pull(
        &self,
        image: &Resolved,
        have: &(dyn Fn(&Digest) -> bool + Sync),
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        self.block(|| pull::pull(&self.inner, image, have, progress))
    }

    /// Sends an image to where `to` says, byte for byte, and returns the digest of its manifest. What is there already is not
    /// sent again; what one of the repositories `near` of the same registry has is taken over from there.
    ///
    /// # Errors
    /// If the registry refuses, or the image can't be read.
    pub fn push(
        &self,
        image: &Image<'_>,
        to: &Reference,
        near: &[Reference],
        progress: &dyn Progress,
    ) -> Result<Digest> {
        self.block(|| push::push(&self.inner, image, to, near, progress))
    }

    /// Runs something to its end, on threads of our own: the caller may be on a runtime, which must not be blocked from within.
    fn block<T: Send, F: Future<Output = Result<T>>>(&self, work: impl FnOnce() -> F + Send) -> Result<T> {
        let Some(runtime) = &self.runtime else {
            return Err(Error::Unreachable { host: "any".to_owned(), why: "this is being ended".to_owned() });
        };
        std::thread::scope(|scope| {
            let done = scope.spawn(|| runtime.block_on(work())).join();
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A runtime must not be waited for on another runtime.
impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Inner {
    /// Returns the way to a repository, found once.
    pub(crate) async fn remote(&self, endpoint: Endpoint, scopes: Vec<String>, attempts: u32) -> Result<Arc<Remote>> {
        let key = (endpoint.clone(), scopes.clone());
        let known = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(remote) = known {
            return Ok(remote);
        }
        let patience = Patience { attempts, ..self.patience };
        let http = Arc::clone(&self.http);
        let remote = Remote::connect(http, patience, &self.settings.credentials, endpoint, scopes).await?;
        let remote = Arc::new(remote);
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&remote));
        Ok(remote)
    }

    /// Returns the ways to all places that a reference may be had from, in order; those that can't be reached are left out.
    pub(crate) async fn remotes(&self, reference: &Reference) -> Result<Vec<Arc<Remote>>> {
        let endpoints = self.settings.rules.endpoints(reference)?;
        let (mut found, mut failed) = (Vec::new(), None);
        let mirrors = endpoints.len() - 1;
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            let host = endpoint.host.clone();
            let scopes = vec![format!("repository:{}:pull", endpoint.repository)];
            let attempts = if i < mirrors { ATTEMPTS_AT_MIRROR } else { self.patience.attempts };
            match self.remote(endpoint, scopes, attempts).await {
                Ok(remote) => found.push(remote),
                Err(error) => {
                    if i < mirrors {
                        tracing::warn!(host, %error, "mirror passed over");
                    }
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let resolved = |digest| Resolved { reference: reference.clone(), digest };
        if let Some(known) = reference.digest.and_then(|digest| self.cache.recall::<Known>(&digest)) {
            return Ok(resolved(known.manifest));
        }
        let mut failed = None;
        for remote in self.remotes(reference).await? {
            match self.find(&remote, reference).await {
                Ok(digest) => {
                    self.cache.remember(&hash(reference.to_string().as_bytes()), &Last { digest })?;
                    return Ok(resolved(digest));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::NotFound { host: reference.host.clone(), what: reference.to_string() }))
    }

    /// Asks one registry which image a reference stands for.
    async fn find(&self, remote: &Remote, reference: &Reference) -> Result<Digest> {
        let wanted = reference.wanted();
        let what = format!("`{}:{wanted}`", reference.repository);
        let mut said = None;
        let named = match reference.digest {
            Some(digest) => Some(digest),
            None => {
                let head = self.ask(remote, Method::HEAD, &wanted, &what).await;
                match head {
                    Ok(answer) => answer.headers().get(CONTENT_DIGEST).and_then(|v| v.to_str().ok()?.parse().ok()),
                    // What is not there for HEAD may be for GET, where HEAD is not known.
                    Err(Error::Answer { .. } | Error::NotFound { .. }) => None,
                    Err(error) => return Err(error),
                }
            }
        };
        let named = match named {
            Some(named) => named,
            None => {
                let answer = self.ask(remote, Method::GET, &wanted, &what).await?;
                said = Some(media_type(answer.headers()));
                let bytes = remote.read(answer, LONGEST_DOCUMENT, &what).await?;
                let named = hash(&bytes);
                self.cache.put(&named, &bytes)?;
                named
            }
        };
        if let Some(known) = self.cache.recall::<Known>(&named) {
            return Ok(known.manifest);
        }
        let mut digest = named;
        for _ in 0..=DEEPEST_INDEX {
            let what = format!("manifest `{digest}`");
            let (bytes, media_type) = self.document(remote, &digest, &what).await?;
            match manifest::parse(&bytes, &said.take().unwrap_or(media_type)).map_err(no_manifest(&what))? {
                Document::Manifest(_) => {
                    self.cache.remember(&named, &Known { manifest: digest })?;
                    return Ok(digest);
                }
                Document::Index(images) => {
                    let chosen = manifest::choose(images).map_err(no_manifest(&what))?;
                    said = Some(chosen.media_type);
                    digest = chosen.digest;
                }
            }
        }
        Err(Error::Document { what, why: "indexes are nested too deep".to_owned() })
    }

    /// Returns a manifest's bytes, checked against its digest, and what it is.
    pub(crate) async fn manifest(&self, remotes: &[Arc<Remote>], digest: &Digest) -> Result<(Vec<u8>, Manifest)> {
        let what = format!("manifest `{digest}`");
        let mut failed = None;
        for remote in remotes {
            match self.document(remote, digest, &what).await {
                Ok((bytes, media_type)) => {
                    return match manifest::parse(&bytes, &media_type).map_err(no_manifest(&what))? {
                        Document::Manifest(manifest) => Ok((bytes, manifest)),
                        Document::Index(_) => {
                            Err(Error::Document { what, why: "it is an index, not an image".to_owned() })
                        }
                    };
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::NotFound { host: "none".to_owned(), what }))
    }

    /// Returns the bytes of a manifest or index, checked against its digest, and the media type that was given with them.
    async fn document(&self, remote: &Remote, digest: &Digest, what: &str) -> Result<(Vec<u8>, String)> {
        if let Some(bytes) = self.cache.get(digest) {
            return Ok((bytes, String::new()));
        }
        let answer = self.ask(remote, Method::GET, &digest.to_string(), what).await?;
        let media_type = media_type(answer.headers());
        let bytes = remote.read(answer, LONGEST_DOCUMENT, what).await?;
        let found = hash(&bytes);
        if found != *digest {
            return Err(Error::Mismatch {
                what: what.to_owned(),
                host: remote.host().to_owned(),
                expected: digest.to_string(),
                found: found.to_string(),
            });
        }
        self.cache.put(digest, &bytes)?;
        Ok((bytes, media_type))
    }

    async fn ask(&self, remote: &Remote, method: Method, wanted: &str, what: &str) -> Result<reqwest::Response> {
        let url = remote.url(&format!("manifests/{wanted}"))?;
        let attempts = self.patience.attempts;
        let ask = Ask { method, url, headers: Remote::accepts(), body: &nothing, what, attempts };
        remote.send(&ask).await
    }
}

/// Returns the media type that a registry gives an answer, empty if it gives none that says anything.
fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bare = text.split(';').next().unwrap_or_default().trim();
    // Servers of plain files say these of any JSON.
    if ["application/json", "text/plain", "application/octet-stream"].contains(&bare) {
        String::new()
    } else {
        bare.to_owned()
    }
}
