//! `deploy` and its older cousins: how many instances, how much of the machine, and how they are replaced.

use std::rc::Rc;

use crate::fields::Fields;
use crate::hcl::{Block, Expr};
use crate::health::{millis, shown};
use crate::import::Cx;
use crate::keys;
use crate::yaml::Node;

/// The least memory that a stack takes, in bytes.
const LEAST_MEMORY: u64 = 4 << 20;

/// What `deploy` and its cousins say.
#[derive(Default)]
pub(crate) struct Deploy {
    pub(crate) instances: u32,
    pub(crate) limits: Option<Block>,
    /// The strategy and its settings, if the file asks for one.
    pub(crate) rollout: Option<Block>,
}

/// Returns whether a service runs to its end by what it says of itself.
pub(crate) fn is_job(node: &Node) -> bool {
    let mode = node.get("deploy").and_then(|deploy| deploy.get("mode"));
    mode.and_then(|mode| mode.peek()).is_some_and(|mode| mode.ends_with("-job"))
}

/// Reads all of it.
pub(crate) fn deploy(cx: &Cx, fields: &Fields) -> Deploy {
    let empty = Rc::new(Node { path: String::new(), line: 0, data: crate::yaml::Data::Null });
    let deploy = Fields::new(fields.get("deploy").unwrap_or(&empty));
    let scale = fields.get("scale").and_then(|node| cx.number(node));
    let replicas = deploy.get("replicas").and_then(|node| cx.number(node));
    let instances = replicas.or(scale).unwrap_or(1).min(10_000) as u32;
    if let Some(mode) = deploy.get("mode") {
        match cx.known(mode).as_deref() {
            Some("global") => cx.findings.note(mode, "one instance on each machine: there is one machine", ""),
            Some("replicated" | "replicated-job" | "global-job") => {}
            _ => cx.odd(mode, "a mode"),
        }
    }
    let limits = limits(cx, fields, &deploy);
    let rollout = deploy.get("update_config").and_then(|node| rollout(cx, node));
    deploy.finish(cx, keys::DEPLOY);
    Deploy { instances, limits, rollout }
}

fn limits(cx: &Cx, fields: &Fields, deploy: &Fields) -> Option<Block> {
    let mut block = Block::plain("limits");
    let resources = deploy.get("resources");
    let inner = resources.and_then(|node| node.get("limits"));
    if let Some(resources) = resources {
        for (key, node) in resources.map().unwrap_or_default() {
            if key != "limits" {
                cx.findings.name(
                    node,
                    format!("`{key}` are left out: nothing is scheduled by them"),
                    "`limits` are the upper bounds",
                );
            }
        }
    }
    let empty = Rc::new(Node { path: String::new(), line: 0, data: crate::yaml::Data::Null });
    let long = Fields::new(inner.unwrap_or(&empty));
    if let Some(node) = long.get("cpus").or(fields.get("cpus")) {
        let cpus = cx.known(node).and_then(|text| text.parse::<f64>().ok());
        match cpus.map(|cpus| (cpus * 1000.0).round()) {
            Some(millis) if (1.0..=4_096_000.0).contains(&millis) => block.set("cpu", Expr::text(format!("{millis}m"))),
            // No limit.
            Some(0.0) => {}
            _ => cx.odd(node, "a number of processors"),
        }
    }
    if let Some(node) = long.get("memory").or(fields.get("mem_limit")) {
        match cx.known(node).and_then(|text| bytes(&text)) {
            Some(0) => {}
            Some(size) if size < LEAST_MEMORY => {
                cx.findings.name(node, "less than 4 MiB, in which nothing starts: left out", "");
            }
            Some(size) => block.set("memory", Expr::text(size_shown(size))),
            None => cx.odd(node, "a size"),
        }
    }
    if let Some(node) = long.get("pids").or(fields.get("pids_limit")) {
        match cx.number(node).filter(|pids| (1..=1 << 22).contains(pids)) {
            Some(pids) => block.set("pids", Expr::Raw(pids.to_string())),
            None => cx.findings.name(node, "no bound on processes is left at the stack's own, 1024", ""),
        }
    }
    long.finish(cx, &[]);
    (!block.attributes.is_empty()).then_some(block)
}

/// Reads a size as Compose has them: powers of 1024, in bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 1.0,
        "k" => 1024.0,
        "m" => 1_048_576.0,
        "g" => 1_073_741_824.0,
        "t" => 1_099_511_627_776.0,
        _ => return None,
    };
    let size = number.parse::<f64>().ok()? * factor;
    (size < 1e18).then_some(size as u64)
}

/// Writes a size in the largest unit that it is a whole number of.
fn size_shown(size: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, factor)| size.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", size / factor),
        None => format!("{size}B"),
    }
}

/// Reads `update_config`.
fn rollout(cx: &Cx, node: &Rc<Node>) -> Option<Block> {
    let fields = Fields::new(node);
    let at_once = fields.get("parallelism").map_or(Some(1), |node| cx.number(node)).unwrap_or(1);
    let start_first = fields.get("order").and_then(|node| cx.known(node)).as_deref() == Some("start-first");
    let mut block = match (start_first, at_once) {
        (true, 0) => Block::new("rollout", "blue_green"),
        (false, 0) => Block::new("rollout", "recreate"),
        (true, n) => {
            let block = Block::new("rollout", "rolling").with("max_surge", Expr::Raw(n.min(10_000).to_string()));
            block.with("max_unavailable", Expr::Raw("0".to_owned()))
        }
        (false, n) => {
            let block = Block::new("rollout", "rolling").with("max_surge", Expr::Raw("0".to_owned()));
            block.with("max_unavailable", Expr::Raw(n.min(10_000).to_string()))
        }
    };
    if let Some(node) = fields.get("monitor") {
        match cx.known(node).and_then(|text| millis(&text)) {
            // A deadline is ten minutes.
            Some(time) if time > 0 && time < 300_000 => block.set("hold", Expr::text(shown(time))),
            _ => cx.findings.name(node, "`monitor` is left out", "write `hold` and `deadline` in the `rollout` block"),
        }
    }
    if let Some(node) = fields.get("failure_action") {
        if cx.known(node).as_deref() != Some("rollback") {
            cx.findings.note(node, "a rollout that fails always goes back to the release that served before", "");
        }
    } else {
        cx.findings.note(
            node,
            "a rollout that fails goes back to the release that served before; Compose would pause it",
            "",
        );
    }
    fields.finish(
        cx,
        &[
            keys::Row {
                key: "delay",
                what: "the pause between steps is left out: each step waits for health",
                instead: "",
            },
            keys::Row {
                key: "max_failure_ratio",
                what: "the share of failures is left out: any failure brings the rollout back",
                instead: "",
            },
        ],
    );
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(bytes(text).map(size_shown).as_deref(), expected, "{text}");
        check("512M", Some("512MiB"));
        check("1.5g", Some("1536MiB"));
        check("64mb", Some("64MiB"));
        check("100", Some("100B"));
        check("2GiB", Some("2GiB"));
        check("x", None);
        check("1q", None);
    }
}
