//! Which files say how registries are reached: those that docker and podman read, and Basalt's own before them.

use std::path::{Path, PathBuf};

use crate::credentials::Credentials;
use crate::error::Result;
use crate::rules::Rules;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub(crate) rules: Rules,
    pub(crate) credentials: Credentials,
    /// Folders with a folder for each registry, which holds `*.crt` to trust and `*.cert` with `*.key` to show.
    pub(crate) certs: Vec<PathBuf>,
}

impl Settings {
    /// Reads the files. `own` is Basalt's own folder for them, `env` gives variables of the environment.
    ///
    /// - `registries.conf` (the first that is there): `own`, `$CONTAINERS_REGISTRIES_CONF`, `~/.config/containers`,
    ///   `/etc/containers`;
    /// - `certs.d`: `own`, `~/.config/containers`, `/etc/containers`, `/etc/docker`;
    /// - credentials: `$REGISTRY_AUTH_FILE` alone if it is set; else `own/auth.json`, `$XDG_RUNTIME_DIR/containers/auth.json`,
    ///   `~/.config/containers/auth.json`, `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    ///
    /// # Errors
    /// If a file is there and can't be read as what it is.
    pub fn load(own: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let dir = |variable: &str| env(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = dir("HOME");
        let config = dir("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let containers = config.map(|config| config.join("containers"));
        let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));

        let mut rules = Rules::default();
        let files = [
            Some(own.join("registries.conf")),
            dir("CONTAINERS_REGISTRIES_CONF"),
            below(&containers, "registries.conf"),
            Some("/etc/containers/registries.conf".into()),
        ];
        for file in files.into_iter().flatten() {
            if let Some(found) = Rules::read(&file)? {
                rules = found;
                break;
            }
        }
        let certs = [
            Some(own.join("certs.d")),
            below(&containers, "certs.d"),
            Some("/etc/containers/certs.d".into()),
            Some("/etc/docker/certs.d".into()),
        ];
        let auth_files = match dir("REGISTRY_AUTH_FILE") {
            Some(file) => vec![Some(file)],
            None => vec![
                Some(own.join("auth.json")),
                below(&dir("XDG_RUNTIME_DIR"), "containers/auth.json"),
                below(&containers, "auth.json"),
                below(&dir("DOCKER_CONFIG").or_else(|| below(&home, ".docker")), "config.json"),
            ],
        };
        Ok(Self {
            rules,
            credentials: Credentials::read(auth_files.into_iter().flatten())?,
            certs: certs.into_iter().flatten().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_that_is_there_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let env = |name: &str| match name {
            "HOME" => Some(dir.path().join("home").display().to_string()),
            _ => None,
        };
        let insecure = || {
            let settings = Settings::load(&dir.path().join("own"), &env).unwrap();
            settings.rules.endpoints(&"h.io/web".parse().unwrap()).unwrap()[0].insecure
        };
        write("home/.config/containers/registries.conf", "[[registry]]\nlocation = \"h.io\"\ninsecure = true");
        assert!(insecure());
        write("own/registries.conf", "");
        assert!(!insecure());
        write("own/registries.conf", "[[");
        let error = Settings::load(&dir.path().join("own"), &env).unwrap_err().to_string();
        assert!(error.contains("own/registries.conf`: "), "{error}");
    }
}
