//! `ports` and `expose` to `port` blocks and routes.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::fields::Fields;
use crate::hcl::{Block, Expr};
use crate::images;
use crate::import::Cx;
use crate::keys;
use crate::yaml::{Data, Node};

/// The most ports of one range: more are a mistake, or a protocol that the gateway does not pass.
const LONGEST_RANGE: u16 = 32;

/// A port that a service listens on.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) container: u16,
    pub(crate) http: bool,
    /// The machine's port that leads to it, as written.
    pub(crate) published: Option<String>,
    /// Where it is published.
    pub(crate) node: Option<Rc<Node>>,
}

/// Returns the ports of a service: those it declares, else what is known of its image or what others call it by.
pub(crate) fn ports(cx: &Cx, fields: &Fields, image: &str, called: &BTreeSet<u16>) -> Vec<Port> {
    let mut found = Vec::new();
    for node in fields.get("ports").map(|node| items(cx, node)).unwrap_or_default() {
        published(cx, node, image, &mut found);
    }
    for node in fields.get("expose").map(|node| items(cx, node)).unwrap_or_default() {
        let Some(text) = cx.known(node) else { continue };
        let (range, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        match range_of(range) {
            Some(range) if protocol == "tcp" => range.for_each(|port| add(&mut found, port, image, None)),
            Some(_) => cx.findings.name(node, format!("`{protocol}` is not passed on: only TCP is"), ""),
            None => cx.odd(node, "a port"),
        }
    }
    let known = images::ports(image).iter().map(|(port, _)| *port);
    if found.is_empty() {
        known.for_each(|port| add(&mut found, port, image, None));
    }
    called.iter().for_each(|port| add(&mut found, *port, image, None));
    named(&mut found);
    found
}

fn items<'n>(cx: &Cx, node: &'n Rc<Node>) -> &'n [Rc<Node>] {
    if node.list().is_none() {
        cx.odd(node, "a list");
    }
    node.list().unwrap_or_default()
}

/// Adds a port that is not there yet; one that is published wins.
fn add(found: &mut Vec<Port>, container: u16, image: &str, publication: Option<(String, Rc<Node>)>) {
    let (published, node) = publication.map_or((None, None), |(published, node)| (Some(published), Some(node)));
    if let Some(port) = found.iter_mut().find(|port| port.container == container) {
        if port.published.is_none() {
            (port.published, port.node) = (published, node);
        }
        return;
    }
    let known = images::ports(image).iter().find(|(port, _)| *port == container);
    let http = known.map_or(!images::is_raw(container), |(_, http)| *http);
    found.push(Port { name: String::new(), container, http, published, node });
}

/// Reads an entry of `ports`: short (`127.0.0.1:8080:80/tcp`) or long.
fn published(cx: &Cx, node: &Rc<Node>, image: &str, found: &mut Vec<Port>) {
    let (target, published, protocol, http) = match &node.data {
        Data::Scalar(_) => {
            let Some(text) = cx.known(node) else { return };
            let (rest, protocol) =
                text.split_once('/').map_or((text.as_str(), "tcp"), |(rest, protocol)| (rest, protocol));
            let (published, target) = match rest.rsplit_once(':') {
                Some((published, target)) => (published.trim_start_matches("0.0.0.0:").to_owned(), target),
                // The engine chooses one.
                None => ("a port that the engine chooses".to_owned(), rest),
            };
            (target.to_owned(), Some(published), protocol.to_owned(), None)
        }
        Data::Map(_) => {
            let long = Fields::new(node);
            let get = |key| long.get(key).and_then(|node| cx.known(node));
            let target = get("target").unwrap_or_default();
            let address = get("host_ip").map(|address| format!("{address}:")).unwrap_or_default();
            let published = get("published").map(|port| format!("{address}{port}"));
            let protocol = get("protocol").unwrap_or_else(|| "tcp".to_owned());
            let http = get("app_protocol").map(|protocol| protocol.starts_with("http"));
            if let Some(name) = long.get("name") {
                cx.findings.name(name, "the port's name is left out: ports are named by what they speak", "");
            }
            long.finish(cx, keys::PORT);
            (target, published, protocol, http)
        }
        _ => return cx.odd(node, "a port"),
    };
    if protocol != "tcp" {
        return cx.findings.name(node, format!("`{protocol}` is not passed on: only TCP is"), "");
    }
    let Some(range) = range_of(&target) else { return cx.odd(node, "a port") };
    for port in range {
        add(found, port, image, published.clone().map(|published| (published, Rc::clone(node))));
        if let (Some(http), Some(port)) = (http, found.last_mut()) {
            port.http = http;
        }
    }
}

/// Reads `80` or `8000-8003`.
fn range_of(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last && last - first < LONGEST_RANGE).then_some(first..=last)
}

/// Names the ports: the first of each kind by its protocol alone, the others with their number.
fn named(found: &mut [Port]) {
    // Published ones are the more important ones.
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|i| (found[*i].published.is_none(), *i));
    let mut taken = BTreeSet::new();
    for i in order {
        let protocol = if found[i].http { "http" } else { "tcp" };
        found[i].name = match taken.insert(protocol) {
            true => protocol.to_owned(),
            false => format!("{protocol}-{}", found[i].container),
        };
    }
}

/// Returns the `port` blocks.
pub(crate) fn blocks(ports: &[Port]) -> Vec<Block> {
    let block = |port: &Port| {
        let block = Block::new("port", &port.name).with("container", Expr::Raw(port.container.to_string()));
        if port.http { block } else { block.with("protocol", Expr::text("tcp")) }
    };
    ports.iter().map(block).collect()
}

/// Returns the ports by which the services are called in the texts of a file: `db:5432` in any value.
pub(crate) fn called(texts: &[String], service: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for text in texts {
        for (at, _) in text.match_indices(service) {
            let before = text[..at].chars().next_back();
            let within = before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            let Some(rest) = text[at + service.len()..].strip_prefix(':').filter(|_| !within) else { continue };
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            // `image: db:16` is a tag, and a volume `db:8080` no port.
            let behind = rest[digits..].chars().next();
            if (2..=5).contains(&digits)
                && !behind.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
            {
                ports.extend(rest[..digits].parse::<u16>().ok().filter(|port| *port > 0));
            }
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let check = |text: &str, expected: &[u16]| {
            let found: Vec<u16> = called(&[text.to_owned()], "db").into_iter().collect();
            assert_eq!(found, expected, "{text}");
        };
        check("postgres://u:p@db:5432/app", &[5432]);
        check("db:6000,db:7000", &[6000, 7000]);
        check("mydb:5432 db.x:1 db:5432a db:", &[]);
        check("http://db", &[]);
    }

    #[test]
    fn ranges() {
        assert_eq!(range_of("80"), Some(80..=80));
        assert_eq!(range_of("80-82"), Some(80..=82));
        assert_eq!(range_of("82-80"), None);
        assert_eq!(range_of("1-60000"), None);
        assert_eq!(range_of("x"), None);
    }
}
