//! A route made ready: what a request must have is compared without parsing, and what happens to it is at hand.

use std::fmt;
use std::sync::{Arc, LazyLock};

use basalt_model::{ErrorPage, Name, ReleaseNumber, Route, Rules};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::limiter::Limiter;
use crate::stats::Stats;
use crate::target::normal;

/// How often a request that broke or was answered badly is sent again, unless its route says otherwise: more rarely helps, and
/// a request that kills instances must not visit them all.
const RETRIES: u32 = 2;

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// May have a port behind it.
    pub(crate) host: &'a str,
    /// The path, without query.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// Returns what is asked by a request whose headers decide nothing.
    pub(crate) fn bare(host: &'a str, path: &'a str, method: &'a Method) -> Self {
        static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
        Self { host, path, query: None, method, headers: &NONE }
    }
}

/// The hosts of a route, lowercase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Any,
    Exact(Arc<str>),
    /// What follows the `*`: `.example.com`.
    Wildcard(Arc<str>),
}

impl Host {
    fn new(host: Option<&str>) -> Self {
        match host.map(|host| host.strip_prefix('*').ok_or(host)) {
            Some(Ok(wildcard)) => Self::Wildcard(wildcard.to_ascii_lowercase().into()),
            Some(Err(host)) => Self::Exact(host.to_ascii_lowercase().into()),
            None => Self::Any,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any host"),
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(rest) => write!(f, "*{rest}"),
        }
    }
}

/// A route made ready.
#[derive(Debug)]
pub(crate) struct ReadyRoute {
    /// Names it for people and metrics: host and path, and what else tells it from others.
    pub(crate) label: String,
    pub(crate) service: Name,
    pub(crate) host: Host,
    /// What it is found by: the path of a request, or a prefix of that without a slash at its end.
    pub(crate) key: Arc<str>,
    pub(crate) rules: Rules,
    pub(crate) request_headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(crate) response_headers: Vec<(HeaderName, Option<HeaderValue>)>,
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// What is counted, by release; first for answers of the gateway itself (release 0).
    pub(crate) stats: Vec<(ReleaseNumber, Arc<Stats>)>,
    hsts: Option<HeaderValue>,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
    query: Vec<(String, Option<String>)>,
}

impl ReadyRoute {
    /// Makes a route ready.
    pub(crate) fn new(
        service: &Name,
        route: &Route,
        limiter: Option<Arc<Limiter>>,
        stats: Vec<(ReleaseNumber, Arc<Stats>)>,
    ) -> Self {
        let rules = &route.rules;
        // The stack's texts were checked; what is no header in a table made by others is passed over.
        let wanted = |value: &String| (value != "*").then(|| HeaderValue::from_str(value).ok()).flatten();
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        let set = |(key, value): (&String, &String)| {
            Some((name(key)?, if value.is_empty() { None } else { Some(HeaderValue::from_str(value).ok()?) }))
        };
        let path = normal(&route.path).unwrap_or_else(|| route.path.clone());
        Self {
            label: label(route),
            service: service.clone(),
            host: Host::new(route.host.as_deref()),
            key: if rules.exact { &*path } else { path.trim_end_matches('/') }.into(),
            request_headers: rules.request_headers.iter().filter_map(set).collect(),
            response_headers: rules.response_headers.iter().filter_map(set).collect(),
            limiter,
            stats,
            // Digits make a header.
            hsts: rules
                .tls
                .as_ref()
                .and_then(|tls| HeaderValue::from_str(&format!("max-age={}", tls.hsts?.0 / 1000)).ok()),
            methods: rules.methods.iter().filter_map(|method| method.parse().ok()).collect(),
            headers: rules.headers.iter().filter_map(|(key, value)| Some((name(key)?, wanted(value)))).collect(),
            query: rules
                .query
                .iter()
                .map(|(key, value)| (key.clone(), (value != "*").then(|| value.clone())))
                .collect(),
            rules: rules.clone(),
        }
    }

    /// Returns the route that stands for requests to a virtual address.
    pub(crate) fn inside(service: &Name, stats: Vec<(ReleaseNumber, Arc<Stats>)>) -> Self {
        let mut route = Self::new(service, &Route::new(None, "/", service.clone()), None, stats);
        route.label = "internal".to_owned();
        route
    }

    /// Returns how often a request that may be repeated is sent again at most.
    pub(crate) fn retries(&self) -> u32 {
        self.rules.retries.unwrap_or(RETRIES)
    }

