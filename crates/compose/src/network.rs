//! Networks to `connects_to` and `egress`, and hosts of Traefik's labels to routes.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::fields::Fields;
use crate::import::{Cx, Service};
use crate::keys;
use crate::yaml::{Data, Node};

/// Returns the networks that a service is in; Compose puts those that name none into one together.
pub(crate) fn networks(cx: &Cx, fields: &Fields) -> BTreeSet<String> {
    if let Some(mode) = fields.get("network_mode") {
        let what = "an instance always has a network namespace of its own";
        cx.findings.name(mode, what, "name the services it calls in `connects_to`, and its ports in `port` blocks");
        return BTreeSet::new();
    }
    let Some(node) = fields.get("networks") else { return ["default".to_owned()].into() };
    match &node.data {
        Data::List(items) => items.iter().filter_map(|item| cx.known(item)).collect(),
        Data::Map(entries) => {
            for (_, node) in entries.iter().filter(|(_, node)| node.map().is_some()) {
                Fields::new(node).finish(cx, keys::ATTACHMENT);
            }
            entries.iter().map(|(name, _)| name.clone()).collect()
        }
        _ => {
            cx.odd(node, "a list of networks");
            BTreeSet::new()
        }
    }
}

/// Names the networks that services are in without being declared.
pub(crate) fn declared(cx: &Cx, root: &Fields, services: &[Service]) {
    let declared = root.get("networks").and_then(|node| node.map()).unwrap_or_default();
    let known = |name: &String| name == "default" || declared.iter().any(|(other, _)| other == name);
    for service in services {
        for network in service.networks.iter().filter(|name| !known(name)) {
            if let Some(node) = service.fields.get("networks") {
                let what = format!("the network `{network}` is not declared");
                cx.findings.note(node, what, "Compose refuses the file");
            }
        }
    }
}

/// Reads the top-level networks, and returns those that lead nowhere outside.
pub(crate) fn internal(cx: &Cx, node: Option<&Rc<Node>>) -> BTreeSet<String> {
    let mut internal = BTreeSet::new();
    for (name, node) in node.and_then(|node| node.map()).unwrap_or_default() {
        if node.map().is_none() {
            continue;
        }
        let fields = Fields::new(node);
        if fields.get("internal").and_then(|node| cx.bool(node)) == Some(true) {
            internal.insert(name.clone());
        }
        fields.finish(cx, keys::NETWORK);
    }
    internal
}

/// Returns the services that a service names in `links`.
pub(crate) fn links(cx: &Cx, fields: &Fields) -> BTreeSet<String> {
    let mut linked = BTreeSet::new();
    for node in fields.get("links").and_then(|node| node.list()).unwrap_or_default() {
        let Some(text) = cx.known(node) else { continue };
        let (service, alias) = text.split_once(':').unwrap_or((&text, &text));
        if service != alias {
            let what = format!("`{service}` is not reached as `{alias}`");
            cx.findings.note(node, what, format!("write `{service}` where `{alias}` is called"));
        }
        linked.insert(service.to_owned());
    }
    linked
}

/// A route that labels ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) host: String,
    pub(crate) path: String,
}

/// Reads labels: rules of Traefik's routers become routes, all else is named.
pub(crate) fn labels<'n>(cx: &Cx, fields: &Fields<'n>) -> (Vec<Route>, Option<u16>) {
    let mut routes = BTreeSet::new();
    let mut port = None;
    let Some(node) = fields.get("labels") else { return (Vec::new(), None) };
    let mut left: BTreeMap<&str, &Rc<Node>> = BTreeMap::new();
    let entries: Vec<(String, Option<String>, &'n Rc<Node>)> = match &node.data {
        Data::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), cx.known(node), node)).collect(),
        Data::List(items) => {
            let split = |item: &'n Rc<Node>| {
                let text = cx.known(item)?;
                let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                Some((key.to_owned(), Some(value.to_owned()), item))
            };
            items.iter().filter_map(split).collect()
        }
        _ => {
            cx.odd(node, "labels");
            Vec::new()
        }
    };
    for (key, value, node) in &entries {
        let value = value.as_deref().unwrap_or_default();
        if key.starts_with("traefik.http.routers.") && key.ends_with(".rule") {
            let found = rule(value);
            if found.is_empty() {
                cx.findings.name(
                    node,
                    "this rule is no host and path prefix alone, and is left out",
                    "write a `route` block",
                );
            }
            routes.extend(found);
        } else if key.starts_with("traefik.http.services.") && key.ends_with(".loadbalancer.server.port") {
            port = value.parse().ok();
        } else {
            left.insert(key, node);
        }
    }
    for (key, node) in left {
        let what = if key.starts_with("traefik.") {
            "the gateway does not read Traefik's labels: this one is left out"
        } else {
            "labels are left out: nothing reads them"
        };
        cx.findings.name(node, what, "");
    }
    (routes.into_iter().collect(), port)
}

/// Returns the hosts of a rule such as ``Host(`a.example`) && PathPrefix(`/x`)``; none if there is more to it.
fn rule(rule: &str) -> Vec<Route> {
    let mut hosts = Vec::new();
    let mut path = "/".to_owned();
    for part in rule.split("&&").map(str::trim) {
        let Some((function, rest)) = part.split_once('(') else { return Vec::new() };
        let Some(arguments) = rest.strip_suffix(')').filter(|rest| !rest.contains(['(', ')'])) else {
            return Vec::new();
        };
        let mut arguments = arguments.split(',').map(|text| text.trim().trim_matches(['`', '"', '\'']).to_owned());
        match function {
            "Host" => hosts.extend(arguments),
            "PathPrefix" => match (arguments.next(), arguments.next()) {
                (Some(prefix), None) => path = prefix,
                _ => return Vec::new(),
            },
            _ => return Vec::new(),
        }
    }
    hosts.into_iter().map(|host| Route { host, path: path.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let found = rule(text);
            let found: Vec<(&str, &str)> = found.iter().map(|r| (r.host.as_str(), r.path.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("Host(`a.example`)", &[("a.example", "/")]);
        check("Host(`a.example`, `b.example`) && PathPrefix(`/x`)", &[("a.example", "/x"), ("b.example", "/x")]);
        check("Host(`a`) || Host(`b`)", &[]);
        check("HostRegexp(`x`)", &[]);
        check("nothing", &[]);
    }
}
