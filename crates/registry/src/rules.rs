//! Where the images of a registry are to be had: mirrors, plain HTTP, other places (containers-registries.conf(5)).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result, io};
use crate::reference::Reference;

/// The rules of one `registries.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    path: PathBuf,
    rules: Vec<Rule>,
}

/// The file as it is written. Keys that only concern names without a registry are passed over.
#[derive(Deserialize)]
struct Written {
    #[serde(default, rename = "registry")]
    rules: Vec<Rule>,
}

/// A `[[registry]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default, rename = "mirror")]
    mirrors: Vec<Mirror>,
}

/// A `[[registry.mirror]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

/// What a mirror may be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

/// One place where a repository is to be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// Host, with its port if it has one.
    pub(crate) host: String,
    /// The repository there.
    pub(crate) repository: String,
    /// Whether certificates are not checked, and plain HTTP will do.
    pub(crate) insecure: bool,
}

impl Endpoint {
    /// Returns whether plain HTTP will do: where it was said, and on this machine itself.
    pub(crate) fn may_be_plain(&self) -> bool {
        self.insecure || is_loopback(&self.host)
    }
}

/// Returns whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

impl Rules {
    /// Reads a file; `None` if it is not there.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("read", path)(e)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let fail = |why: String| Error::Settings { path: path.to_owned(), why };
        let written: Written = toml::from_str(text).map_err(|e| fail(e.to_string().trim_end().to_owned()))?;
        if written.rules.iter().any(|rule| rule.prefix.is_none() && rule.location.is_none()) {
            return Err(fail("a `[[registry]]` has neither `prefix` nor `location`".into()));
        }
        Ok(Self { path: path.to_owned(), rules: written.rules })
    }

    /// Returns where to ask for an image, in order: mirrors, then the registry itself.
    ///
    /// # Errors
    /// If the registry is blocked.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let own = || split(&reference.name(), false);
        let Some((rule, rest)) = self.rule(reference) else { return Ok(vec![own()]) };
        if rule.blocked {
            return Err(Error::Blocked { reference: reference.to_string(), path: self.path.clone() });
        }
        let by_digest = reference.digest.is_some();
        let asked = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFrom::All => by_digest || !rule.mirror_by_digest_only,
            PullFrom::DigestOnly => by_digest,
            PullFrom::TagOnly => !by_digest,
        };
        let mirrors = rule.mirrors.iter().filter(asked);
        let mut found: Vec<Endpoint> =
            mirrors.map(|mirror| split(&format!("{}{rest}", mirror.location), mirror.insecure)).collect();
        found.push(match &rule.location {
            Some(location) => split(&format!("{location}{rest}"), rule.insecure),
            None => Endpoint { insecure: rule.insecure, ..own() },
        });
        Ok(found)
    }

    /// Returns where an image is pushed to: the registry itself, never a mirror.
    pub(crate) fn target(&self, reference: &Reference) -> Result<Endpoint> {
        let last = self.endpoints(reference)?.pop();
        Ok(last.unwrap_or_else(|| split(&reference.name(), false)))
    }

    /// Returns the rule with the longest prefix that fits, and what of the name is behind the prefix.
    fn rule(&self, reference: &Reference) -> Option<(&Rule, String)> {
        let name = reference.name();
        let fitting = self.rules.iter().filter_map(|rule| {
            let prefix = rule.prefix.as_deref().or(rule.location.as_deref())?;
            let rest = match prefix.strip_prefix("*.") {
                Some(domain) => {
                    let (host, path) = name.split_once('/')?;
                    host.strip_suffix(domain).filter(|sub| sub.ends_with('.'))?;
                    format!("/{path}")
                }
                None => name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))?.to_owned(),
            };
            Some((prefix.len(), rule, rest))
        });
        fitting.max_by_key(|(length, ..)| *length).map(|(_, rule, rest)| (rule, rest))
    }
}

/// Splits `HOST/NAME`.
fn split(name: &str, insecure: bool) -> Endpoint {
    let (host, repository) = name.split_once('/').unwrap_or((name, ""));
    Endpoint { host: host.to_owned(), repository: repository.to_owned(), insecure }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example.com/hub"
[[registry.mirror]]
location = "127.0.0.1:5001"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
prefix = "docker.io/secret"
blocked = true

[[registry]]
prefix = "*.old.example.com"
location = "new.example.com/old"

[[registry]]
location = "plain.example.com:5000"
insecure = true
"#;

    #[test]
    fn endpoints() {
        let rules = Rules::parse(Path::new("registries.conf"), FILE).unwrap();
        let check = |reference: &str, expected: &[&str]| {
            let found = match rules.endpoints(&reference.parse().unwrap()) {
                Ok(found) => found
                    .iter()
                    .map(|e| format!("{}/{}{}", e.host, e.repository, if e.insecure { " insecure" } else { "" }))
                    .collect(),
                Err(e) => vec![e.to_string()],
            };
            assert_eq!(found, expected, "{reference}");
        };
        let digest = format!("sha256:{}", "ab".repeat(32));
        check("nginx", &["mirror.example.com/hub/library/nginx", "docker.io/library/nginx"]);
        check(
            &format!("nginx@{digest}"),
            &[
                "mirror.example.com/hub/library/nginx",
                "127.0.0.1:5001/library/nginx insecure",
                "docker.io/library/nginx",
            ],
        );
        check("secret/x", &["`docker.io/secret/x:latest` is blocked by `registries.conf`"]);
        check("secrets/x", &["mirror.example.com/hub/secrets/x", "docker.io/secrets/x"]);
        check("a.old.example.com/web", &["new.example.com/old/web"]);
        check("old.example.com/web", &["old.example.com/web"]);
        check("plain.example.com:5000/web", &["plain.example.com:5000/web insecure"]);
        check("plain.example.com/web", &["plain.example.com/web"]);
    }

    #[test]
    fn faults_are_said() {
        let check = |text: &str, part: &str| {
            let error = Rules::parse(Path::new("r.conf"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("[[registry]]\nlocation = 1", "line 2");
        check("[[registry]]\nlocation = \"a\"\ninsecur = true", "insecur");
        check("[[registry]]\ninsecure = true", "neither");
    }

    #[test]
    fn loopback() {
        let check = |host: &str, expected: bool| assert_eq!(is_loopback(host), expected, "{host}");
        check("localhost", true);
        check("localhost:5000", true);
        check("127.0.0.1:5000", true);
        check("127.1.2.3", true);
        check("localhost.example.com", false);
        check("10.0.0.1:5000", false);
        check("example.com", false);
    }
}
