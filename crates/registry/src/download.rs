//! Fetching one blob: hashed while it streams, gone on with after a break, whole under its digest or not at all.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_model::Digest;
use basalt_model::manifest::Descriptor;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use crate::cache::Cache;
use crate::error::{Error, Result, io};
use crate::patience::Patience;
use crate::remote::{Ask, Remote, nothing};

/// How much is read at once of what is there already.
const CHUNK: usize = 256 << 10;

/// A blob that grows, and tells by how much.
struct Growing<'a> {
    path: &'a Path,
    file: File,
    hasher: Sha256,
    length: u64,
    done: &'a AtomicU64,
}

impl<'a> Growing<'a> {
    /// Opens what is there and hashes it; `done` grows by it.
    fn open(path: &'a Path, most: u64, done: &'a AtomicU64) -> Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(io("open", path))?;
        let mut this = Self { path, file, hasher: Sha256::new(), length: 0, done };
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = this.file.read(&mut buffer).map_err(io("read", path))?;
            if n == 0 {
                break;
            }
            this.count(&buffer[..n]);
        }
        if this.length > most {
            this.restart()?;
        }
        Ok(this)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Throws away what is there.
    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(io("write", self.path))?;
        self.hasher = Sha256::new();
        self.done.fetch_sub(self.length, Ordering::Relaxed);
        self.length = 0;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(io("write", self.path))?;
        self.count(bytes);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }
}

/// The places that a blob may be had from, in order.
pub(crate) type Remotes = [std::sync::Arc<Remote>];

/// What is fetched.
pub(crate) struct Fetch<'a> {
    pub(crate) patience: &'a Patience,
    pub(crate) blob: &'a Descriptor,
    /// What it is called in errors.
    pub(crate) what: &'a str,
}

impl Fetch<'_> {
    /// Brings the blob into the cache. `done` grows by what has come, and in all by the blob's size.
    ///
    /// # Errors
    /// If none of the remotes gives it, or it is not what its digest says.
    pub(crate) async fn fetch(&self, cache: &Cache, remotes: &Remotes, done: &AtomicU64) -> Result<()> {
        let _lock = cache.lock_blob(&self.blob.digest).await?;
        let (part, whole) = (cache.part(&self.blob.digest), cache.blob(&self.blob.digest));
        if whole.exists() {
            // It was checked once, but perhaps never got to the disk.
            if Growing::open(&whole, u64::MAX, &AtomicU64::new(0))?.digest() == self.blob.digest {
                done.fetch_add(self.blob.size, Ordering::Relaxed);
                return Ok(());
            }
            fs::remove_file(&whole).map_err(io("remove", &whole))?;
        }
        let mut growing = Growing::open(&part, self.blob.size, done)?;
        let resumed = growing.length > 0;
        let mut found = self.complete(remotes, &mut growing).await;
        if resumed && matches!(found, Err(Error::Mismatch { .. })) {
            // What was there from before may be what is wrong.
            growing.restart()?;
            found = self.complete(remotes, &mut growing).await;
        }
        match found {
            Ok(()) => fs::rename(&part, &whole).map_err(io("move", &whole)),
            Err(error) => {
                if matches!(error, Error::Mismatch { .. }) {
                    fs::remove_file(&part).map_err(io("remove", &part))?;
                }
                Err(error)
            }
        }
    }

    /// Asks one place after the other until the blob is whole and right.
    async fn complete(&self, remotes: &Remotes, growing: &mut Growing<'_>) -> Result<()> {
        let mut last = None;
        for remote in remotes {
            match self.from(remote, growing).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => {
                    if matches!(error, Error::Mismatch { .. }) {
                        growing.restart()?;
                    }
                    if remotes.len() > 1 {
                        tracing::warn!(host = remote.host(), %error, "not to be had here");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::NotFound { host: "none".to_owned(), what: self.what.to_owned() }))
    }

    /// Streams the blob from one place, and goes on after a break for as long as something moves.
    async fn from(&self, remote: &Remote, growing: &mut Growing<'_>) -> Result<()> {
        let mut failed = 0;
        while growing.length < self.blob.size {
            let before = growing.length;
            let Err(error) = self.stream(remote, growing).await else { continue };
            if !error.is_unreachable() {
                return Err(error);
            }
            failed = if growing.length > before { 1 } else { failed + 1 };
            let Some(wait) = self.patience.wait(failed, None) else { return Err(error) };
            tracing::debug!(host = remote.host(), %error, at = growing.length, "gone on with");
            tokio::time::sleep(wait).await;
        }
        let found = growing.digest();
        if found == self.blob.digest {
            return Ok(());
        }
        Err(self.mismatch(remote, self.blob.digest.to_string(), found.to_string()))
    }

    /// Streams what is missing until the connection ends.
    async fn stream(&self, remote: &Remote, growing: &mut Growing<'_>) -> Result<()> {
        let (blob, what) = (self.blob, self.what);
        let mut headers = HeaderMap::new();
        if growing.length > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", growing.length));
            headers.insert(RANGE, range.map_err(|e| remote.answer(what, e.to_string()))?);
        }
        let ask = Ask {
            method: Method::GET,
            url: remote.url(&format!("blobs/{}", blob.digest))?,
            headers,
            body: &nothing,
            what,
            attempts: self.patience.attempts,
        };
        let mut answer = remote.send(&ask).await?;
        let goes_on = answer.status() == StatusCode::PARTIAL_CONTENT && starts_at(answer.headers(), growing.length);
        if growing.length > 0 && !goes_on {
            // It does not know ranges, or gives another one.
            growing.restart()?;
            if answer.status() == StatusCode::PARTIAL_CONTENT {
                return Err(remote.answer(what, "it gives another range than was asked for".to_owned()));
            }
        }
        while let Some(bytes) = remote.chunk(&mut answer).await? {
            if growing.length + bytes.len() as u64 > blob.size {
                return Err(self.mismatch(remote, format!("{} bytes", blob.size), "more".to_owned()));
            }
            growing.put(&bytes)?;
        }
        if growing.length < blob.size {
            let why = format!("it ends after {} of {} bytes of {what}", growing.length, blob.size);
            return Err(Error::Unreachable { host: remote.host().to_owned(), why });
        }
        Ok(())
    }

    fn mismatch(&self, remote: &Remote, expected: String, found: String) -> Error {
        Error::Mismatch { what: self.what.to_owned(), host: remote.host().to_owned(), expected, found }
    }
}

/// Returns whether a partial answer starts where it was asked to (RFC 9110 §14.4).
fn starts_at(headers: &HeaderMap, at: u64) -> bool {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = text.and_then(|text| text.trim().strip_prefix("bytes ")?.split_once('-')?.0.trim().parse::<u64>().ok());
    start == Some(at)
}
