//! References to images of registries, as people of docker and podman write them.

use std::fmt;
use std::str::FromStr;

use basalt_model::Digest;

use crate::error::Error;

/// A reference: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`. Without a host it is Docker Hub's (`docker.io`, and `library/` before a
/// single name), without tag and digest the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The registry, with its port if one was given.
    pub host: String,
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest; if there is one, it decides, whatever the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Returns `HOST/NAME`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Returns what a registry is asked for: the digest, or else the tag.
    pub(crate) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: String| Error::Reference { reference: text.to_owned(), why };
        let parsed: oci_spec::distribution::Reference = text
            .parse()
            .map_err(|e| fail(format!("{e}; write for example `registry.example.com:5000/team/web:1.2`")))?;
        let digest = parsed.digest().map(str::parse).transpose();
        Ok(Self {
            host: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().map(str::to_owned),
            digest: digest.map_err(|e: basalt_model::InvalidDigest| fail(e.to_string()))?,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse::<Reference>().ok().map(|r| r.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        let digest = format!("sha256:{}", "ab".repeat(32));
        check("nginx", Some("docker.io/library/nginx:latest"));
        check("nginx:1.27", Some("docker.io/library/nginx:1.27"));
        check("index.docker.io/nginx", Some("docker.io/library/nginx:latest"));
        check("team/web", Some("docker.io/team/web:latest"));
        check("localhost/web:1", Some("localhost/web:1"));
        check("localhost:5000/web", Some("localhost:5000/web:latest"));
        check("127.0.0.1:5000/team/web:1.2", Some("127.0.0.1:5000/team/web:1.2"));
        check("registry.example.com/a/b/c", Some("registry.example.com/a/b/c:latest"));
        check(&format!("web@{digest}"), Some(&format!("docker.io/library/web@{digest}")));
        check(&format!("h.io/web:1@{digest}"), Some(&format!("h.io/web:1@{digest}")));
        check(&format!("web@sha512:{}", "ab".repeat(64)), None);
        check("web@sha256:abc", None);
        check("Web", None);
        check("web:", None);
        check("", None);
        check("https://h.io/web", None);
        check("h.io/../web", None);
        check("h.io/we b", None);
    }
}
