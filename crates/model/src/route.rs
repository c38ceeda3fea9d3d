//! Routes: the requests from outside that a service answers, and what happens to them on their way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Millis, Name};

/// Requests from outside that a service answers.
///
/// Where several routes fit a request, the first of these that tells them apart decides (the order of Kubernetes' Gateway
/// API): the host (exact, then the longest wildcard, then any), the path (exact, then the longest prefix), a method, the
/// most headers, the most query parameters; then who comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// The host name, without port, lowercase; `*.` before it stands for one or more labels. `None` is any.
    pub host: Option<String>,
    /// A path prefix at segment borders: `/shop` answers `/shop` and `/shop/cart`, not `/shopping`.
    pub path: String,
    /// The port's name.
    pub port: Name,
    /// What else a request must have, and what happens to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rules: Rules,
}

impl Route {
    /// Returns the route that takes whatever comes for a host and path to a port.
    pub fn new(host: Option<&str>, path: impl Into<String>, port: Name) -> Self {
        Self { host: host.map(str::to_owned), path: path.into(), port, rules: Rules::default() }
    }

    /// Returns what tells it from other routes: two routes with the same can't both be had.
    pub fn place(&self) -> Place<'_> {
        let rules = &self.rules;
        (self.host.as_deref(), &self.path, rules.exact, &rules.methods, &rules.headers, &rules.query)
    }
}

/// Host, path, whether exact, methods, headers, query.
pub type Place<'a> =
    (Option<&'a str>, &'a str, bool, &'a [String], &'a BTreeMap<String, String>, &'a BTreeMap<String, String>);

/// What a request must have beside host and path, and what happens to it. Each field is left out of the canonical bytes at
/// its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Rules {
    /// Whether the path is the whole path and not a prefix.
    #[serde(skip_serializing_if = "is_default")]
    pub exact: bool,
    /// Methods, uppercase and sorted; empty is any.
    #[serde(skip_serializing_if = "is_default")]
    pub methods: Vec<String>,
    /// Headers by lowercase name; `*` is any value.
    #[serde(skip_serializing_if = "is_default")]
    pub headers: BTreeMap<String, String>,
    /// Query parameters; `*` is any value.
    #[serde(skip_serializing_if = "is_default")]
    pub query: BTreeMap<String, String>,
    /// Takes the place of the path (of the prefix alone, unless exact) before an instance sees it.
    #[serde(skip_serializing_if = "is_default")]
    pub rewrite: Option<String>,
    /// Sends clients elsewhere; no instance is asked.
    #[serde(skip_serializing_if = "is_default")]
    pub redirect: Option<Redirect>,
    /// Answers by itself; no instance is asked.
    #[serde(skip_serializing_if = "is_default")]
    pub respond: Option<Page>,
    /// Headers of a request that an instance sees; an empty value takes one away.
    #[serde(skip_serializing_if = "is_default")]
    pub request_headers: BTreeMap<String, String>,
    /// Headers of an answer that a client sees; an empty value takes one away.
    #[serde(skip_serializing_if = "is_default")]
    pub response_headers: BTreeMap<String, String>,
    /// How long an instance may be silent: before it answers, and within its answer.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<Millis>,
    /// Whether answers are compressed for clients that take it.
    #[serde(skip_serializing_if = "is_default")]
    pub compress: bool,
    /// How often a request that may be repeated is sent again, at most.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: Option<u32>,
    /// After how long without an answer a request that only reads is sent to a second instance too; the first answer counts.
    #[serde(skip_serializing_if = "is_default")]
    pub hedge_after: Option<Millis>,
    /// The most bytes that the body of a request may have.
    #[serde(skip_serializing_if = "is_default")]
    pub body_limit: Option<Bytes>,
    /// How many requests one client may send.
    #[serde(skip_serializing_if = "is_default")]
    pub rate_limit: Option<RateLimit>,
    /// What is said instead of the gateway's own short texts, by status (`503`) or class (`5xx`).
    #[serde(skip_serializing_if = "is_default")]
    pub error_pages: BTreeMap<String, ErrorPage>,
    /// How the host is served over TLS.
    #[serde(skip_serializing_if = "is_default")]
    pub tls: Option<Tls>,
}

/// Where clients are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Redirect {
    /// The location. `{scheme}`, `{host}`, `{path}` (the whole path), `{rest}` (what follows the route's path, with its
    /// slash) and `{query}` (with its question mark) stand for those of the request.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page {
    /// 200 to 599.
    pub status: u16,
    /// The media type.
    pub content_type: String,
    /// What it says.
    pub body: String,
}

