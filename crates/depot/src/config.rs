//! Image configurations (OCI image spec, "Image Configuration").

use std::collections::BTreeMap;

use basalt_model::manifest::architecture;
use basalt_model::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::refuse;

/// The largest user or group number: beyond it, runtimes have wrapped numbers round to root (CVE-2024-40635).
const LARGEST_ID: u64 = i32::MAX as u64;

/// An image configuration, as far as the depot knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    /// Fixed, for the same bytes on any machine; only in what is baked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<Process>,
    pub(crate) rootfs: RootFs,
}

/// What to run, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exposed_ports: Option<BTreeMap<String, Empty>>,
}

/// An object without fields (Go's `struct{}`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// The layers, by the digests of what they unpack to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<String>,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If it is malformed, or says what must not be followed.
    pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(bytes).map_err(|e| refuse(what, format!("it is malformed: {e}")))?;
        if config.rootfs.kind != "layers" {
            return Err(refuse(what, format!("its root is of type `{}`, not `layers`", config.rootfs.kind)));
        }
        config.process().check().map_err(|why| refuse(what, why))?;
        Ok(config)
    }

    /// Returns the digests of the unpacked layers, lowest first.
    pub(crate) fn diff_ids(&self, what: &str) -> Result<Vec<Digest>> {
        let parse = |id: &String| id.parse().map_err(|e: basalt_model::InvalidDigest| refuse(what, e.to_string()));
        self.rootfs.diff_ids.iter().map(parse).collect()
    }

    /// Refuses an image for another kind of machine than this.
    pub(crate) fn check_platform(&self, what: &str) -> Result<()> {
        if self.os == "linux" && self.architecture == architecture() {
            return Ok(());
        }
        let (os, arch, host) = (&self.os, &self.architecture, architecture());
        Err(refuse(what, format!("the image is for {os}/{arch}, and this machine is linux/{host}")))
    }

    /// Returns what the image says about running it.
    pub(crate) fn process(&self) -> ImageConfig {
        let process = self.config.clone().unwrap_or_default();
        let env = process.env.unwrap_or_default().into_iter();
        let entrypoint = process.entrypoint.unwrap_or_default();
        ImageConfig {
            command: [entrypoint.clone(), process.cmd.unwrap_or_default()].concat(),
            env: env.map(|pair| split_env(&pair)).collect(),
            user: process.user.unwrap_or_default(),
            workdir: process.working_dir.unwrap_or_default(),
            labels: process.labels.unwrap_or_default(),
            entrypoint,
            expose: process.exposed_ports.unwrap_or_default().into_keys().collect(),
        }
    }
}

impl Process {
    /// Returns what `says` sets, over what `base` sets.
    pub(crate) fn over(base: &ImageConfig, says: &ImageConfig) -> Self {
        let text =
            |new: &str, old: &str| Some(if new.is_empty() { old } else { new }.to_owned()).filter(|t| !t.is_empty());
        let both = |old: &BTreeMap<String, String>, new: &BTreeMap<String, String>| {
            let mut all = old.clone();
            all.extend(new.clone());
            all
        };
        let env = both(&base.env, &says.env);
        let source = if says.command.is_empty() { base } else { says };
        let (entrypoint, arguments) = match source.command.strip_prefix(&source.entrypoint[..]) {
            Some(arguments) => (source.entrypoint.clone(), arguments.to_vec()),
            None => (Vec::new(), source.command.clone()),
        };
        let expose = base.expose.union(&says.expose).map(|port| (port.clone(), Empty {}));
        Self {
            user: text(&says.user, &base.user),
            env: Some(env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()).filter(|e| !e.is_empty()),
            entrypoint: Some(entrypoint).filter(|e| !e.is_empty()),
            cmd: Some(arguments).filter(|c| !c.is_empty()),
            working_dir: text(&says.workdir, &base.workdir),
            labels: Some(both(&base.labels, &says.labels)).filter(|l| !l.is_empty()),
            exposed_ports: Some(expose.collect::<BTreeMap<_, _>>()).filter(|e| !e.is_empty()),
        }
    }
}

/// Refuses what no process could be started with.
trait Check {
    fn check(&self) -> std::result::Result<(), String>;
}

impl Check for ImageConfig {
    fn check(&self) -> std::result::Result<(), String> {
        check_user(&self.user)?;
        let texts = self.command.iter().chain(self.env.keys()).chain(self.env.values()).chain([&self.workdir]);
        if let Some(text) = texts.into_iter().find(|t| t.contains('\0')) {
            return Err(format!("`{}` has a NUL byte", text.escape_default()));
        }
        if !self.workdir.is_empty() && !self.workdir.starts_with('/') {
            return Err(format!("its working directory `{}` is not an absolute path", self.workdir));
        }
        Ok(())
    }
}

/// Checks what a bake says about running the image.
pub(crate) fn check(config: &ImageConfig) -> Result<()> {
    config.check().map_err(Error::BakeSays)
}

fn split_env(pair: &str) -> (String, String) {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (name.to_owned(), value.to_owned())
}

/// Refuses users and groups that are neither a name nor a number that any kernel takes.
fn check_user(user: &str) -> std::result::Result<(), String> {
    let fail = |why: &str| Err(format!("its user `{}` {why}", user.escape_default()));
    if user.is_empty() {
        return Ok(());
    }
    for part in user.splitn(2, ':') {
        if part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty() {
            if !part.parse::<u64>().is_ok_and(|id| id <= LARGEST_ID) {
                return fail("has a number above 2147483647");
            }
            continue;
        }
        let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-$@".contains(&b));
        if part.is_empty() || !plain || part.starts_with(['-', '.']) {
            return fail("is neither USER, UID, USER:GROUP nor UID:GID");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        let check = |user: &str, ok: bool| assert_eq!(check_user(user).is_ok(), ok, "{user}");
        check("", true);
        check("0", true);
        check("app", true);
        check("app:web", true);
        check("1000:1000", true);
        check("2147483647", true);
        check("2147483648", false);
        check("4294967296:0", false);
        check("99999999999999999999999", false);
        check("-1", false);
        check("+5", false);
        check("1:", false);
        check(":1", false);
        check("a b", false);
        check("a:b:c", false);
        check("../etc", false);
    }

    #[test]
    fn commands_are_joined_and_environment_is_split() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Entrypoint":["/a"],"Cmd":["b"],"Env":["X=1=2","Y"],"User":"7","WorkingDir":"/w","Labels":null}}"#;
        let process = Config::parse("config", text.as_bytes()).unwrap().process();
        assert_eq!(process.command, ["/a", "b"]);
        assert_eq!(process.env["X"], "1=2");
        assert_eq!(process.env["Y"], "");
        assert_eq!((process.user.as_str(), process.workdir.as_str()), ("7", "/w"));
    }
}
