//! Reading tar entries from a stream that nobody vouches for.
//!
//! The `tar` crate reads the header fields. The loop is our own for three reasons: the crate's reads extension entries
//! of any length into memory, cuts PAX records by line, and lets a PAX size differ from the header's.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::limits::LONGEST_EXTENSION;
use crate::pax::Pax;

/// The size of a block of a tar file (POSIX.1-2017, pax, "ustar Interchange Format").
const BLOCK: u64 = 512;

/// An entry without its content.
#[derive(Debug, Clone)]
pub(crate) struct TarEntry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) link: Vec<u8>,
    pub(crate) size: u64,
    /// Where its content begins, counted from the beginning of the stream.
    pub(crate) offset: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) xattrs: std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why a tar stream is refused, and at which entry.
#[derive(Debug)]
pub(crate) enum TarError {
    /// The stream itself could not be read.
    Io(io::Error),
    /// The stream is malformed or has something that is refused.
    Refused {
        /// The entry's name, if it was known by then.
        entry: Option<Vec<u8>>,
        /// A sentence.
        why: String,
    },
}

/// Reads entries one after the other. Content that was not read is skipped.
pub(crate) struct TarReader<R> {
    inner: R,
    position: u64,
    left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, position: 0, left: 0, padding: 0 }
    }

    /// Returns the next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<TarEntry>, TarError> {
        let mut pax: Option<Pax> = None;
        let mut long_path: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if pax.is_some() || long_path.is_some() || long_link.is_some() {
                    return Err(refused(None, "it ends between an extended header and its entry"));
                }
                return Ok(None);
            };
            let name = header.path_bytes().into_owned();
            let size = header.entry_size().map_err(|_| refused(Some(&name), "its size is not a number"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.extension(&name, size)?;
                    let parsed = Pax::parse(&bytes).map_err(|why| refused(Some(&name), why))?;
                    once(&mut pax, parsed, &name)?;
                }
                EntryType::GNULongName => {
                    let bytes = self.extension(&name, size)?;
                    once(&mut long_path, until_nul(bytes), &name)?;
                }
                EntryType::GNULongLink => {
                    let bytes = self.extension(&name, size)?;
                    once(&mut long_link, until_nul(bytes), &name)?;
                }
                // Comments for the whole archive (`git archive` writes one); readers of layers pass over them.
                EntryType::XGlobalHeader => drop(self.extension(&name, size)?),
                _ => return self.entry(&header, size, pax.unwrap_or_default(), long_path, long_link).map(Some),
            }
        }
    }

    /// Reads the content of the entry that `next` has returned.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Returns the stream, for reading what follows the archive.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    fn entry(
        &mut self,
        header: &Header,
        header_size: u64,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<TarEntry, TarError> {
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |why: &str| refused(Some(&path), why);
        let size = match pax.size {
            Some(size) if header_size != 0 && header_size != size => {
                return Err(refused(
                    Some(&path),
                    format!("its header says {header_size} bytes and its PAX header {size}"),
                ));
            }
            Some(size) => size,
            None => header_size,
        };
        let mut kind = header.entry_type();
        // Archives older than POSIX mark directories by their name alone.
        if kind.is_file() && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        if kind.is_gnu_sparse() {
            return Err(fail("it is a sparse file, which layers don't use; pack it as a plain file"));
        }
        if size != 0 && !kind.is_file() && !kind.is_contiguous() {
            return Err(fail("it is no file but has content"));
        }
        let link = pax.link.or(long_link).or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let old = header.as_old();
        let entry = TarEntry {
            kind,
            link: link.unwrap_or_default(),
            size,
            offset: self.position,
            mode: or_blank(&old.mode, || header.mode()).map_err(|_| fail("its mode is not a number"))?,
            uid: match pax.uid {
                Some(uid) => uid,
                None => or_blank(&old.uid, || header.uid()).map_err(|_| fail("its owner is not a number"))?,
            },
            gid: match pax.gid {
                Some(gid) => gid,
                None => or_blank(&old.gid, || header.gid()).map_err(|_| fail("its group is not a number"))?,
            },
            mtime: match pax.mtime {
                Some(time) => time,
                None => {
                    let seconds =
                        or_blank(&old.mtime, || header.mtime()).map_err(|_| fail("its time is not a number"))?;
                    (i64::try_from(seconds).unwrap_or(0), 0)
                }
            },
            xattrs: pax.xattrs,
            path,
        };
        self.left = size;
        self.padding = padding(size);
        Ok(entry)
    }

    /// Reads a header block; `None` at the end mark or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(refused(None, "it ends within a header")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TarError::Io(e)),
            }
        }
        self.position += BLOCK;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The sum is taken with blanks in the place of the checksum itself (bytes 148 to 155).
        let sum: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        match header.cksum() {
            Ok(written) if written == sum => Ok(Some(header)),
            _ => Err(refused(None, "a header's checksum is wrong, so this is no tar stream or a damaged one")),
        }
    }

    fn extension(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, TarError> {
        if size > LONGEST_EXTENSION {
            return Err(refused(
                Some(name),
                format!("its extended header has {size} bytes, more than {LONGEST_EXTENSION}"),
            ));
        }
        self.left = size;
        self.padding = padding(size);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes).map_err(TarError::Io)?;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.content(), &mut io::sink()).map_err(TarError::Io)?;
        // `umoci insert` ends its archives right behind the last file, where Go's readers see nothing amiss.
        let padding = (&mut self.inner).take(self.padding);
        self.position += io::copy(&mut { padding }, &mut io::sink()).map_err(TarError::Io)?;
        self.padding = 0;
        Ok(())
    }
}

/// Reads the content of one entry.
pub(crate) struct Content<'a, R>(&'a mut TarReader<R>);

impl<R> Content<'_, R> {
    /// Returns how many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.0.left
    }

    /// Returns the stream, for who passes over the content in another way than by reading.
    pub(crate) fn stream(&mut self) -> &mut R {
        &mut self.0.inner
    }

    /// Takes note that the stream was moved behind the content.
    pub(crate) fn passed(&mut self) {
        self.0.position += self.0.left;
        self.0.left = 0;
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.0.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
        }
        self.0.left -= n as u64;
        self.0.position += n as u64;
        Ok(n)
    }
}

/// Reads a number; one that was left out is nothing, as other readers take it.
fn or_blank<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { read() }
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

fn once<T>(slot: &mut Option<T>, value: T, name: &[u8]) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(refused(Some(name), "two extended headers of the same kind stand before one entry")),
    }
}

fn refused(entry: Option<&[u8]>, why: impl Into<String>) -> TarError {
    TarError::Refused { entry: entry.map(<[u8]>::to_vec), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_need_not_be_filled_but_the_file_must_be_whole() {
        let read = |content: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_path("file").unwrap();
            header.set_size(7);
            header.set_cksum();
            let archive = [header.as_bytes(), content].concat();
            let mut tar = TarReader::new(&*archive);
            assert_eq!(tar.next().ok().flatten().unwrap().path, b"file");
            tar.next().map(|entry| entry.is_none()).map_err(|_| ())
        };
        assert_eq!(read(b"content"), Ok(true));
        assert_eq!(read(b"content\0\0"), Ok(true));
        assert_eq!(read(b"conten"), Err(()));
    }
}
