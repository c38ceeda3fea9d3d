//! Sending one blob: not at all if it is there, taken over from a repository that has it, in one go, or in pieces where one go
//! does not get through (distribution spec, "Pushing blobs").

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_model::manifest::Descriptor;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Body, Response, Url};

use crate::error::{Error, Result, io};
use crate::patience::Patience;
use crate::push::Image;
use crate::remote::{Ask, Payload, Remote, nothing};

/// How much is read at once.
const CHUNK: usize = 256 << 10;

/// A piece: what most proxies let through that do not let through everything.
const PIECE: u64 = 16 << 20;

/// The largest piece that a registry may ask for, since pieces are held in memory.
const LARGEST_PIECE: u64 = 256 << 20;

/// One blob to send.
pub(crate) struct Upload<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) patience: &'a Patience,
    pub(crate) image: &'a Image<'a>,
    pub(crate) blob: &'a Descriptor,
    /// A repository of the same registry that may have it.
    pub(crate) near: Option<&'a str>,
    /// Grows by what was sent, and in all by the blob's size.
    pub(crate) done: &'a AtomicU64,
}

/// An upload that was begun.
struct Session {
    location: Url,
    piece: u64,
}

impl Upload<'_> {
    /// Sends the blob.
    ///
    /// # Errors
    /// If it can't be read, or the registry does not take it.
    pub(crate) async fn send(&self) -> Result<()> {
        let sent = Arc::new(AtomicU64::new(0));
        if !self.is_there().await?
            && let Some(session) = self.begin(self.near).await?
        {
            match self.whole(&session, &sent).await {
                Ok(()) => {}
                Err(error) if pieces_may_pass(&error) => {
                    tracing::debug!(host = self.remote.host(), %error, "sent in pieces");
                    self.retract(&sent);
                    self.pieces(&sent).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let counted = sent.load(Ordering::Relaxed);
        self.done.fetch_add(self.blob.size.wrapping_sub(counted), Ordering::Relaxed);
        Ok(())
    }

    fn what(&self) -> String {
        format!("blob `{}`", self.blob.digest)
    }

    /// Takes back what was counted as sent.
    fn retract(&self, sent: &AtomicU64) {
        let before = sent.swap(0, Ordering::Relaxed);
        self.done.fetch_sub(before, Ordering::Relaxed);
    }

    async fn is_there(&self) -> Result<bool> {
        let url = self.remote.url(&format!("blobs/{}", self.blob.digest))?;
        match self.ask(Method::HEAD, url, HeaderMap::new(), &nothing, self.patience.attempts).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            // Where HEAD is not known, sending tells.
            Err(Error::Answer { status: Some(400..=499), .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins an upload; `None` if the blob was taken over from `near`.
    async fn begin(&self, near: Option<&str>) -> Result<Option<Session>> {
        let mut url = self.remote.url("blobs/uploads/")?;
        if let Some(near) = near {
            url.query_pairs_mut().append_pair("mount", &self.blob.digest.to_string()).append_pair("from", near);
        }
        let asked = url.clone();
        let answer = match self.ask(Method::POST, url, HeaderMap::new(), &nothing, self.patience.attempts).await {
            Err(Error::NotFound { .. } | Error::Denied { .. } | Error::Answer { .. }) if near.is_some() => {
                return Box::pin(self.begin(None)).await;
            }
            answer => answer?,
        };
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let least = answer.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let piece = PIECE.max(least.unwrap_or(0)).min(LARGEST_PIECE);
        Ok(Some(Session { location: self.remote.location(&answer, &asked, &self.what())?, piece }))
    }

    /// Sends all in one request.
    async fn whole(&self, session: &Session, sent: &Arc<AtomicU64>) -> Result<()> {
        let url = self.finish_url(&session.location);
        let body = || {
            self.retract(sent);
            let file = self.image.file(&self.blob.digest)?;
            Ok(Payload::Stream(stream(file, Arc::clone(sent)), self.blob.size))
        };
        let sending = self.ask(Method::PUT, url, octets(), &body, 1);
        tokio::pin!(sending);
        let (mut before, mut counted) = (0, 0);
        let mut tick = tokio::time::interval(self.patience.stall / 50);
        let mut still = 0;
        loop {
            tokio::select! {
                answer = &mut sending => return answer.map(drop),
                _ = tick.tick() => {
                    let now = sent.load(Ordering::Relaxed);
                    self.done.fetch_add(now.wrapping_sub(counted), Ordering::Relaxed);
                    counted = now;
                    still = if now == before { still + 1 } else { 0 };
                    before = now;
                    if still > 50 {
                        let why = format!("it takes nothing for {} s", self.patience.stall.as_secs_f64());
                        return Err(Error::Unreachable { host: self.remote.host().to_owned(), why });
                    }
                }
            }
        }
    }

    /// Sends piece by piece; after a break, goes on from where the registry says that it is.
    async fn pieces(&self, sent: &AtomicU64) -> Result<()> {
        let what = self.what();
        let path = what.as_ref();
        let mut file = self.image.file(&self.blob.digest)?;
        let mut failed = 0;
        let mut session = None;
        let mut at = 0;
        while at < self.blob.size || session.is_none() {
            let current = match session.take() {
                Some(session) => session,
                None => match self.begin(None).await? {
                    Some(session) => session,
                    None => return Ok(()),
                },
            };
            let length = current.piece.min(self.blob.size - at);
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(at)).map_err(io("read", path))?;
            (&mut file).take(length).read_to_end(&mut bytes).map_err(io("read", path))?;
            let bytes = Bytes::from(bytes);
            let mut headers = octets();
            let range = format!("{at}-{}", (at + length).saturating_sub(1));
            headers.insert(
                CONTENT_RANGE,
                HeaderValue::from_str(&range).map_err(|e| self.remote.answer(&what, e.to_string()))?,
            );
            let body = || Ok(Payload::Bytes(bytes.to_vec()));
            let answer = self.ask(Method::PATCH, current.location.clone(), headers, &body, 1).await;
            match answer {
                Ok(answer) => {
                    let location = self.remote.location(&answer, &current.location, &what)?;
                    at += length;
                    failed = 0;
                    session = Some(Session { location, ..current });
                }
                Err(error) => {
                    failed += 1;
                    let wait = self.patience.wait(failed, None).filter(|_| pieces_may_pass(&error));
                    let Some(wait) = wait else { return Err(error) };
                    tokio::time::sleep(wait).await;
                    // Where it is, if it still knows; otherwise all begins anew.
                    (session, at) =
                        match self.ask(Method::GET, current.location.clone(), HeaderMap::new(), &nothing, 2).await {
                            Ok(answer) => {
                                let at = received(&answer).unwrap_or(0).min(self.blob.size);
                                let location = self.remote.location(&answer, &current.location, &what);
                                (Some(Session { location: location.unwrap_or(current.location), ..current }), at)
                            }
                            Err(_) => (None, 0),
                        };
                }
            }
            let before = sent.swap(at, Ordering::Relaxed);
            self.done.fetch_add(at.wrapping_sub(before), Ordering::Relaxed);
        }
        let Some(session) = session else { return Ok(()) };
        let url = self.finish_url(&session.location);
        self.ask(Method::PUT, url, octets(), &nothing, self.patience.attempts).await.map(drop)
    }

    fn finish_url(&self, location: &Url) -> Url {
        let mut url = location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        url
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: &(dyn Fn() -> Result<Payload> + Send + Sync),
        attempts: u32,
    ) -> Result<Response> {
        self.remote.send(&Ask { method, url, headers, body, what: &self.what(), attempts }).await
    }
}

/// Returns whether what did not get through in one go may in pieces: after a break, a fault, or "too large".
fn pieces_may_pass(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. } | Error::Answer { status: Some(413 | 500..=599), .. })
}

/// Returns how many bytes a registry has (`Range: 0-N`, both inclusive).
fn received(answer: &Response) -> Option<u64> {
    let text = answer.headers().get(RANGE)?.to_str().ok()?;
    let last: u64 = text.trim().strip_prefix("bytes=").unwrap_or(text.trim()).strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn octets() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers
}

/// Returns a file as a stream that counts what was taken of it.
fn stream(file: File, sent: Arc<AtomicU64>) -> Body {
    Body::wrap_stream(futures::stream::unfold(Some(file), move |file| {
        let sent = Arc::clone(&sent);
        async move {
            let mut file = file?;
            let mut buffer = vec![0; CHUNK];
            match file.read(&mut buffer) {
                Ok(0) => None,
                Ok(n) => {
                    buffer.truncate(n);
                    sent.fetch_add(n as u64, Ordering::Relaxed);
                    Some((Ok(Bytes::from(buffer)), Some(file)))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    }))
}
