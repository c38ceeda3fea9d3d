//! What only the whole stack shows: circles, conflicts between services, references that lead nowhere useful.

use std::collections::BTreeMap;

use basalt_model::{Name, Place, Route, Stack};

use crate::fault::Fault;
use crate::source::{At, Context};

/// Where things that concern other blocks are written.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// `image` blocks that start from another: from, to, where.
    pub(crate) bases: Vec<(Name, Name, At)>,
    /// Jobs that wait for others: from, to, where.
    pub(crate) job_order: Vec<(Name, Name, At)>,
    /// Services and jobs that reach services: from, to, where.
    pub(crate) connections: Vec<(Name, Name, At)>,
    /// How many ports each service has.
    pub(crate) ports: BTreeMap<Name, usize>,
    /// Routes: what, service, where.
    pub(crate) routes: Vec<(Route, Name, At)>,
    /// Volumes: name, whether shared, service or job, where.
    pub(crate) volumes: Vec<(Name, bool, Name, At)>,
}

/// Reports what is wrong between the blocks of a stack.
pub(crate) fn check(cx: &Context, stack: &Stack, places: &Places) {
    circles(cx, "image", &places.bases, "images start from each other in a circle");
    circles(cx, "job", &places.job_order, "jobs wait for each other in a circle");
    connections(cx, places);
    routes(cx, &places.routes);
    volumes(cx, &places.volumes);
    if stack.services.is_empty() && stack.jobs.is_empty() && !cx.has_faults() {
        let fault = Fault::nowhere("this stack declares no service and no job").warning();
        cx.report(fault.help("applying it removes whatever an earlier version of it declared"));
    }
}

/// Reports each circle with its whole path.
fn circles(cx: &Context, kind: &str, edges: &[(Name, Name, At)], message: &str) {
    let mut graph: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (from, to, _) in edges {
        graph.entry(to.to_string()).or_default();
        graph.entry(from.to_string()).or_default().push(to.to_string());
    }
    for circle in sort(graph).1 {
        let path: Vec<String> = circle.iter().map(|name| format!("{kind}.{name}")).collect();
        let place = |from: &str, to: &str| {
            edges.iter().find(|(f, t, _)| f.as_str() == from && t.as_str() == to).map(|(_, _, at)| *at)
        };
        let mut places = circle.windows(2).filter_map(|pair| place(&pair[0], &pair[1]));
        let Some(first) = places.next() else { continue };
        let fault = Fault::at(first, format!("{message}: {}", path.join(" → ")))
            .label("the circle begins here")
            .help("one of them has to come first");
        cx.report(places.fold(fault, |fault, at| fault.place(at, "goes on here")));
    }
}

/// Reports connections to the service itself, and to services that listen nowhere.
fn connections(cx: &Context, places: &Places) {
    for (from, to, at) in &places.connections {
        if from == to {
            cx.report(
                Fault::at(*at, format!("`{from}` connects to itself")).help("leave it out: it reaches itself anyway"),
            );
        } else if places.ports.get(to) == Some(&0) {
            let fault = Fault::at(*at, format!("`{from}` connects to `{to}`, which has no ports"));
            cx.report(fault.help(format!("give service `{to}` a block such as: port \"http\" {{ container = 8080 }}")));
        }
    }
}

/// Reports routes that are declared twice.
fn routes(cx: &Context, routes: &[(Route, Name, At)]) {
    let mut first: BTreeMap<Place, (&Name, At)> = BTreeMap::new();
    for (route, service, at) in routes {
        if let Some((other, other_at)) = first.get(&route.place()) {
            let shown = format!("{}{}", route.host.as_deref().unwrap_or("any host, "), route.path);
            let fault = Fault::at(*at, format!("`{shown}` is routed twice: to `{other}` and to `{service}`"));
            cx.report(
                fault
                    .label("the second")
                    .place(*other_at, "the first")
                    .help("give one of them another host or path, or methods, headers or query parameters of its own"),
            );
        } else {
            first.insert(route.place(), (service, *at));
        }
    }
}

/// Reports exclusive volumes that two want.
fn volumes(cx: &Context, volumes: &[(Name, bool, Name, At)]) {
    let mut first: BTreeMap<&Name, (bool, &Name, At)> = BTreeMap::new();
    for (volume, shared, owner, at) in volumes {
        if let Some((other_shared, other, other_at)) = first.get(volume) {
            if !(*shared && *other_shared) {
                let fault = Fault::at(*at, format!("the volume `{volume}` is wanted by `{other}` and by `{owner}`"));
                let fault = fault.label("wanted here too").place(*other_at, "wanted here");
                cx.report(fault.help("a volume is exclusive unless each of its blocks says `shared = true`"));
            }
        } else {
            first.insert(volume, (*shared, owner, *at));
        }
    }
}

/// Sorts the names so that each stands behind those it points to. Returns with it the circles, each as the path from a
/// name back to itself.
pub(crate) fn sort(graph: BTreeMap<String, Vec<String>>) -> (Vec<String>, Vec<Vec<String>>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks: BTreeMap<&str, Mark> = graph.keys().map(|name| (name.as_str(), Mark::New)).collect();
    let mut order = Vec::new();
    let mut circles = Vec::new();
    for root in graph.keys() {
        if marks[root.as_str()] != Mark::New {
            continue;
        }
        // The path from the root, with the next edge to follow; a stack of our own, since chains may be long.
        let mut path: Vec<(&str, usize)> = vec![(root, 0)];
        marks.insert(root, Mark::Open);
        while let Some((name, next)) = path.last_mut() {
            let Some(target) = graph[*name].get(*next) else {
                marks.insert(name, Mark::Done);
                order.push((*name).to_owned());
                path.pop();
                continue;
            };
            *next += 1;
            match marks.get(target.as_str()) {
                Some(Mark::New) => {
                    marks.insert(target, Mark::Open);
                    path.push((target, 0));
                }
                Some(Mark::Open) => {
                    let start = path.iter().position(|(name, _)| name == target).unwrap_or(0);
                    let mut circle: Vec<String> = path[start..].iter().map(|(name, _)| (*name).to_owned()).collect();
                    circle.push(target.clone());
                    circles.push(circle);
                }
                Some(Mark::Done) | None => {}
            }
        }
    }
    (order, circles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        edges.iter().map(|(from, to)| (from.to_string(), to.iter().map(|t| t.to_string()).collect())).collect()
    }

    #[test]
    fn sorts() {
        let check = |edges: &[(&str, &[&str])], order: &str, circles: &[&str]| {
            let (found, found_circles) = sort(graph(edges));
            assert_eq!(found.join(" "), order);
            assert_eq!(found_circles.iter().map(|c| c.join(" ")).collect::<Vec<_>>(), circles);
        };
        check(&[("a", &["b"]), ("b", &["c"]), ("c", &[])], "c b a", &[]);
        check(&[("a", &["a"])], "a", &["a a"]);
        check(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"])], "c b a", &["a b c a"]);
        check(&[("a", &["missing"]), ("b", &[])], "a b", &[]);
    }

    #[test]
    fn long_chains_need_no_deep_stack() {
        let chain = (0..200_000).map(|i| (format!("{i:06}"), vec![format!("{:06}", i + 1)])).collect();
        assert_eq!(sort(chain).0.len(), 200_000);
    }
}
