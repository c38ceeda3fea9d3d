//! What a `route` block says beside host, path and port.

use std::collections::BTreeMap;

use basalt_model::{CertificateSource, ClientCertificates, ErrorPage, Millis, Page, RateLimit, Redirect, Rules, Tls};

use super::service::positive;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::units;
use crate::value::Value;

/// More retries than this visit every instance of most services.
const MOST_RETRIES: u32 = 10;
/// The most requests of a rate limit, which is beyond what one machine answers.
const MOST_REQUESTS: u32 = 1_000_000;
/// The longest body of a page that stands in a stack: it is part of each release and of the route table.
const LONGEST_PAGE: usize = 64 << 10;
/// The media types of a page that names none.
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Decodes the rules of a route.
pub(super) fn rules(route: &mut Reader, host: Option<&str>) -> Rules {
    let rules = Rules {
        exact: route.get("exact", read::boolean).unwrap_or(false),
        methods: route.get("methods", |value| sorted(read::list(value, method)?)).unwrap_or_default(),
        headers: route.get("headers", header_map).unwrap_or_default(),
        query: route.get("query", read::text_map).unwrap_or_default(),
        rewrite: route.get("rewrite", rewrite),
        redirect: redirect(route),
        respond: respond(route),
        request_headers: route.get("request_headers", request_headers).unwrap_or_default(),
        response_headers: route.get("response_headers", header_map).unwrap_or_default(),
        compress: route.get("compress", read::boolean).unwrap_or(false),
        timeout: route.get("timeout", positive),
        retries: route.get("retries", read::integer(0..=MOST_RETRIES)),
        hedge_after: route.get("hedge_after", positive),
        body_limit: route.get("body_limit", units::size),
        rate_limit: rate_limit(route),
        error_pages: error_pages(route),
        tls: tls(route, host),
    };
    if rules.redirect.is_some() && rules.respond.is_some() {
        let fault = Fault::at(route.at, format!("{} both redirects and responds", route.what));
        route.report(fault.help("keep one of `redirect` and `respond`"));
    }
    rules
}

fn redirect(route: &mut Reader) -> Option<Redirect> {
    let mut redirect = route.only_block("redirect")?;
    let to = redirect.required("to", "to = \"https://www.example.com{path}{query}\"", location);
    let status = redirect.get("status", |value| match read::integer(300..=399)(value)? {
        status @ (301 | 302 | 303 | 307 | 308) => Ok(status as u16),
        _ => {
            let fault = Fault::at(value.at, format!("{} does not send clients elsewhere", value.shown()));
            Err(fault.help("write 301, 302, 303, 307 or 308").into())
        }
    });
    redirect.finish();
    // 308 keeps the method, and is remembered by clients as 301 is (RFC 9110 §15.4.9).
    Some(Redirect { to: to?, status: status.unwrap_or(308) })
}

fn location(value: &Value) -> Eval<String> {
    const KNOWN: [&str; 5] = ["{scheme}", "{host}", "{path}", "{rest}", "{query}"];
    let text = read::text(value)?;
    let plain = KNOWN.iter().fold(text.clone(), |text, known| text.replace(known, ""));
    let wrong =
        |what: &str, help: &str| Err(Fault::at(value.at, format!("{} {what}", value.shown())).help(help).into());
    if plain.contains(['{', '}']) {
        return wrong("has a placeholder that there is not", "there are {scheme}, {host}, {path}, {rest} and {query}");
    }
    if text.split_once("{query}").is_some_and(|(before, _)| before.contains('?')) {
        return wrong("has a question mark too many", "`{query}` has its own: leave out the one before it");
    }
    let begins = ["http://", "https://", "/", "{scheme}://", "{path}", "{rest}"];
    if !plain.bytes().all(|b| b.is_ascii_graphic()) || !begins.iter().any(|begin| text.starts_with(begin)) {
        return wrong("is not a place to send clients to", "begin with `https://`, `http://` or `/`");
    }
    Ok(text)
}

fn respond(route: &mut Reader) -> Option<Page> {
    let mut respond = route.only_block("respond")?;
    let status = respond.get("status", read::integer(200..=599)).unwrap_or(200) as u16;
    let (content_type, body) = page(&mut respond);
    if matches!(status, 204 | 205 | 304) && !body.is_empty() {
        let fault = Fault::at(respond.place("body"), format!("an answer with {status} has no body"));
        respond.report(fault.help("leave out `body`, or write another status"));
    }
    respond.finish();
    Some(Page { status, content_type, body })
}

