//! One service to a `service` or `job` block, and the images that it needs.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use crate::deploy::deploy;
use crate::dotenv::dotenv;
use crate::fields::Fields;
use crate::hcl::{Block, Expr, Text};
use crate::health::{health, millis, shown};
use crate::images::{self, Known};
use crate::import::{Cx, Project, Service};
use crate::interpolate::Where;
use crate::keys;
use crate::mounts::mounts;
use crate::names::is_secret;
use crate::ports;
use crate::shell::words;
use crate::yaml::{Data, Node};
use crate::{build, network::Route};

/// What a container of Docker may do and servers make use of; the file says what more, and what less.
pub(crate) const CAPABILITIES: [&str; 8] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// The blocks of a service.
pub(crate) struct Converted {
    pub(crate) images: Vec<Block>,
    pub(crate) block: Block,
}

/// Returns the blocks of a service; `None` if it has no image.
pub(crate) fn convert(cx: &Cx, project: &Project, service: &Service) -> Option<Converted> {
    let fields = &service.fields;
    let name = service.name.as_str();
    let mut images = Vec::new();
    let build = fields.get("build");
    let tag = fields.get("image");
    let mut image = match (build, tag) {
        (Some(build), tag) => {
            let built = build::image(cx, build, name);
            if let Some(tag) = tag {
                cx.findings.name(tag, "the name of the image that is built is left out: it is known by digest", "");
            }
            let built = built?;
            images.extend(built.block);
            Expr::Raw(reference("image", &built.name))
        }
        (None, Some(tag)) => Expr::Text(cx.text(tag, Where::Elsewhere)?),
        (None, None) => {
            cx.findings.name(fields.node, "a service without image and build is left out", "");
            return None;
        }
    };
    let known = images::known(&service.image).filter(|_| build.is_none());
    if let (Some("traefik"), Some(tag)) = (known.map(|known| known.name), tag) {
        let what =
            "it reads labels from the engine, which is not there; its rules by host and path became `route` blocks";
        cx.findings.note(tag, what, "leave the service out: the gateway does what it did");
    }
    let deploy = deploy(cx, fields);
    let job = project.jobs.contains(&service.key);
    let mut mounts = mounts(cx, fields, name, if job { 1 } else { deploy.instances }, build.is_some(), &project.shared);
    if !mounts.copies.is_empty() {
        let own = if build.is_none() { name.to_owned() } else { format!("{name}-files") };
        let mut block = Block::new("image", &own).with("from", image);
        for (from, to) in &mounts.copies {
            block.blocks.push(Block::new("copy", &cx.path(from)).with("to", Expr::text(to)));
        }
        images.push(block);
        image = Expr::Raw(reference("image", &own));
    }
    if fields.get("read_only").and_then(|node| cx.bool(node)) != Some(true) {
        known.map_or(["/tmp", "/run"].as_slice(), |known| known.writes).iter().for_each(|path| mounts.scratch(path));
    }

    let mut block = Block::new(if job { "job" } else { "service" }, name).with("image", image);
    if !job && deploy.instances != 1 {
        block.set("instances", Expr::Raw(deploy.instances.to_string()));
    }
    if let Some(command) = command(cx, fields, known, build.is_some()) {
        block.set("command", Expr::List(command.into_iter().map(Expr::Text).collect()));
    }
    let env = environment(cx, fields, name);
    if !env.is_empty() {
        block.set("env", Expr::Map(env));
    }
    let user = fields.get("user").and_then(|node| cx.known(node));
    if let Some(user) = &user {
        block.set("user", Expr::text(user));
    }
    if let Some(workdir) = fields.get("working_dir").and_then(|node| cx.text(node, Where::Elsewhere)) {
        block.set("workdir", Expr::Text(workdir));
    }
    if !mounts.scratch.is_empty() {
        block.set("scratch", Expr::texts(&mounts.scratch));
    }
    capabilities(cx, fields, user.as_deref(), &mut block);
    if project.has_egress(service) && !service.is_store() {
        block.set("egress", Expr::Raw("true".to_owned()));
    }
    let peers = project.peers(service).into_iter().map(|peer| Expr::Raw(reference("service", peer))).collect();
    block.set_all("connects_to", peers);
    block.set_all("depends_on", depends_on(cx, fields, project));
    let grace = fields.get("stop_grace_period");
    if job {
        for (key, node) in [("stop_grace_period", grace), ("healthcheck", fields.get("healthcheck"))] {
            if let Some(node) = node {
                cx.findings.name(node, format!("`{key}` is left out: a job runs once, to its end"), "");
            }
        }
        for port in service.ports.iter().filter_map(|port| port.node.as_ref()) {
            cx.findings.name(port, "ports are left out: a job runs once, to its end", "");
        }
    } else {
        match grace.map(|node| (node, cx.known(node).and_then(|text| millis(&text)))) {
            Some((_, Some(time))) => block.set("stop_within", Expr::text(shown(time))),
            Some((node, None)) => cx.odd(node, "a duration"),
            None => {}
        }
    }
    block.blocks.append(&mut mounts.blocks);
    if !job {
        block.blocks.extend(ports::blocks(&service.ports));
    }
    block.blocks.extend(deploy.limits);
    if !job {
        block.blocks.extend(fields.get("healthcheck").and_then(|node| health(cx, node, &service.ports)));
        block.blocks.extend(routes(cx, project, service));
        let has_volume = block.blocks.iter().any(|block| block.word == "volume");
        match deploy.rollout {
            Some(rollout) if !mounts.exclusive => block.blocks.push(rollout),
            other => {
                if let (Some(_), Some(node)) = (other, fields.get("deploy").and_then(|node| node.get("update_config")))
                {
                    let what = "a volume that no two instances may have at once allows `recreate` alone";
                    cx.findings.note(node, what, "write `shared = true` in the volume if the program can share it");
                }
                // The data must not be opened by two releases at once; Compose stops the old one first as well.
                if has_volume && deploy.instances == 1 {
                    block.blocks.push(Block::new("rollout", "recreate"));
                }
            }
        }
    }
    Some(Converted { images, block })
}

