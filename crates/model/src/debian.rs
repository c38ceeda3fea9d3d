//! A root made of Debian packages, and the lock file that pins it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A root made of signed Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debian {
    /// The release: `bookworm`.
    pub suite: String,
    /// Packages besides the essential ones and `apt`.
    pub packages: Vec<String>,
    /// Sections of the archive: `main`, `contrib`.
    pub components: Vec<String>,
    /// The archive's address; `None` is where this machine's own packages come from (or Debian's, for a snapshot).
    pub mirror: Option<String>,
    /// What makes it the same next year.
    pub pin: DebianPin,
}

/// What pins the versions of Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DebianPin {
    /// The archive as it was at this time: `20260101T000000Z`.
    Snapshot(String),
    /// A file of versions and hashes.
    Lock {
        /// Its absolute path.
        file: PathBuf,
        /// What it says; `None` if it has not been written yet.
        lock: Option<DebianLock>,
    },
}

/// What a package is known by in a lock: name and architecture.
pub type LockedName = (String, String);

/// Every package of a root, with version and hash.
///
/// As text one line per package, sorted: `NAME VERSION ARCHITECTURE sha256:HEX`; lines beginning with `#` say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<LockedRow>", into = "Vec<LockedRow>")]
pub struct DebianLock {
    /// Version and hash of the package's file, by name and architecture.
    pub packages: BTreeMap<LockedName, (String, Digest)>,
}

type LockedRow = (String, String, String, Digest);

impl From<Vec<LockedRow>> for DebianLock {
    fn from(rows: Vec<LockedRow>) -> Self {
        let rows = rows.into_iter().map(|(name, version, arch, digest)| ((name, arch), (version, digest)));
        Self { packages: rows.collect() }
    }
}

impl From<DebianLock> for Vec<LockedRow> {
    fn from(lock: DebianLock) -> Self {
        let rows = lock.packages.into_iter().map(|((name, arch), (version, digest))| (name, version, arch, digest));
        rows.collect()
    }
}

impl fmt::Display for DebianLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# Debian packages of an image; written by `basalt image lock`.\n")?;
        for ((name, architecture), (version, digest)) in &self.packages {
            writeln!(f, "{name} {version} {architecture} {digest}")?;
        }
        Ok(())
    }
}

/// Which line of a lock can't be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not `NAME VERSION ARCHITECTURE sha256:HEX`")]
pub struct InvalidLock {
    /// Counted from 1.
    pub line: usize,
}

impl std::str::FromStr for DebianLock {
    type Err = InvalidLock;

    fn from_str(text: &str) -> Result<Self, InvalidLock> {
        let mut packages = BTreeMap::new();
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
            let invalid = || InvalidLock { line: n + 1 };
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, version, architecture, digest] = fields[..] else { return Err(invalid()) };
            // They become lines of apt's own configuration.
            let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
            if !plain(name, "+-.") || !plain(version, "+-.:~") || !plain(architecture, "-") {
                return Err(invalid());
            }
            let digest = digest.parse().map_err(|_| invalid())?;
            packages.insert((name.to_owned(), architecture.to_owned()), (version.to_owned(), digest));
        }
        Ok(Self { packages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let text = format!("# x\n\nlibc6 2.36-9+deb12u10 amd64 {digest}\nadduser 3.134 all {digest}\n");
        let lock: DebianLock = text.parse().unwrap();
        assert_eq!(lock.to_string().parse::<DebianLock>().unwrap(), lock);
        assert_eq!(lock.packages[&("libc6".into(), "amd64".into())].0, "2.36-9+deb12u10");
        let json = serde_json::to_string(&lock).unwrap();
        assert_eq!(serde_json::from_str::<DebianLock>(&json).unwrap(), lock);
    }

    #[test]
    fn what_is_no_lock_is_refused_with_its_line() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check =
            |text: &str, line: usize| assert_eq!(text.parse::<DebianLock>(), Err(InvalidLock { line }), "{text}");
        check("libc6", 1);
        check(&format!("# x\nlibc6 1 amd64 {digest} more"), 2);
        check("libc6 1 amd64 sha256:12", 1);
        check(&format!("libc6 1\u{a0} amd64 {digest}"), 1);
        check(&format!("libc6; 1 amd64 {digest}"), 1);
    }
}