fn page(reader: &mut Reader) -> (String, String) {
    let body = reader.get("body", |value| {
        let body = read::text(value)?;
        if body.len() > LONGEST_PAGE {
            let fault = Fault::at(value.at, format!("{} bytes are too much for a page in a stack", body.len()));
            return Err(fault.help("up to 64KiB belong here; let a service serve what is larger").into());
        }
        Ok(body)
    });
    let body = body.unwrap_or_default();
    let content_type = reader.get("type", header_value);
    let guessed = if body.trim_start().starts_with('<') { HTML } else { TEXT };
    (content_type.unwrap_or_else(|| guessed.to_owned()), body)
}

fn rate_limit(route: &mut Reader) -> Option<RateLimit> {
    let mut limit = route.only_block("rate_limit")?;
    let requests = limit.required("requests", "requests = 10", read::integer(1..=MOST_REQUESTS));
    let per = limit.get("per", positive).unwrap_or(Millis::seconds(1));
    let burst = limit.get("burst", read::integer(1..=MOST_REQUESTS));
    limit.finish();
    let requests = requests?;
    Some(RateLimit { requests, per, burst: burst.unwrap_or(requests) })
}

fn error_pages(route: &mut Reader) -> BTreeMap<String, ErrorPage> {
    let ev = route.ev;
    let mut pages = BTreeMap::new();
    for block in route.blocks(&["error_page"]) {
        let Some((status, at)) = Reader::single_label(ev, block) else { continue };
        let mut inner = Reader::block(ev, block, format!("error page `{status}` of {}", route.what));
        let known = matches!(status.as_str(), "4xx" | "5xx")
            || status.parse().is_ok_and(|status: u16| (400..600).contains(&status));
        if !known {
            let fault = Fault::at(at, format!("`{}` is no status of an error", status.escape_debug()));
            inner.report(fault.help("write a status such as \"503\", or \"4xx\" or \"5xx\" for all of a class"));
        }
        let (content_type, body) = page(&mut inner);
        inner.finish();
        if pages.insert(status.clone(), ErrorPage { content_type, body }).is_some() {
            route.report(
                Fault::at(at, format!("{} has two error pages for `{status}`", route.what)).label("the second"),
            );
        }
    }
    pages
}

fn tls(route: &mut Reader, host: Option<&str>) -> Option<Tls> {
    let mut tls = route.only_block("tls")?;
    let certificate = tls.get("certificate", file);
    let key = tls.get("key", file);
    let acme = tls.get("acme", read::boolean).unwrap_or(false);
    let source = match (certificate, key, acme) {
        (Some(certificate), Some(key), false) => Some(CertificateSource::Files { certificate, key }),
        (None, None, true) => Some(CertificateSource::Acme),
        // What could not be read has been reported.
        _ if tls.has("certificate") && tls.has("key") && !acme => None,
        _ => {
            let fault = Fault::at(tls.at, format!("{} does not say where the certificate comes from", tls.what));
            tls.report(fault.help("write either `certificate` and `key`, both paths of PEM files, or `acme = true`"));
            None
        }
    };
    match host {
        None => {
            let fault = Fault::at(tls.at, format!("{} needs a host: certificates are for names", tls.what));
            tls.report(fault.help("write for example host = \"shop.example.com\" in the route"));
        }
        Some(host) if acme && host.starts_with("*.") => {
            let fault = Fault::at(tls.place("acme"), format!("no certificate for `{host}` can be had this way"));
            tls.report(fault.help("an authority gives wildcards by DNS alone: name the hosts, or give files"));
        }
        Some(_) => {}
    }
    let clients = tls.only_block("clients").and_then(|mut clients| {
        let authorities = clients.required("authorities", "authorities = \"/etc/…/ca.pem\"", file);
        let required = clients.get("required", read::boolean).unwrap_or(true);
        clients.finish();
        Some(ClientCertificates { authorities: authorities?, required })
    });
    let redirect = tls.get("redirect", read::boolean).unwrap_or(true);
    let hsts = tls.get("hsts", |value| match positive(value)? {
        Millis(0..1000) => {
            let fault = Fault::at(value.at, format!("{} is less than a second", value.shown()));
            Err(fault.help("browsers count in seconds, and would forget it at once: write for example \"365d\"").into())
        }
        lasts => Ok(lasts),
    });
    tls.finish();
    Some(Tls { certificate: source?, redirect, hsts, clients })
}