/// Returns a reference to a block.
pub(crate) fn reference(kind: &str, name: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("{kind}[\"{name}\"]")
    } else {
        format!("{kind}.{name}")
    }
}

/// Returns the whole command, if the file says any of it.
fn command(cx: &Cx, fields: &Fields, known: Option<&Known>, builds: bool) -> Option<Vec<Text>> {
    let entrypoint = fields.get("entrypoint").map(|node| arguments(cx, node));
    let node = fields.get("command");
    let command = node.map(|node| arguments(cx, node)).filter(|command| !command.is_empty());
    if let Some(entrypoint) = entrypoint {
        let whole: Vec<Text> = entrypoint.into_iter().chain(command.unwrap_or_default()).collect();
        return (!whole.is_empty()).then_some(whole);
    }
    let command = command?;
    match known {
        Some(known) => Some(known.entrypoint.iter().copied().map(Text::literal).chain(command).collect()),
        None => {
            if let Some(node) = node {
                let place = if builds { "the Dockerfile" } else { "the image" };
                let what = format!("`command` replaces the ENTRYPOINT of {place} as well");
                cx.findings.note(node, what, "put the entrypoint before it, if there is one");
            }
            Some(command)
        }
    }
}

/// Returns the words of a command, as a list or in one string.
fn arguments(cx: &Cx, node: &Node) -> Vec<Text> {
    match &node.data {
        Data::List(items) => items.iter().filter_map(|item| cx.text(item, Where::Elsewhere)).collect(),
        Data::Scalar(_) => {
            let Some(raw) = node.text() else { return Vec::new() };
            let parts = words(raw);
            // A default with a space in it belongs to one word.
            let whole = |word: &String| word.matches("${").count() == word.matches('}').count();
            if raw.contains('$') && !parts.iter().all(whole) {
                return words(&cx.variables.known(raw)).into_iter().map(Text::literal).collect();
            }
            parts.iter().map(|word| cx.read(word, Where::Elsewhere)).collect()
        }
        _ => {
            cx.odd(node, "a command");
            Vec::new()
        }
    }
}

