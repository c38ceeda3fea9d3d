//! Volumes, bind mounts, configs and secrets: to volumes, read-only files and folders baked into the image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use crate::fields::Fields;
use crate::hcl::{Block, Expr};
use crate::import::{Cx, PathKind};
use crate::interpolate::Where;
use crate::keys;
use crate::names::name;
use crate::yaml::{Data, Node};

/// An entry of `volumes`.
pub(crate) struct Mount {
    kind: String,
    source: Option<String>,
    target: String,
    read_only: bool,
}

/// What a service has mounted.
#[derive(Default)]
pub(crate) struct Mounts {
    /// `config`, `secret` and `volume` blocks.
    pub(crate) blocks: Vec<Block>,
    /// Folders that die with the instance.
    pub(crate) scratch: BTreeSet<String>,
    /// Folders to bake into its image: from, to.
    pub(crate) copies: Vec<(String, String)>,
    /// Whether it has a volume that no other instance may have at once.
    pub(crate) exclusive: bool,
    taken: BTreeSet<String>,
}

/// The files that configs and secrets of the file are made from.
pub(crate) struct Shared<'n> {
    pub(crate) configs: Option<&'n Rc<Node>>,
    pub(crate) secrets: Option<&'n Rc<Node>>,
    /// How often each volume is mounted.
    pub(crate) users: BTreeMap<String, usize>,
}

/// Reads an entry of `volumes`, short or long.
pub(crate) fn mount(cx: &Cx, node: &Rc<Node>) -> Option<Mount> {
    if node.map().is_some() {
        let long = Fields::new(node);
        let get = |key| long.get(key).and_then(|node| cx.known(node));
        let mount = Mount {
            kind: get("type").unwrap_or_else(|| "volume".to_owned()),
            source: get("source").or_else(|| get("src")),
            target: get("target").unwrap_or_default(),
            read_only: long.get("read_only").and_then(|node| cx.bool(node)).unwrap_or(false),
        };
        if let Some(tmpfs) = long.get("tmpfs") {
            cx.findings.name(tmpfs, "size and mode of the tmpfs are left out: `memory` in `limits` bounds it", "");
        }
        long.finish(cx, keys::MOUNT);
        return Some(mount);
    }
    let text = cx.known(node)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, mode] => (Some(*source), *target, *mode),
        _ => {
            cx.odd(node, "a mount");
            return None;
        }
    };
    let is_path = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    for option in mode.split(',').filter(|option| !matches!(*option, "" | "ro" | "rw")) {
        cx.findings.note(node, format!("the mount option `{option}` is left out"), "");
    }
    Some(Mount {
        kind: if is_path { "bind" } else { "volume" }.to_owned(),
        source: source.map(str::to_owned),
        target: target.to_owned(),
        read_only: mode.split(',').any(|option| option == "ro"),
    })
}

/// Returns how often each named volume is mounted by the services.
pub(crate) fn users(cx: &Cx, services: &[(String, Rc<Node>)]) -> BTreeMap<String, usize> {
    let mut users = BTreeMap::new();
    for (key, node) in services {
        for node in node.get("volumes").and_then(|node| node.list()).unwrap_or_default() {
            if let Some(volume) = mount(cx, node).and_then(|mount| volume_name(cx, &mount, key)) {
                *users.entry(volume).or_default() += 1;
            }
        }
    }
    users
}

/// Returns the name of the volume that a mount becomes, if it becomes one.
fn volume_name(cx: &Cx, mount: &Mount, service: &str) -> Option<String> {
    let anonymous = || name(&format!("{service}-{}", mount.target));
    match (mount.kind.as_str(), &mount.source) {
        ("volume", Some(source)) => Some(name(source)),
        ("volume", None) => Some(anonymous()),
        ("bind", Some(source)) => {
            let path = Path::new(source.trim_start_matches("./"));
            // What is not there and has an ending is a file that is missing.
            let is_file = cx.files.kind(path).map_or(path.extension().is_some(), |kind| kind == PathKind::File);
            let data = !mount.read_only && !is_file && !is_of_the_machine(source);
            // The folder of the file itself is what is being developed, not data.
            data.then(|| name(&format!("{service}-{}", source.trim_start_matches(['.', '/']))))
                .filter(|_| !source.trim_matches(['.', '/']).is_empty())
        }
        _ => None,
    }
}

/// Returns whether a path is one of the machine that no instance may have.
fn is_of_the_machine(source: &str) -> bool {
    let parts = ["/var/run", "/run", "/proc", "/sys", "/dev", "/etc", "/var/lib/docker", "/var/log", "/lib", "/usr"];
    source == "/"
        || source.starts_with('~')
        || parts.iter().any(|part| source == *part || source.starts_with(&format!("{part}/")))
}