/// The body of an answer whose status is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorPage {
    /// The media type.
    pub content_type: String,
    /// What it says.
    pub body: String,
}

/// How many requests one client may send. A client is an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RateLimit {
    /// So many requests, at least 1.
    pub requests: u32,
    /// In this time, on average.
    pub per: Millis,
    /// So many at once, at least 1.
    pub burst: u32,
}

/// How a host is served over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tls {
    /// Where certificate and key come from.
    pub certificate: CertificateSource,
    /// Whether requests without TLS are sent to `https:`.
    pub redirect: bool,
    /// How long browsers are to insist on TLS (HSTS, RFC 6797).
    #[serde(default, skip_serializing_if = "is_default")]
    pub hsts: Option<Millis>,
    /// Who may connect.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clients: Option<ClientCertificates>,
}

/// Where certificate and key come from. A key is never part of a release: only where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// Files in PEM, read again when they change.
    Files {
        /// The certificate, followed by those that lead to its root.
        certificate: String,
        /// The private key.
        key: String,
    },
    /// An authority that speaks ACME (RFC 8555), which the gateway was told of.
    Acme,
}

/// Whose certificates clients must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClientCertificates {
    /// A file in PEM with the authorities that sign them.
    pub authorities: String,
    /// Whether clients without a certificate are refused.
    pub required: bool,
}

/// How the instances of a service share its requests, and what the service says while it is closed. Not part of a release:
/// it changes nothing in an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = TrafficSettings))]
#[serde(default)]
pub struct Traffic {
    /// Answers everything from outside with status 503 and this text; empty is a short one.
    #[serde(skip_serializing_if = "is_default")]
    pub maintenance: Option<String>,
    /// Over how long an instance that has become healthy gets more and more requests.
    #[serde(skip_serializing_if = "is_default")]
    pub slow_start: Millis,
    /// If fewer than so many percent of a release's instances are healthy, all of them are used; 0 is never.
    #[serde(skip_serializing_if = "is_default")]
    pub panic_below: u32,
    /// Keeps a client at one instance by a cookie.
    #[serde(skip_serializing_if = "is_default")]
    pub sticky: Option<Sticky>,
    /// Keeps equal requests at one instance by consistent hashing.
    #[serde(skip_serializing_if = "is_default")]
    pub hash_on: Option<HashOn>,
    /// When an instance gets no requests for a while.
    #[serde(skip_serializing_if = "is_default")]
    pub eject: Eject,
}

impl Traffic {
    /// Returns whether everything is at its default.
    pub fn is_plain(&self) -> bool {
        is_default(self)
    }
}

/// Keeps a client at one instance by a signed cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// How long a browser keeps it; zero is until it is closed.
    pub lasts: Millis,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HashOn {
    /// The client's address.
    Client,
    /// A header, by lowercase name.
    Header(String),
    /// A cookie.
    Cookie(String),
}

/// When an instance gets no requests for a while, because of what its requests have met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Eject {
    /// After so many requests in a row that broke or were answered with 502, 503 or 504; 0 is never.
    pub consecutive: u32,
    /// If so many percent of at least 20 requests within an interval were answered with 500 or more, or not at all; 0 is never.
    pub error_percent: u32,
    /// If it takes so many percent of what the median of its siblings takes; 0 is never.
    pub slower_percent: u32,
    /// For how long; each time in a row longer by as much.
    pub lasts: Millis,
    /// At most so many percent of a release's instances at once.
    pub at_most: u32,
}

impl Default for Eject {
    /// Five failures in a row eject for ten seconds, as is common among proxies; at most half of the instances.
    fn default() -> Self {
        Self { consecutive: 5, error_percent: 0, slower_percent: 0, lasts: Millis::seconds(10), at_most: 50 }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_route_has_the_bytes_it_always_had() {
        let route = Route::new(None, "/", "http".parse().unwrap());
        assert_eq!(crate::canonical_bytes(&route), br#"{"host":null,"path":"/","port":"http"}"#);
        let back: Route = serde_json::from_str(r#"{"host":null,"path":"/","port":"http"}"#).unwrap();
        assert_eq!(back, route);
    }

    #[test]
    fn rules_come_back() {
        let rules = Rules {
            retries: Some(0),
            rate_limit: Some(RateLimit { requests: 1, per: Millis::seconds(1), burst: 2 }),
            tls: Some(Tls { certificate: CertificateSource::Acme, redirect: true, hsts: None, clients: None }),
            ..Rules::default()
        };
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
        assert_eq!(serde_json::to_string(&Traffic::default()).unwrap(), "{}");
    }
}
