//! The services of a file, with what they extend, and without those of profiles that were not asked for.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::import::Cx;
use crate::yaml::{Data, Node, overlaid, parse};

/// The longest chain of services that extend each other.
const LONGEST_CHAIN: usize = 16;

/// Returns the services by their keys.
pub(crate) fn services(cx: &Cx, services: &Rc<Node>) -> Vec<(String, Rc<Node>)> {
    let Some(entries) = services.map() else {
        cx.odd(services, "a mapping of services");
        return Vec::new();
    };
    let mut kept = Vec::new();
    for (key, node) in entries {
        let node = extended(cx, node, services, Path::new(""), 0);
        if is_wanted(cx, &node) {
            kept.push((key.clone(), node));
        }
    }
    kept
}

/// Returns whether the service belongs to no profile, or to one that was asked for. Names it if not.
fn is_wanted(cx: &Cx, node: &Rc<Node>) -> bool {
    let Some(profiles) = node.get("profiles") else { return true };
    let names: Vec<String> = profiles.list().unwrap_or_default().iter().filter_map(|name| cx.known(name)).collect();
    let wanted = names.iter().any(|name| cx.options.profiles.contains(name)) || cx.options.profiles.contains("*");
    if !wanted {
        let what =
            format!("the service belongs to a profile ({}) that was not asked for, and is left out", names.join(", "));
        cx.findings.name(node, what, "import with `--profile NAME` to have it in the stack");
    }
    wanted || names.is_empty()
}

/// Returns the service on top of the one it extends.
fn extended(cx: &Cx, node: &Rc<Node>, siblings: &Rc<Node>, folder: &Path, depth: usize) -> Rc<Node> {
    let Some(extends) = node.get("extends") else { return Rc::clone(node) };
    let (service, file) = match &extends.data {
        Data::Scalar(_) => (cx.known(extends), None),
        _ => (extends.get("service").and_then(|n| cx.known(n)), extends.get("file").and_then(|n| cx.known(n))),
    };
    let own = without(node, "extends");
    let Some(service) = service.filter(|_| depth < LONGEST_CHAIN) else {
        cx.findings.name(extends, "this names no service to extend, or goes in a circle", "");
        return own;
    };
    let (siblings, folder) = match file {
        None => (Rc::clone(siblings), folder.to_owned()),
        Some(file) => {
            let path: PathBuf = folder.join(&file);
            let read = cx.files.text(&path).ok_or("it can't be read".to_owned());
            let root =
                read.and_then(|text| parse(&text).map_err(|error| format!("line {}: {}", error.line, error.why)));
            let services = root.and_then(|root| root.get("services").cloned().ok_or("it has no services".to_owned()));
            match services {
                Ok(services) => (services, path.parent().unwrap_or(Path::new("")).to_owned()),
                Err(why) => {
                    cx.findings.name(extends, format!("`{file}` is not extended: {why}"), "");
                    return own;
                }
            }
        }
    };
    let Some(base) = siblings.get(&service) else {
        cx.findings.name(extends, format!("there is no service `{service}` to extend"), "");
        return own;
    };
    if folder != Path::new("") {
        let what = format!("paths of the service in `{}` are taken from this file's folder", folder.display());
        cx.findings.note(extends, what, "check the paths in the stack");
    }
    let base = extended(cx, base, &siblings, &folder, depth + 1);
    // Compose does not hand these on.
    let base =
        ["depends_on", "links", "volumes_from", "profiles"].into_iter().fold(base, |base, key| without(&base, key));
    overlaid(&base, &own, "")
}

/// Returns a mapping without one key.
fn without(node: &Rc<Node>, key: &str) -> Rc<Node> {
    let Some(entries) = node.map().filter(|_| node.get(key).is_some()) else { return Rc::clone(node) };
    let entries = entries.iter().filter(|(name, _)| name != key).cloned().collect();
    Rc::new(Node { path: node.path.clone(), line: node.line, data: Data::Map(entries) })
}