/// Reads all mounts of a service.
pub(crate) fn mounts(cx: &Cx, fields: &Fields, service: &str, instances: u32, builds: bool, shared: &Shared) -> Mounts {
    let mut mounts = Mounts::default();
    for node in fields.get("volumes").and_then(|node| node.list()).unwrap_or_default() {
        if let Some(mount) = mount(cx, node) {
            mounts.add(cx, node, mount, service, instances, builds, shared);
        }
    }
    if let Some(node) = fields.get("tmpfs") {
        let nodes = node.list().map_or_else(|| vec![Rc::clone(node)], <[Rc<Node>]>::to_vec);
        for node in &nodes {
            let Some(text) = cx.known(node) else { continue };
            let (path, options) = text.split_once(':').unwrap_or((&text, ""));
            if !options.is_empty() {
                cx.findings.note(node, format!("options of the tmpfs are left out: `{options}`"), "");
            }
            mounts.scratch(path);
        }
    }
    for node in fields.get("configs").and_then(|node| node.list()).unwrap_or_default() {
        mounts.config(cx, node, shared.configs);
    }
    for node in fields.get("secrets").and_then(|node| node.list()).unwrap_or_default() {
        mounts.secret(cx, node, shared.secrets);
    }
    mounts
}

impl Mounts {
    /// Adds a folder that dies with the instance, unless something is mounted there.
    pub(crate) fn scratch(&mut self, path: &str) {
        let path = path.trim_end_matches('/');
        if path.starts_with('/') && self.taken.insert(path.to_owned()) {
            self.scratch.insert(path.to_owned());
        }
    }

    /// Takes a path to mount at; names what can't be.
    fn take(&mut self, cx: &Cx, node: &Node, target: &str) -> Option<String> {
        let path = target.trim_end_matches('/');
        let odd = !path.starts_with('/') || path.split('/').any(|part| part == "." || part == "..");
        let kernel = ["/proc", "/sys"].iter().any(|root| path == *root || path.starts_with(&format!("{root}/")));
        if odd || kernel {
            cx.findings.name(node, format!("nothing can be mounted at `{target}`: it is left out"), "");
            return None;
        }
        if !self.taken.insert(path.to_owned()) {
            cx.findings.name(node, format!("something else is mounted at `{path}`: this is left out"), "");
            return None;
        }
        Some(path.to_owned())
    }

    #[expect(clippy::too_many_arguments, reason = "what a mount becomes depends on all of the service")]
    fn add(
        &mut self,
        cx: &Cx,
        node: &Node,
        mount: Mount,
        service: &str,
        instances: u32,
        builds: bool,
        shared: &Shared,
    ) {
        let source = mount.source.clone().unwrap_or_default();
        match mount.kind.as_str() {
            "tmpfs" => return self.scratch(&mount.target),
            "volume" | "bind" => {}
            other => return cx.findings.name(node, format!("mounts of type `{other}` are left out"), ""),
        }
        let file = source.trim_start_matches("./").trim_end_matches('/').to_owned();
        let there = cx.files.kind(Path::new(&file));
        if let Some(volume) = volume_name(cx, &mount, service) {
            let inside_image = builds && there == Some(PathKind::Folder) && mount.kind == "bind";
            if inside_image {
                let what = format!("`{source}` is not mounted: the image that is built has its own copy");
                return cx.findings.name(node, what, "apply again after a change: a change of source is a new release");
            }
            let Some(path) = self.take(cx, node, &mount.target) else { return };
            if mount.kind == "bind" {
                let what =
                    format!("the folder `{source}` of the machine became the volume `{volume}`, which starts empty");
                cx.findings.note(node, what, "copy what it holds");
            }
            if mount.read_only {
                cx.findings.note(node, "a volume is never read-only here", "");
            }
            let mut block = Block::new("volume", &path).with("name", Expr::text(&volume));
            if shared.users.get(&volume).copied().unwrap_or(1) > 1 || instances > 1 {
                block.set("shared", Expr::Raw("true".to_owned()));
            } else {
                self.exclusive = true;
            }
            return self.blocks.push(block);
        }
        if source.ends_with("docker.sock") {
            let what = "there is no engine to control from within: the socket is left out";
            return cx.findings.name(node, what, "routes, logs and metrics come from Basalt itself");
        }
        match there {
            _ if is_of_the_machine(&source) => {
                cx.findings.name(node, format!("`{source}` belongs to the machine, and is not mounted"), "");
            }
            Some(PathKind::File) if cx.files.text(Path::new(&file)).is_none() => {
                cx.findings.name(
                    node,
                    format!("`{file}` is no text, which a `config` would be"),
                    "copy it into the image",
                );
            }
            Some(PathKind::File) => {
                let Some(path) = self.take(cx, node, &mount.target) else { return };
                if !mount.read_only {
                    cx.findings.note(
                        node,
                        "the file is read-only in the instance, and a change of it a new release",
                        "",
                    );
                }
                let content = format!("file({})", crate::hcl::quoted(&cx.path(&file)));
                self.blocks.push(Block::new("config", &path).with("content", Expr::Raw(content)));
            }
            Some(PathKind::Folder) if mount.read_only => {
                cx.findings.note(
                    node,
                    format!("`{file}` is baked into the image: a change of it is a new release"),
                    "",
                );
                self.copies.push((file, mount.target));
            }
            Some(PathKind::Folder) => {
                let what = format!("`{source}` is not mounted: an instance has only what its release says");
                cx.findings.name(
                    node,
                    what,
                    "copy what it needs into the image: image \"…\" { copy \"…\" { to = \"…\" } }",
                );
            }
            None => cx.findings.name(
                node,
                format!("there is no `{source}`: it is left out"),
                "write a `config` or `copy` block",
            ),
        }
    }

