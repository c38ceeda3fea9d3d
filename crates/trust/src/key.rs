//! The key, and what is sealed with it.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use basalt_model::Name;
use chacha20poly1305::aead::{Aead, Generate, Key as AeadKey, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::error::{Error, Result, io};
use crate::file;

/// Bytes of the key (XChaCha20-Poly1305).
const KEY_BYTES: usize = 32;
/// Bytes of a nonce: long enough that random ones never meet.
const NONCE_BYTES: usize = 24;
/// Stands before every sealed file, and is bound to its content.
const FORMAT: &[u8; 8] = b"basalt1\n";

/// Seals and opens secrets. The bytes of the key are wiped when it is dropped.
pub(crate) struct Key(XChaCha20Poly1305);

impl Key {
    /// Reads the key; `None` if there is none.
    ///
    /// # Errors
    /// If others than its owner may use it, or it is no key.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let file = match file::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io("open", path)(e)),
        };
        let meta = file.metadata().map_err(io("read", path))?;
        let broken = |why: String| Error::KeyBroken { path: path.to_owned(), why };
        if !meta.is_file() {
            return Err(broken("it is no file".into()));
        }
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::KeyOpen { path: path.to_owned(), mode });
        }
        let me = rustix::process::geteuid().as_raw();
        if meta.uid() != me {
            return Err(broken(format!("it belongs to user {}, not to {me}", meta.uid())));
        }
        let bytes = file::read(&file, KEY_BYTES as u64 + 1).map_err(io("read", path))?;
        let cipher =
            XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| broken(format!("it has not {KEY_BYTES} bytes")))?;
        Ok(Some(Self(cipher)))
    }

    /// Makes a key and writes it.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        let key = AeadKey::<XChaCha20Poly1305>::try_generate().map_err(|_| no_randomness(path))?;
        file::write_new(path, &key)?;
        Ok(Self(XChaCha20Poly1305::new(&key)))
    }

    /// Encrypts a version.
    pub(crate) fn seal(&self, path: &Path, name: &Name, version: u64, content: &[u8]) -> Result<Vec<u8>> {
        let nonce = XNonce::try_generate().map_err(|_| no_randomness(path))?;
        let payload = Payload { msg: content, aad: &bound(name, version) };
        // The cipher fails on contents above 256 GiB alone, far beyond what the store takes.
        let sealed = self.0.encrypt(&nonce, payload).map_err(|_| Error::Tampered { path: path.to_owned() })?;
        Ok([FORMAT.as_slice(), &nonce, &sealed].concat())
    }

    /// Decrypts a version.
    pub(crate) fn open(&self, path: &Path, name: &Name, version: u64, bytes: &[u8]) -> Result<Vec<u8>> {
        let tampered = || Error::Tampered { path: path.to_owned() };
        let rest = bytes.strip_prefix(FORMAT).ok_or_else(tampered)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or_else(tampered)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| tampered())?;
        self.0.decrypt(&nonce, Payload { msg: sealed, aad: &bound(name, version) }).map_err(|_| tampered())
    }
}

/// Returns how many bytes sealing adds.
pub(crate) const fn overhead() -> u64 {
    // Behind the content stands a tag of 16 bytes.
    (FORMAT.len() + NONCE_BYTES + 16) as u64
}

/// Returns what is bound to a version's content. A name has no NUL, so no two pairs give the same bytes.
fn bound(name: &Name, version: u64) -> Vec<u8> {
    [FORMAT.as_slice(), name.as_str().as_bytes(), &[0], &version.to_le_bytes()].concat()
}

fn no_randomness(path: &Path) -> Error {
    io("make random bytes for", path)(std::io::Error::other("the system gave no random bytes"))
}
