//! Taking in a layer on two threads: one reads, checks, stores and unpacks; the other hashes and lays what was unpacked.
//!
//! Unpacking and hashing take about the same time, so two cores take half of it. What passes between them is bounded.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use basalt_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::manifest::Packing;

/// How much passes at once.
const CHUNK: usize = 256 << 10;

/// How many chunks may wait: enough that neither thread waits for the other's hiccups, few enough to be small.
const WAITING: usize = 16;

/// What is read, and what becomes of it.
pub(crate) struct Feed<'a> {
    /// The layer as it comes.
    pub(crate) content: Box<dyn Read + Send + 'a>,
    /// How it is packed; `None` if its first bytes tell.
    pub(crate) packing: Option<Packing>,
    /// Where it is stored.
    pub(crate) store: Stored,
    /// At most so many bytes of the content are read: one more than promised shows that there is more.
    pub(crate) most: u64,
}

/// Where a layer is stored.
pub(crate) enum Stored {
    /// It is in the depot already.
    Already,
    /// As it comes, in this new file.
    Packed(PathBuf),
    /// Unpacked, in this new file.
    Unpacked(PathBuf),
}

/// What the reading thread found.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The digest of the layer as it came, if it was stored so.
    pub(crate) digest: Option<Digest>,
    /// Its length as it came.
    pub(crate) length: u64,
}

/// Feeds the unpacked layer to `lay`, and returns what it returns beside what was found about the packed one. If `lay`
/// fails, the rest is still read and checked.
pub(crate) fn feed<T>(feed: Feed<'_>, lay: impl FnOnce(&mut dyn Read) -> T) -> (io::Result<Packed>, T) {
    std::thread::scope(|scope| {
        let (full, chunks) = sync_channel(WAITING);
        let (back, empties) = sync_channel(WAITING);
        let reader = scope.spawn(move || read(feed, &full, &empties));
        let mut stream = Chunks { chunks, back, chunk: Vec::new(), at: 0, ended: false };
        let laid = lay(&mut stream);
        // The reader sees by this that nobody takes its chunks any more.
        drop(stream);
        let packed = reader.join().unwrap_or_else(|_| Err(io::Error::other("reading the layer has failed")));
        (packed, laid)
    })
}

fn read(feed: Feed<'_>, full: &SyncSender<io::Result<Vec<u8>>>, empties: &Receiver<Vec<u8>>) -> io::Result<Packed> {
    let Feed { content, packing, store, most } = feed;
    let (packed_to, unpacked_to) = match &store {
        Stored::Already => (None, None),
        Stored::Packed(path) => (Some(create(path)?), None),
        Stored::Unpacked(path) => (None, Some(create(path)?)),
    };
    let hasher = packed_to.is_some().then(Sha256::new);
    let mut tee = Tee { inner: content.take(most), to: packed_to, hasher, length: 0, failed: None };
    let unpack = || -> io::Result<()> {
        let mut packed = BufReader::with_capacity(CHUNK, &mut tee);
        let packing = match packing {
            Some(packing) => packing,
            None => Packing::by_magic(io::BufRead::fill_buf(&mut packed)?),
        };
        let mut stream = packing.unpack(packed)?;
        let mut unpacked_to = unpacked_to;
        loop {
            let mut chunk = empties.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let filled = fill(&mut stream, &mut chunk)?;
            chunk.truncate(filled);
            if let Some(file) = &mut unpacked_to {
                file.write_all(&chunk)?;
            }
            // An empty chunk says that the stream has come to its end, and was not cut off.
            if full.send(Ok(chunk)).is_err() || filled == 0 {
                return Ok(());
            }
        }
    };
    let unpacked = unpack();
    // What can't be unpacked may not be what was promised: the digest decides which of the two is said.
    io::copy(&mut tee, &mut io::sink())?;
    let found =
        Packed { digest: tee.hasher.map(|hasher| Digest::from_bytes(hasher.finalize().into())), length: tee.length };
    if let Some(error) = tee.failed {
        return Err(error);
    }
    if let Err(error) = unpacked {
        // Nobody may be there to be told any more.
        drop(full.send(Err(error)));
    }
    Ok(found)
}

/// Creates a file as objects and blobs are: not to be written again.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).open(path)
}

fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Reads, and hashes, counts and stores what it reads.
struct Tee<R> {
    inner: R,
    to: Option<File>,
    hasher: Option<Sha256>,
    length: u64,
    /// Why reading or storing failed: an unpacker would say something else of it.
    failed: Option<io::Error>,
}

impl<R: Read> Tee<R> {
    fn pass(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buf[..n]);
        }
        if let Some(file) = &mut self.to {
            file.write_all(&buf[..n])?;
        }
        self.length += n as u64;
        Ok(n)
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        match self.pass(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let shown = io::Error::new(e.kind(), e.to_string());
                self.failed = Some(e);
                Err(shown)
            }
            read => read,
        }
    }
}

/// The unpacked layer, as it arrives.
struct Chunks {
    chunks: Receiver<io::Result<Vec<u8>>>,
    back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.ended {
            let next = match self.chunks.recv() {
                Ok(next) => next?,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it could not be read to its end")),
            };
            self.ended = next.is_empty();
            // To be used again; if there are enough, it is dropped.
            drop(self.back.try_send(std::mem::replace(&mut self.chunk, next)));
            self.at = 0;
        }
        let n = buf.len().min(self.chunk.len() - self.at);
        buf[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