    /// Returns the fields that all its answers have, with their values, or must not have.
    pub(crate) fn dress(&self, secure: bool) -> impl Iterator<Item = (&HeaderName, Option<&HeaderValue>)> + Clone {
        let declared = self.response_headers.iter().map(|(name, value)| (name, value.as_ref()));
        // RFC 6797 §7.2: never over a connection without TLS. Of two, browsers would take the first.
        let own = self.response_headers.iter().any(|(name, _)| name == http::header::STRICT_TRANSPORT_SECURITY);
        let hsts = self.hsts.as_ref().filter(|_| secure && !own);
        declared.chain(hsts.map(|hsts| (&http::header::STRICT_TRANSPORT_SECURITY, Some(hsts))))
    }

    /// Returns whether a request for its host and path is for it.
    pub(crate) fn fits(&self, asked: &Asked) -> bool {
        // HEAD is answered where GET is (RFC 9110 §9.3.2).
        let method =
            |method: &Method| method == asked.method || *method == Method::GET && *asked.method == Method::HEAD;
        if !self.methods.is_empty() && !self.methods.iter().any(method) {
            return false;
        }
        let header = |(name, wanted): &(HeaderName, Option<HeaderValue>)| match wanted {
            Some(wanted) => asked.headers.get_all(name).iter().any(|value| value == wanted),
            None => asked.headers.contains_key(name),
        };
        let parameter = |(name, wanted): &(String, Option<String>)| {
            let mut pairs = form_urlencoded::parse(asked.query.unwrap_or("").as_bytes());
            pairs.any(|(key, value)| key == *name && wanted.as_ref().is_none_or(|wanted| value == *wanted))
        };
        self.headers.iter().all(header) && self.query.iter().all(parameter)
    }

    /// Returns whether it asks for the same of requests for its host and path as another route does.
    pub(crate) fn asks_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.rules, &other.rules);
        (&ours.methods, &ours.headers, &ours.query) == (&theirs.methods, &theirs.headers, &theirs.query)
    }

    /// Returns whether exactly the requests that fit it fit another route.
    pub(crate) fn has_place_of(&self, other: &Self) -> bool {
        let places = (&self.host, &self.key, self.rules.exact) == (&other.host, &other.key, other.rules.exact);
        places && self.asks_as(other)
    }

    /// Returns what tells, of two routes for the same host and path, which is asked first: the greater.
    pub(crate) fn precedence(&self) -> (bool, usize, usize) {
        (!self.methods.is_empty(), self.headers.len(), self.query.len())
    }

    /// Returns what is counted for a release.
    pub(crate) fn stats(&self, release: ReleaseNumber) -> Option<&Arc<Stats>> {
        self.stats.iter().find(|(number, _)| *number == release).map(|(_, stats)| stats)
    }

    /// Returns the page that is shown instead of the gateway's own text.
    pub(crate) fn error_page(&self, status: u16) -> Option<&ErrorPage> {
        if self.rules.error_pages.is_empty() {
            return None;
        }
        let class = format!("{}xx", status / 100);
        self.rules.error_pages.get(&status.to_string()).or_else(|| self.rules.error_pages.get(&class))
    }

    /// Returns the path that an instance sees, query excluded; `None` if it is the client's.
    pub(crate) fn rewritten(&self, path: &str) -> Option<String> {
        let to = self.rules.rewrite.as_deref()?;
        if self.rules.exact {
            return Some(to.to_owned());
        }
        let rest = self.rest(path);
        let path = format!("{}{rest}", to.trim_end_matches('/'));
        Some(if path.is_empty() { "/".to_owned() } else { path })
    }

    /// Returns where a client is sent.
    pub(crate) fn location(&self, to: &str, scheme: &str, asked: &Asked) -> String {
        let query = asked.query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut location = String::with_capacity(to.len() + asked.path.len());
        let mut left = to;
        while let Some((before, (after, value))) = next_placeholder(left, scheme, asked, self.rest(asked.path), &query)
        {
            location.push_str(before);
            location.push_str(value);
            left = after;
        }
        location.push_str(left);
        // `//host` would be another host, and `/\host` is that for browsers; clients choose the path.
        match location.strip_prefix('/').filter(|rest| rest.starts_with(['/', '\\'])) {
            Some(rest) => format!("/{}", rest.trim_start_matches(['/', '\\'])),
            // Of itself, it would be the same page once more (RFC 3986 §4.4).
            None if location.is_empty() || location.starts_with('?') => format!("/{location}"),
            None => location,
        }
    }

    /// Returns what follows the route's path in a path.
    fn rest<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(&*self.key).unwrap_or("")
    }
}

