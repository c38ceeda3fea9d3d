//! The test app: a small HTTP server in one static program that misbehaves as its environment says.
//!
//! Its source, `testapp/main.rs`, is compiled on its own with `rustc`, so that it needs nothing of a root file system
//! and an image of it holds one file.

use std::io;
use std::path::{Path, PathBuf};

/// The source.
const SOURCE: &str = include_str!("../testapp/main.rs");

/// The compiled test app.
#[derive(Debug, Clone)]
pub struct TestApp {
    /// The static program.
    pub path: PathBuf,
}

impl TestApp {
    /// Compiles it into `cache` unless the same source has been before.
    ///
    /// # Errors
    /// If `rustc` can't be run or refuses, or `cache` can't be written.
    pub fn build(cache: &Path) -> io::Result<Self> {
        let (path, built_from) = (cache.join("testapp"), cache.join("testapp.rs"));
        if path.exists() && std::fs::read_to_string(&built_from).is_ok_and(|built| built == SOURCE) {
            return Ok(Self { path });
        }
        // In a folder of its own and then renamed: other tests may be building or running the same.
        std::fs::create_dir_all(cache)?;
        let folder = tempfile::tempdir_in(cache)?;
        let (source, fresh) = (folder.path().join("testapp.rs"), folder.path().join("testapp"));
        std::fs::write(&source, SOURCE)?;
        #[allow(clippy::disallowed_methods)] // only the compiler compiles
        let output = std::process::Command::new("rustc")
            .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
            .args([&fresh, &source])
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("rustc: {}", String::from_utf8_lossy(&output.stderr))));
        }
        std::fs::rename(&fresh, &path)?;
        std::fs::rename(&source, &built_from)?;
        Ok(Self { path })
    }
}