/// Returns the environment: of `env_file`, and on top of it of `environment`.
fn environment(cx: &Cx, fields: &Fields, service: &str) -> Vec<(String, Expr)> {
    let mut env: Vec<(String, Expr)> = Vec::new();
    let mut put = |key: String, value: Expr| match env.iter_mut().find(|(name, _)| *name == key) {
        Some(entry) => entry.1 = value,
        None => env.push((key, value)),
    };
    if let Some(node) = fields.get("env_file") {
        let nodes = node.list().map_or_else(|| vec![Rc::clone(node)], <[Rc<Node>]>::to_vec);
        for node in &nodes {
            let path = match node.map() {
                Some(_) => node.get("path").and_then(|path| cx.known(path)),
                None => cx.known(node),
            };
            let required = node.get("required").and_then(|node| cx.bool(node)).unwrap_or(true);
            if let Some(format) = node.get("format") {
                cx.findings.name(format, "the form of the file is left out: `$` in it is replaced", "");
            }
            let Some(path) = path else { continue };
            match cx.files.text(Path::new(path.trim_start_matches("./"))) {
                Some(text) => {
                    for (key, value) in dotenv(&text) {
                        let value = cx.hosts(cx.variables.known(&value));
                        let secret = is_secret(&key) && !value.is_empty();
                        let text =
                            if secret { cx.variables.secret(service, &key, &value) } else { Text::literal(value) };
                        put(key, Expr::Text(text));
                    }
                }
                None if required => {
                    cx.findings.name(node, format!("`{path}` can't be read: its variables are missing"), "")
                }
                None => cx.findings.name(node, format!("`{path}` is not there, and need not be"), ""),
            }
        }
    }
    if let Some(node) = fields.get("environment") {
        for (key, value) in cx.pairs(node, Where::Environment) {
            match &value {
                Expr::Text(text) if text.is_literal() => cx.shown_in_clear(node, &key, &text.plain()),
                Expr::Text(text) if is_secret(&key) => cx.variables.conceal(text),
                _ => {}
            }
            put(key, value);
        }
    }
    env
}

/// Sets the capabilities: those that Docker gives, and what the file adds and drops.
fn capabilities(cx: &Cx, fields: &Fields, user: Option<&str>, block: &mut Block) {
    let names = |key| -> BTreeSet<String> {
        let nodes = fields.get(key).and_then(|node| node.list()).unwrap_or_default();
        let name = |node: &Rc<Node>| {
            cx.known(node).map(|text| text.to_ascii_uppercase().trim_start_matches("CAP_").to_owned())
        };
        nodes.iter().filter_map(name).collect()
    };
    let (added, dropped) = (names("cap_add"), names("cap_drop"));
    let is_root = user.is_none_or(|user| matches!(user.split(':').next(), Some("0" | "root" | "")));
    let all = dropped.contains("ALL");
    let mut kept: BTreeSet<String> = CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    if !is_root || all {
        kept.clear();
    }
    if added.is_empty() && !kept.is_empty() && dropped.is_empty() {
        return block.set("capabilities", Expr::Raw("local.capabilities".to_owned()));
    }
    kept.retain(|name| !dropped.contains(name));
    if added.contains("ALL")
        && let Some(node) = fields.get("cap_add")
    {
        cx.findings.name(node, "all capabilities are not given", "name those that it needs in `capabilities`");
    }
    kept.extend(added.into_iter().filter(|name| name != "ALL"));
    if !kept.is_empty() {
        block.set("capabilities", Expr::texts(kept));
    }
}