type Found<'t, 'v> = (&'t str, (&'t str, &'v str));

/// Returns what stands before the next placeholder, what stands behind it, and what it stands for.
fn next_placeholder<'t, 'v>(
    text: &'t str,
    scheme: &'v str,
    asked: &Asked<'v>,
    rest: &'v str,
    query: &'v str,
) -> Option<Found<'t, 'v>> {
    let (before, behind) = text.split_once('{')?;
    let (name, after) = behind.split_once('}')?;
    let value = match name {
        "scheme" => scheme,
        "host" => asked.host,
        "path" => asked.path,
        "rest" => rest,
        "query" => query,
        _ => "",
    };
    Some((before, (after, value)))
}

/// Returns what names a route for people and metrics.
pub(crate) fn label(route: &Route) -> String {
    let rules = &route.rules;
    let mut label = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
    if rules.exact {
        label.push('$');
    }
    for more in rules.methods.iter().chain(rules.headers.keys()).chain(rules.query.keys()) {
        label.push(' ');
        label.push_str(more);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(path: &str, rules: Rules) -> ReadyRoute {
        let service: Name = "web".parse().unwrap();
        ReadyRoute::new(&service, &Route { rules, ..Route::new(None, path, service.clone()) }, None, vec![])
    }

    fn asked<'a>(path: &'a str, query: Option<&'a str>, method: &'a Method, headers: &'a HeaderMap) -> Asked<'a> {
        Asked { host: "a.example:80", path, query, method, headers }
    }

    #[test]
    fn paths_are_rewritten() {
        let check = |route: &str, exact: bool, to: &str, path: &str, expected: &str| {
            let rules = Rules { exact, rewrite: Some(to.to_owned()), ..Rules::default() };
            assert_eq!(ready(route, rules).rewritten(path).unwrap(), expected, "{route} {to} {path}");
        };
        check("/api", false, "/", "/api/users", "/users");
        check("/api", false, "/", "/api", "/");
        check("/api/", false, "/v2", "/api/", "/v2/");
        check("/api", false, "/v2/", "/api/a/b", "/v2/a/b");
        check("/", false, "/v2", "/a", "/v2/a");
        check("/a", true, "/b", "/a", "/b");
    }

    #[test]
    fn clients_are_sent_elsewhere() {
        let check = |to: &str, path: &str, query: Option<&str>, expected: &str| {
            let (method, headers) = (Method::GET, HeaderMap::new());
            let location = ready("/old", Rules::default()).location(to, "http", &asked(path, query, &method, &headers));
            assert_eq!(location, expected, "{to}");
        };
        check("https://b.example", "/old/x", Some("q=1"), "https://b.example");
        check("https://b.example{path}{query}", "/old/x", Some("q=1"), "https://b.example/old/x?q=1");
        check("{scheme}://{host}/new{rest}", "/old/x", None, "http://a.example:80/new/x");
        check("{rest}", "/old", None, "/");
        check("{rest}{query}", "/old", Some("a"), "/?a");
        check("{path}", "//evil.example", None, "/evil.example");
        check("{rest}", "/old//evil.example", None, "/evil.example");
        check("{rest}", "/old/\\evil.example", None, "/evil.example");
        check("{rest}", "/old/x//y", None, "/x//y");
    }

    #[test]
    fn requests_fit() {
        let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let rules = Rules {
            methods: vec!["GET".into(), "PUT".into()],
            headers: map("x-tenant", "a"),
            query: map("debug", "*"),
            ..Rules::default()
        };
        let route = ready("/", rules);
        let check = |method: Method, tenant: &[&str], query: Option<&str>, expected: bool| {
            let mut headers = HeaderMap::new();
            for value in tenant {
                headers.append("X-Tenant", value.parse().unwrap());
            }
            assert_eq!(route.fits(&asked("/", query, &method, &headers)), expected, "{method} {tenant:?} {query:?}");
        };
        check(Method::GET, &["a"], Some("debug"), true);
        check(Method::HEAD, &["b", "a"], Some("x=1&debug=2"), true);
        check(Method::GET, &["a"], Some("%64ebug="), true);
        check(Method::POST, &["a"], Some("debug"), false);
        check(Method::PUT, &["b"], Some("debug"), false);
        check(Method::PUT, &[], Some("debug"), false);
        check(Method::PUT, &["a"], Some("xdebug=1"), false);
        check(Method::PUT, &["a"], None, false);
    }

    #[test]
    fn the_nearest_error_page_is_shown() {
        let page = |body: &str| ErrorPage { content_type: "text/plain".into(), body: body.into() };
        let pages = [("5xx".to_owned(), page("any")), ("503".to_owned(), page("closed"))].into();
        let route = ready("/", Rules { error_pages: pages, ..Rules::default() });
        assert_eq!(route.error_page(503), Some(&page("closed")));
        assert_eq!(route.error_page(502), Some(&page("any")));
        assert_eq!(route.error_page(404), None);
    }
}