/// Reads the path of a file of this machine, which the gateway reads.
fn file(value: &Value) -> Eval<String> {
    let path = read::text(value)?;
    if !path.starts_with('/') {
        let fault = Fault::at(value.at, format!("{} is not an absolute path", value.shown()));
        return Err(fault.help("the gateway reads the file where it runs: write the path from the root").into());
    }
    Ok(path)
}

fn rewrite(value: &Value) -> Eval<String> {
    let path = read::text(value)?;
    if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\{}".contains(&b)) {
        let fault = Fault::at(value.at, format!("{} is not a path", value.shown()));
        return Err(fault.help("write what takes the place of the route's path, such as \"/\" or \"/v2\"").into());
    }
    Ok(path)
}

fn method(value: &Value) -> Eval<String> {
    let method = read::text(value)?.to_ascii_uppercase();
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err(Fault::at(value.at, format!("{} is not a method", value.shown())).help("write \"GET\"").into());
    }
    if method == "CONNECT" {
        let fault = Fault::at(value.at, "no route gets a `CONNECT`: the gateway makes no tunnels for clients");
        return Err(fault.help("WebSockets begin with `GET`").into());
    }
    Ok(method)
}

fn sorted(mut texts: Vec<String>) -> Eval<Vec<String>> {
    texts.sort();
    texts.dedup();
    Ok(texts)
}

/// Reads a header's value: what may stand in one (RFC 9110 §5.5), in ASCII.
pub(super) fn header_value(value: &Value) -> Eval<String> {
    let text = read::text(value)?;
    if !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) || text.trim() != text {
        return Err(Fault::at(value.at, format!("{} can't be a header's value", value.shown())).into());
    }
    Ok(text)
}

/// Reads a header's name (RFC 9110 §5.1); it becomes lowercase.
pub(super) fn header_name(text: &str, value: &Value) -> Eval<String> {
    Ok(token(text, value, "header")?.to_ascii_lowercase())
}

/// Reads a cookie's name (RFC 6265 §4.1.1).
pub(super) fn cookie_name(text: &str, value: &Value) -> Eval<String> {
    token(text, value, "cookie").map(str::to_owned)
}

/// Returns a token (RFC 9110 §5.6.2), which names something.
fn token<'t>(text: &'t str, value: &Value, what: &str) -> Eval<&'t str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err(Fault::at(value.at, format!("`{}` can't be a {what}'s name", text.escape_debug())).into());
    }
    Ok(text)
}

fn header_map(value: &Value) -> Eval<BTreeMap<String, String>> {
    /// What frames a message is not for a stack to change.
    const FRAMING: [&str; 6] =
        ["connection", "content-length", "transfer-encoding", "upgrade", "te", "proxy-connection"];
    let mut headers = BTreeMap::new();
    for (name, text) in read::text_map(value)? {
        let at = Value::text(text, value.at);
        let name = header_name(&name, value)?;
        if FRAMING.contains(&name.as_str()) {
            return Err(Fault::at(value.at, format!("`{name}` is the gateway's own to set")).into());
        }
        if headers.contains_key(&name) {
            let fault = Fault::at(value.at, format!("`{name}` is there twice: capitals make no other header"));
            return Err(fault.help("keep one of them").into());
        }
        headers.insert(name, header_value(&at)?);
    }
    Ok(headers)
}

/// Reads fields that instances get; none of them is without a host.
fn request_headers(value: &Value) -> Eval<BTreeMap<String, String>> {
    let headers = header_map(value)?;
    if let Some(host) = headers.get("host")
        && (host.is_empty() || host.contains(|c: char| c == '/' || c.is_whitespace()))
    {
        let fault = Fault::at(value.at, format!("`{}` is no host", host.escape_debug()));
        return Err(fault.help("every request names one (RFC 9112 §3.2): write for example \"app.internal\"").into());
    }
    Ok(headers)
}
