//! `route` blocks.

use std::collections::BTreeMap;

use basalt_model::{Name, Port, Route};

use super::health::speaks_http;
use super::rules::rules;
use super::service::{default_port, port_name};
use crate::check::Places;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::value::Value;

/// The longest host name (RFC 1035 §2.3.4, without the final dot).
const LONGEST_HOST: usize = 253;

/// Decodes all `route` blocks of a service.
pub(super) fn routes(
    reader: &mut Reader,
    service: &Name,
    ports: &BTreeMap<Name, Port>,
    places: &mut Places,
) -> Vec<Route> {
    let ev = reader.ev;
    let mut routes = Vec::new();
    for block in reader.blocks(&["route"]) {
        let mut route = Reader::block(ev, block, format!("`route` of {}", reader.what));
        let mut wrong = 0;
        let mut counted = |read: Eval<String>| read.inspect_err(|_| wrong += 1);
        let host = route.get("host", |value| counted(host(value)));
        let path = route.get("path", |value| counted(path(value))).unwrap_or_else(|| "/".to_owned());
        let port = if route.has("port") {
            route.get("port", |value| port_name(value, ports))
        } else {
            let _ = route.value("port");
            if ports.is_empty() {
                let fault = Fault::at(route.at, format!("{} has no port to lead to", route.what));
                route.report(fault.help("declare one: port \"http\" { container = 8080 }"));
            }
            default_port(ports).cloned()
        };
        if let Some(port) = &port
            && !speaks_http(ports, port)
        {
            let fault = Fault::at(route.place("port"), format!("port `{port}` does not speak HTTP, and routes do"));
            route.report(fault.help("name a port whose protocol is \"http\""));
        }
        let rules = rules(&mut route, host.as_deref());
        // Prefixes end at segment borders anyway.
        let path = if rules.exact || path == "/" { path } else { path.trim_end_matches('/').to_owned() };
        if let Some(port) = port {
            let declared = Route { host, path, port, rules };
            // What could not be read is no conflict with another.
            if wrong == 0 {
                places.routes.push((declared.clone(), service.clone(), route.at));
            }
            routes.push(declared);
        }
        route.finish();
    }
    routes.sort_by(|a, b| a.place().cmp(&b.place()));
    routes
}

/// Reads a host name; it becomes lowercase (RFC 9110 §4.2.3).
fn host(value: &Value) -> Eval<String> {
    let host = value.to_text()?.to_ascii_lowercase();
    let wrong =
        |help: &str| Err(Fault::at(value.at, format!("{} is not a host name", value.shown())).help(help).into());
    if host.contains("://") || host.contains('/') {
        return wrong("write the host alone, such as \"shop.example.com\"; the path goes into `path`");
    }
    if host.starts_with('[') {
        return wrong("leave `host` out to answer any host: addresses are not told apart");
    }
    if !host.is_ascii() {
        return wrong("write it as the DNS has it, in ASCII: \"xn--…\"");
    }
    if host.contains(':') {
        return wrong("leave out the port: the gateway's addresses decide where it listens");
    }
    let bare = host.strip_prefix("*.").unwrap_or(&host);
    if bare.contains('*') {
        return wrong(
            "a `*` stands for the first labels alone: \"*.example.com\"; leave `host` out to answer any host",
        );
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > LONGEST_HOST || !bare.split('.').all(label) {
        return wrong("write for example \"shop.example.com\", or leave it out to answer any host");
    }
    Ok(host)
}

/// Reads a path.
fn path(value: &Value) -> Eval<String> {
    let path = read::text(value)?;
    let segment = |part: &str| part != "." && part != "..";
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\".contains(&b));
    if !path.starts_with('/') || !plain || path.contains("//") || !path.split('/').all(segment) {
        let fault = Fault::at(value.at, format!("{} is not a path prefix", value.shown()));
        return Err(fault.help("write for example \"/\" or \"/shop\"").into());
    }
    if path.split('/').any(|part| matches!(part, "*" | "**")) {
        let fault = Fault::at(value.at, format!("{} has a `*`, which stands for itself in a path", value.shown()));
        return Err(fault
            .help("a path leads to all that is below it, unless `exact = true`: leave the `*` out")
            .into());
    }
    Ok(path)
}