/// Returns the jobs that a service waits for; services that it would wait for are named.
fn depends_on(cx: &Cx, fields: &Fields, project: &Project) -> Vec<Expr> {
    let Some(node) = fields.get("depends_on") else { return Vec::new() };
    let entries: Vec<(String, &Rc<Node>)> = match &node.data {
        Data::List(items) => items.iter().filter_map(|item| Some((cx.known(item)?, item))).collect(),
        Data::Map(entries) => entries.iter().map(|(key, node)| (key.clone(), node)).collect(),
        _ => {
            cx.odd(node, "a list of services");
            Vec::new()
        }
    };
    let mut jobs = Vec::new();
    for (key, node) in entries {
        let condition = node.get("condition").and_then(|node| cx.known(node));
        if node.map().is_some() {
            let inner = Fields::new(node);
            inner.get("condition");
            inner.finish(
                cx,
                &[
                    keys::Row {
                        key: "required",
                        what: "`required` is left out: what is declared is there",
                        instead: "",
                    },
                    keys::Row {
                        key: "restart",
                        what: "`restart` is left out: releases are replaced one by one",
                        instead: "",
                    },
                ],
            );
        }
        let Some(service) = project.services.iter().find(|service| service.key == key) else {
            cx.findings.note(node, format!("there is no service `{key}` to wait for"), "");
            continue;
        };
        if project.jobs.contains(&key) {
            jobs.push(Expr::Raw(reference("job", &service.name)));
            if condition.as_deref() != Some("service_completed_successfully") {
                cx.findings.note(node, format!("`{key}` is a job: this service waits until it has ended well"), "");
            }
            continue;
        }
        let until = if condition.as_deref() == Some("service_healthy") { "is healthy" } else { "has started" };
        let what = format!("services start side by side: this one does not wait until `{key}` {until}");
        cx.findings.note(node, what, "the gateway holds connections to a service for a while until it is healthy");
    }
    jobs
}

/// Returns the `route` blocks: those that labels ask for, else one for each published port that speaks HTTP.
fn routes(cx: &Cx, project: &Project, service: &Service) -> Vec<Block> {
    let by_label = |Route { host, path }: &Route| {
        let port = service.ports.iter().find(|port| Some(port.container) == service.label_port && port.http);
        let port = port.or(service.ports.iter().find(|port| port.http))?;
        let mut block = Block::plain("route").with("host", Expr::text(host.to_ascii_lowercase()));
        if path != "/" {
            block.set("path", Expr::text(path));
        }
        Some(block.with("port", Expr::text(&port.name)))
    };
    let mut blocks: Vec<Block> = service.routes.iter().filter_map(by_label).collect();
    let labelled = !blocks.is_empty();
    for port in &service.ports {
        let (Some(published), Some(node)) = (&port.published, &port.node) else { continue };
        if !port.http {
            let what = format!("port {} speaks no HTTP: `{published}` does not lead to it", port.container);
            let name = &service.name;
            cx.findings.note(
                node,
                what,
                format!("services that connect to it reach it as `{name}:{}`", port.container),
            );
            continue;
        }
        if labelled {
            cx.findings.note(node, format!("`{published}` is not opened: the routes lead to it"), "");
            continue;
        }
        let first = service.ports.iter().find(|port| port.http && port.published.is_some());
        let is_first = first.is_some_and(|first| first.container == port.container);
        let host = match (project.published, is_first) {
            (1, true) => None,
            (_, true) => Some(format!("{}.localhost", service.name)),
            (_, false) => Some(format!("{}-{}.localhost", service.name, port.container)),
        };
        let at = host.clone().unwrap_or_else(|| "any host".to_owned());
        let what = format!("the gateway answers for {at} on its own address, not on `{published}`");
        cx.findings.note(node, what, "say where it listens with `basalt up --http ADDRESS`");
        let block = match host {
            Some(host) => Block::plain("route").with("host", Expr::text(host)),
            None => Block::plain("route").with("path", Expr::text("/")),
        };
        blocks.push(block.with("port", Expr::text(&port.name)));
    }
    blocks
}
