//! What `cargo metadata` says about the workspace.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The workspace and all packages it is built from.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// Every package, those of registries included.
    pub packages: Vec<Package>,
    /// Ids of the workspace's own packages.
    pub workspace_members: Vec<String>,
    /// The folder of the root `Cargo.toml`.
    pub workspace_root: PathBuf,
}

/// One package.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Package {
    /// Unique among packages.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression; `None` if it does not say.
    pub license: Option<String>,
    /// What it depends on, as declared.
    pub dependencies: Vec<Dependency>,
    /// Its libraries, programs and tests.
    pub targets: Vec<Target>,
}

/// One declared dependency.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// `None` (normal), `dev` or `build`.
    pub kind: Option<String>,
}

/// One thing that a package builds.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Target {
    /// `lib`, `bin`, `test`, `example` …
    pub kind: Vec<String>,
    /// Its root source file.
    pub src_path: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo can't be run or does not know the workspace.
    pub fn read() -> anyhow::Result<Self> {
        // Only packages of the host's platform are downloaded, so only those are asked about.
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        #[allow(clippy::disallowed_methods)] // cargo alone knows the graph
        let output = std::process::Command::new(&cargo)
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &platform])
            .output()
            .with_context(|| format!("`{}` could not be run", cargo.display()))?;
        ensure!(output.status.success(), "`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        serde_json::from_slice(&output.stdout).context("`cargo metadata` wrote something unexpected")
    }

    /// Returns the workspace's own packages.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}