    /// Adds the use of a config.
    fn config(&mut self, cx: &Cx, node: &Node, configs: Option<&Rc<Node>>) {
        let Some((key, target, mode)) = usage(cx, node) else { return };
        let Some(config) = configs.and_then(|configs| configs.get(&key)) else {
            return cx.findings.name(node, format!("there is no config `{key}`"), "");
        };
        let fields = Fields::new(config);
        let content = if let Some(content) = fields.get("content") {
            cx.text(content, Where::Elsewhere).map(Expr::Text)
        } else if let Some(file) = fields.get("file") {
            cx.known(file).map(|file| {
                if cx.files.kind(Path::new(file.trim_start_matches("./"))) != Some(PathKind::File) {
                    cx.findings.note(config, format!("there is no `{file}`"), "the stack is not valid without it");
                }
                Expr::Raw(format!("file({})", crate::hcl::quoted(&cx.path(file.trim_start_matches("./")))))
            })
        } else if let Some(variable) = fields.get("environment") {
            cx.known(variable).map(|name| Expr::Text(cx.variables.passed_on(&name)))
        } else {
            None
        };
        fields.finish(cx, keys::FILE);
        let Some(content) = content else {
            cx.findings.name(
                config,
                "what this config holds is not in the file: it is left out",
                "write it into a `config` block",
            );
            return node.use_all();
        };
        let target = target.unwrap_or_else(|| format!("/{key}"));
        let Some(path) = self.take(cx, node, &target) else { return };
        let mut block = Block::new("config", &path).with("content", content);
        if let Some(mode) = mode {
            block.set("mode", Expr::text(mode));
        }
        self.blocks.push(block);
    }

    /// Adds the use of a secret.
    fn secret(&mut self, cx: &Cx, node: &Node, secrets: Option<&Rc<Node>>) {
        let Some((key, target, mode)) = usage(cx, node) else { return };
        let secret = name(&key);
        match secrets.and_then(|secrets| secrets.get(&key)) {
            None => return cx.findings.name(node, format!("there is no secret `{key}`"), ""),
            Some(source) => {
                let get = |key| source.get(key).and_then(|node| cx.known(node));
                let from = match (get("file"), get("environment")) {
                    (Some(file), _) => format!("basalt secret set {secret} < {file}"),
                    (_, Some(variable)) => format!("printf %s \"${variable}\" | basalt secret set {secret}"),
                    _ => format!("basalt secret set {secret}"),
                };
                cx.findings.name(
                    source,
                    "secrets are kept encrypted, and a release pins their version",
                    format!("store it: {from}"),
                );
            }
        }
        let target = target.unwrap_or_else(|| key.clone());
        let target = if target.starts_with('/') { target } else { format!("/run/secrets/{target}") };
        let Some(path) = self.take(cx, node, &target) else { return };
        let mut block = Block::new("secret", &path).with("from", Expr::Raw(format!("secret.{secret}")));
        if let Some(mode) = mode {
            block.set("mode", Expr::text(mode));
        }
        self.blocks.push(block);
    }
}

/// Reads the use of a config or secret: which, where, and its mode.
fn usage(cx: &Cx, node: &Node) -> Option<(String, Option<String>, Option<String>)> {
    if let Data::Scalar(_) = node.data {
        return Some((cx.known(node)?, None, None));
    }
    let fields = Fields::new(node);
    let source = fields.get("source").and_then(|node| cx.known(node));
    let target = fields.get("target").and_then(|node| cx.known(node));
    let mode = fields.get("mode").and_then(|node| {
        let text = cx.known(node)?;
        // YAML's octal numbers: `0440`, `0o440`, or the decimal number that a quoted one is not.
        let digits = text.trim_start_matches("0o").trim_start_matches('0');
        let octal = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
        if octal.is_none() {
            cx.odd(node, "permission bits");
        }
        octal.map(|mode| format!("{mode:04o}"))
    });
    fields.finish(cx, keys::FILE);
    if source.is_none() {
        cx.odd(node, "a config or secret");
    }
    Some((source?, target, mode))
}
