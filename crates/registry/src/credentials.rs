//! Who we are at a registry, from the files of docker and podman (containers-auth.json(5), docker's `config.json`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result, io};
use crate::helper;

/// How Docker Hub is called in docker's files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who we are at a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// User and password.
    Basic { user: String, password: String },
    /// A token that stands for a login, and gets others (OAuth 2's refresh token).
    Identity(String),
}

/// Never shows what is secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "user `{user}`"),
            Self::Identity(_) => write!(f, "an identity token"),
        }
    }
}

impl Credential {
    /// Returns a user's credential; a helper that says `<token>` for the user gives a token instead of a password.
    pub(crate) fn new(user: String, password: String) -> Self {
        if user == "<token>" { Self::Identity(password) } else { Self::Basic { user, password } }
    }

    /// Returns the value of an `Authorization` header (RFC 7617).
    pub(crate) fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }
}

/// The credentials of all files, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials(Vec<AuthFile>);

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthFile").field("auths", &self.auths.keys()).finish_non_exhaustive()
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Credentials {
    /// Reads the files; those that are not there are passed over.
    pub(crate) fn read(files: impl Iterator<Item = PathBuf>) -> Result<Self> {
        let mut all = Vec::new();
        for path in files {
            match std::fs::read(&path) {
                Ok(bytes) => all.push(parse(&path, &bytes)?),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(io("read", &path)(e)),
            }
        }
        Ok(Self(all))
    }

    /// Returns who we are for a repository of a host; `None` if no file says.
    ///
    /// # Errors
    /// If a credential helper fails, or an entry can't be read.
    pub(crate) async fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>> {
        for file in &self.0 {
            if let Some(helper) = file.cred_helpers.get(host) {
                if let Some(found) = helper::get(helper, host).await? {
                    return Ok(Some(found));
                }
                continue;
            }
            if let Some(store) = file.creds_store.as_deref().filter(|store| !store.is_empty()) {
                let server = if host == "docker.io" { DOCKER_HUB } else { host };
                if let Some(found) = helper::get(store, server).await? {
                    return Ok(Some(found));
                }
            }
            if let Some(found) = file.auths.get_most_specific(host, repository) {
                // An entry that is empty says that a helper has it.
                if let Some(found) = found.credential(host)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<AuthFile> {
    // The message names a place and never a value: serde's would quote what it found.
    serde_json::from_slice(bytes).map_err(|e| Error::Settings {
        path: path.to_owned(),
        why: format!("it is no file of credentials: see line {}, column {}", e.line(), e.column()),
    })
}

/// Looks up by repository, its parents, then host.
trait MostSpecific {
    fn get_most_specific(&self, host: &str, repository: &str) -> Option<&Entry>;
}

impl MostSpecific for BTreeMap<String, Entry> {
    fn get_most_specific(&self, host: &str, repository: &str) -> Option<&Entry> {
        let full = format!("{host}/{repository}");
        let mut key = full.as_str();
        loop {
            if let Some(entry) = self.get(key) {
                return Some(entry);
            }
            match key.rsplit_once('/') {
                Some((parent, _)) => key = parent,
                None => break,
            }
        }
        // Docker's own keys are URLs.
        let same = |key: &&String| {
            let bare = key.split_once("://").map_or(key.as_str(), |(_, rest)| rest);
            let bare = bare.split('/').next().unwrap_or(bare);
            key.contains("://") && (bare == host || (host == "docker.io" && bare == "index.docker.io"))
        };
        self.keys().find(same).and_then(|key| self.get(key))
    }
}

impl Entry {
    fn credential(&self, host: &str) -> Result<Option<Credential>> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credential::new(user.clone(), password.clone())));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Docker pads with NUL.
        let pair = decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':'));
        match pair {
            Some((user, password)) => Ok(Some(Credential::new(user.to_owned(), password.to_owned()))),
            None => Err(Error::Denied {
                host: host.to_owned(),
                what: "its images".to_owned(),
                why: "the `auth` that is kept for it is not base64 of `USER:PASSWORD`".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn found_by_the_most_specific_key() {
        let auth = |text: &str| STANDARD.encode(text);
        let json = format!(
            r#"{{ "auths": {{
                "h.io": {{ "auth": "{}" }},
                "h.io/team": {{ "auth": "{}" }},
                "https://index.docker.io/v1/": {{ "auth": "{}" }},
                "https://old.io": {{ "username": "o", "password": "p:q" }},
                "id.io": {{ "auth": "{}", "identitytoken": "T" }},
                "empty.io": {{}},
                "bad.io": {{ "auth": "%%%" }}
            }}, "unknown": 1 }}"#,
            auth("host:p"),
            auth("team:p"),
            auth("hub:p\0\0"),
            auth("<token>:")
        );
        let credentials = Credentials(vec![parse(Path::new("auth.json"), json.as_bytes()).unwrap()]);
        let check = async |host: &str, repository: &str, expected: Option<(&str, &str)>| {
            let found = credentials.find(host, repository).await.unwrap();
            let expected = expected.map(|(user, password)| Credential::new(user.into(), password.into()));
            assert!(found == expected, "{host}/{repository}");
        };
        check("h.io", "web", Some(("host", "p"))).await;
        check("h.io", "team/web", Some(("team", "p"))).await;
        check("h.io", "team/a/b", Some(("team", "p"))).await;
        check("h.io", "teams/web", Some(("host", "p"))).await;
        check("h.io:5000", "web", None).await;
        check("docker.io", "library/nginx", Some(("hub", "p"))).await;
        check("old.io", "web", Some(("o", "p:q"))).await;
        check("id.io", "web", Some(("<token>", "T"))).await;
        check("empty.io", "web", None).await;
        let error = credentials.find("bad.io", "web").await.unwrap_err().to_string();
        assert!(error.contains("base64") && !error.contains("%%%"), "{error}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let basic = Credential::new("me".into(), "hunter2".into());
        assert_eq!(format!("{basic:?}"), "user `me`");
        assert_eq!(format!("{:?}", Credential::Identity("hunter2".into())), "an identity token");
        let json = r#"{ "auths": { "h.io": { "auth": "aHVudGVyMg==" } } }"#;
        let file = Credentials(vec![parse(Path::new("a"), json.as_bytes()).unwrap()]);
        assert!(!format!("{file:?}").contains("aHVudGVyMg"), "{file:?}");
        let broken = parse(Path::new("a"), br#"{ "auths": { "h.io": { "auth": 12345 } } }"#).unwrap_err().to_string();
        assert!(!broken.contains("12345"), "{broken}");
    }
}
