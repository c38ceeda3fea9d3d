//! The store itself.
//!
//! ```text
//! key               32 random bytes, 0600
//! lock              exclusive for who writes
//! secrets/NAME/N    version N, sealed
//! secrets/NAME/removed-N   versions up to N are removed; their numbers are never used again
//! ```

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use basalt_model::Name;
use basalt_seam::{SecretBytes, Secrets, SecretsError};
use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result, io};
use crate::file;
use crate::key::{self, Key};

/// The longest secret: what Kubernetes takes, so that a stack fits there too; keys and certificates have a few KiB.
const LONGEST: u64 = 1 << 20;

/// The store of secrets of one data directory. Several processes may use it at once.
pub struct SecretStore {
    dir: PathBuf,
    key: Key,
}

/// A secret, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its name.
    pub name: Name,
    /// Its newest version, counted from 1.
    pub version: u64,
}

impl SecretStore {
    /// Opens the store at `dir`, making it and its key if nothing is there.
    ///
    /// # Errors
    /// If the key can be read by others, is broken, or is missing while secrets are there.
    pub fn open(dir: &Path) -> Result<Self> {
        let secrets = dir.join("secrets");
        DirBuilder::new().recursive(true).mode(0o700).create(&secrets).map_err(io("create", &secrets))?;
        let path = dir.join("key");
        let key = match Key::read(&path)? {
            Some(key) => key,
            None => {
                let _lock = lock(dir)?;
                // Another process may have made it while this one waited.
                match Key::read(&path)? {
                    Some(key) => key,
                    None if holds_sealed(&secrets)? => return Err(Error::KeyMissing { path }),
                    None => Key::make(&path)?,
                }
            }
        };
        Ok(Self { dir: dir.to_owned(), key })
    }

    /// Stores a new version and returns its number; if the content is that of the newest version, returns that.
    ///
    /// # Errors
    /// If the content is longer than 1 MiB, or the store can't be written.
    pub fn set(&self, name: &Name, content: &[u8]) -> Result<u64> {
        if content.len() as u64 > LONGEST {
            return Err(Error::TooLong { name: name.clone(), bytes: content.len() as u64, most: LONGEST });
        }
        let _lock = lock(&self.dir)?;
        let versions = self.versions(name)?;
        if let Some(newest) = versions.newest() {
            // One that can't be decrypted is no reason to refuse a new one: it is the cure.
            if self.decrypt(name, newest).is_ok_and(|old| old == content) {
                return Ok(newest);
            }
        }
        let version = versions.highest() + 1;
        let dir = self.of(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io("create", &dir))?;
        let path = dir.join(version.to_string());
        file::write_new(&path, &self.key.seal(&path, name, version, content)?)?;
        file::sync_dir(&self.dir.join("secrets"))?;
        Ok(version)
    }

    /// Returns all secrets, sorted by name.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn list(&self) -> Result<Vec<SecretInfo>> {
        let dir = self.dir.join("secrets");
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io("list", &dir))? {
            let entry = entry.map_err(io("list", &dir))?;
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()) else { continue };
            if let Some(version) = self.versions(&name)?.newest() {
                all.push(SecretInfo { name, version });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes all versions of a secret and returns whether there were any. Their numbers are never used again, so that a
    /// release that pins one can't come to mean another content.
    ///
    /// # Errors
    /// If the store can't be written.
    pub fn remove(&self, name: &Name) -> Result<bool> {
        let _lock = lock(&self.dir)?;
        let versions = self.versions(name)?;
        let Some(newest) = versions.newest() else { return Ok(false) };
        let dir = self.of(name);
        file::write_new(&dir.join(format!("removed-{newest}")), b"")?;
        // From here on they are gone for everyone; what a crash leaves of them goes with the next removal.
        for version in &versions.all {
            let path = dir.join(version.to_string());
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
        file::sync_dir(&dir)?;
        Ok(true)
    }

    fn of(&self, name: &Name) -> PathBuf {
        self.dir.join("secrets").join(name.as_str())
    }

    fn versions(&self, name: &Name) -> Result<Versions> {
        let dir = self.of(name);
        let mut versions = Versions::default();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(versions),
            Err(e) => return Err(io("list", &dir)(e)),
        };
        for entry in entries {
            let entry = entry.map_err(io("list", &dir))?.file_name();
            let Some(text) = entry.to_str() else { continue };
            if let Some(number) = text.strip_prefix("removed-").and_then(canonical) {
                versions.removed = versions.removed.max(number);
            } else if let Some(number) = canonical(text) {
                versions.all.push(number);
            }
        }
        Ok(versions)
    }

    fn decrypt(&self, name: &Name, version: u64) -> Result<Vec<u8>> {
        let not_here = || Error::NotHere { name: name.clone(), version };
        if version <= self.versions(name)?.removed {
            return Err(not_here());
        }
        let path = self.of(name).join(version.to_string());
        let sealed = match file::open(&path).and_then(|file| file::read(&file, LONGEST + key::overhead() + 1)) {
            Ok(sealed) => sealed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(not_here()),
            Err(e) => return Err(io("read", &path)(e)),
        };
        self.key.open(&path, name, version, &sealed)
    }
}

impl Secrets for SecretStore {
    fn latest(&self, name: &Name) -> std::result::Result<Option<u64>, SecretsError> {
        self.versions(name).map(|versions| versions.newest()).map_err(|e| seam(name, &e))
    }

    fn reveal(&self, name: &Name, version: u64) -> std::result::Result<SecretBytes, SecretsError> {
        self.decrypt(name, version).map(SecretBytes::new).map_err(|e| seam(name, &e))
    }
}

impl std::fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// The versions of one secret.
#[derive(Debug, Default)]
struct Versions {
    all: Vec<u64>,
    removed: u64,
}

impl Versions {
    fn newest(&self) -> Option<u64> {
        self.all.iter().copied().filter(|version| *version > self.removed).max()
    }

    fn highest(&self) -> u64 {
        self.all.iter().copied().max().unwrap_or(0).max(self.removed)
    }
}

/// Returns the number only if `text` is how that version is written.
fn canonical(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n: &u64| *n > 0 && n.to_string() == text)
}

fn seam(name: &Name, error: &Error) -> SecretsError {
    let source = std::error::Error::source(error).map(|source| source.to_string().into());
    SecretsError { name: name.clone(), what: error.to_string(), source }
}

fn holds_sealed(secrets: &Path) -> Result<bool> {
    let mut dirs = fs::read_dir(secrets).map_err(io("list", secrets))?;
    Ok(dirs.next().is_some())
}

/// Keeps other writers out until it is dropped.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::options().create(true).append(true).open(&path).map_err(io("open", &path))?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(io("lock", &path)(e.into())),
        }
    }
}
