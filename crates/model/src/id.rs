//! Names and ids.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The number of a release within its service, counted from 1 and never used twice.
pub type ReleaseNumber = u32;

/// Grows with every start of an instance of a service or job; a backend refuses an action of an older generation.
pub type Generation = u64;

/// The longest name: with release and ordinal behind it, an instance id still fits in a 63-byte DNS label (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 40;

/// The name of a stack, service, job, port, volume, secret or environment: at most 40 lowercase letters, digits, and
/// inner hyphens and underscores.
///
/// Names of services and jobs become DNS labels (RFC 1123 §2.1): stack files refuse underscores in these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "web"))]
pub struct Name(
    // Copies share it: tables and states name much the same.
    Arc<str>,
);

/// A text that is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to {LONGEST_NAME} lowercase letters, digits, and inner hyphens and underscores")]
pub struct InvalidName(pub String);

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b));
        let ends = !text.starts_with(['-', '_']) && !text.ends_with(['-', '_']);
        if inner && ends && (1..=LONGEST_NAME).contains(&bytes.len()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text))
        }
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an instance: `SERVICE-RELEASE-ORDINAL`, for example `web-7-2`. Derived, never random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    service: Name,
    release: ReleaseNumber,
    ordinal: u32,
}

/// A text that is not an [`InstanceId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an instance id: expected SERVICE-RELEASE-ORDINAL, for example `web-7-2`")]
pub struct InvalidInstanceId(pub String);

impl InstanceId {
    /// Returns the id of the instance at `ordinal` (counted from 1) of a release of `service` (or of a job).
    pub fn new(service: Name, release: ReleaseNumber, ordinal: u32) -> Self {
        Self { service, release, ordinal }
    }

    /// Returns the service or job that the instance belongs to.
    pub fn service(&self) -> &Name {
        &self.service
    }

    /// Returns the number of the release that the instance runs.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// Returns the place among the instances of the same release, counted from 1.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.service, self.release, self.ordinal)
    }
}

impl FromStr for InstanceId {
    type Err = InvalidInstanceId;

    fn from_str(text: &str) -> Result<Self, InvalidInstanceId> {
        let parts = || {
            let (rest, ordinal) = text.rsplit_once('-')?;
            let (service, release) = rest.rsplit_once('-')?;
            Some(Self::new(service.parse().ok()?, canonical_number(release)?, canonical_number(ordinal)?))
        };
        parts().ok_or_else(|| InvalidInstanceId(text.to_owned()))
    }
}

/// Returns the number only if `text` is how that number is written: `7`, not `07` or `+7`.
fn canonical_number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|n| n.to_string() == text)
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstanceId;

    fn try_from(text: String) -> Result<Self, InvalidInstanceId> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.to_string()
    }
}

/// A SHA-256 digest, written `sha256:` and 64 lowercase hexadecimal digits (OCI image spec, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "sha256:2f1f…"))]
pub struct Digest([u8; 32]);

/// A text that is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 lowercase hexadecimal digits")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// Returns the digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Returns the first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let digits = text.strip_prefix("sha256:").filter(|d| !d.bytes().any(|b| b.is_ascii_uppercase()));
        let mut bytes = [0; 32];
        match digits.map(|d| hex::decode_to_slice(d, &mut bytes)) {
            Some(Ok(())) => Ok(Self(bytes)),
            _ => Err(InvalidDigest(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, ok: bool| assert_eq!(text.parse::<Name>().is_ok(), ok, "{text}");
        check("web", true);
        check("web-2", true);
        check("2web", true);
        check("db_password", true);
        check("", false);
        check("-web", false);
        check("web-", false);
        check("_web", false);
        check("web_", false);
        check("Web", false);
        check("a.b", false);
        check("../x", false);
        check(&"a".repeat(40), true);
        check(&"a".repeat(41), false);
    }

    #[test]
    fn instance_ids_read_back() {
        let id = InstanceId::new("my-web-2".parse().unwrap(), 7, 2);
        assert_eq!(id.to_string(), "my-web-2-7-2");
        assert_eq!("my-web-2-7-2".parse(), Ok(id));
        for bad in ["web", "web-1", "-1-1", "web-01-1", "web-1-+1", "web-x-1"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_read_back() {
        let digest = Digest::from_bytes([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["sha256:ab", &digest.to_hex(), &digest.to_string().to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
