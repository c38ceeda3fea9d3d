//! The whole of an import: the file is read, each part turned into blocks, and what is left is named.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use crate::dotenv::dotenv;
use crate::fields::Fields;
use crate::findings::{Finding, Findings};
use crate::hcl::{Block, Expr, Text, Writer};
use crate::interpolate::{Use, Variables, Where};
use crate::mounts::Shared;
use crate::names::{is_secret, name};
use crate::network::Route;
use crate::ports::{Port, called, ports};
use crate::service::{CAPABILITIES, convert};
use crate::yaml::{Data, Node, parse};
use crate::{deploy, images, keys, mounts, network, project};

/// What an import needs of a file system. Paths are relative to the folder of the Compose file, or absolute.
pub trait Files {
    /// Returns the text of a file; `None` if it can't be read, or is not UTF-8.
    fn text(&self, path: &Path) -> Option<String>;

    /// Returns what is at a path; `None` if there is nothing.
    fn kind(&self, path: &Path) -> Option<PathKind>;
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A file.
    File,
    /// A folder.
    Folder,
}

/// What an import is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The Compose file as it was named, for the first line of the stack.
    pub file: String,
    /// The name of the project, where the file has none: that of its folder.
    pub project: String,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
    /// Files of variables, such as `.env`; later ones win over earlier ones, the process environment over all.
    pub env_files: Vec<PathBuf>,
    /// The profiles whose services belong into the stack; `*` stands for all.
    pub profiles: BTreeSet<String>,
    /// What stands before relative paths in the stack: empty if it lies beside the Compose file, else that one's folder.
    pub folder: Option<PathBuf>,
}

/// A Compose file as a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The stack, in HCL.
    pub stack: String,
    /// What the stack says otherwise, or does not say.
    pub findings: Vec<Finding>,
    /// Variables that must be given when the stack is used.
    pub required: Vec<String>,
}

/// What an import works with.
pub(crate) struct Cx<'o> {
    pub(crate) options: &'o Options,
    pub(crate) files: &'o dyn Files,
    pub(crate) variables: Variables,
    pub(crate) findings: Findings,
    /// The images that are built, by what they are built of.
    pub(crate) built: RefCell<BTreeMap<String, String>>,
    /// Services whose names can't stay: from, to.
    pub(crate) renamed: RefCell<Vec<(String, String)>>,
}

/// A service that is being imported.
pub(crate) struct Service<'n> {
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) fields: Fields<'n>,
    /// The reference to its image, with variables replaced; empty if it is built.
    pub(crate) image: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) networks: BTreeSet<String>,
    pub(crate) links: BTreeSet<String>,
    pub(crate) routes: Vec<Route>,
    pub(crate) label_port: Option<u16>,
    /// All of its texts, with variables replaced.
    pub(crate) texts: Vec<String>,
}

impl Service<'_> {
    /// Returns whether its image is known to keep data and to need nothing outside of the machine.
    pub(crate) fn is_store(&self) -> bool {
        images::known(&self.image).is_some_and(|known| known.store)
    }
}

/// Returns whether a word stands in a text by itself.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part) && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// All services, and what they have in common.
pub(crate) struct Project<'n> {
    pub(crate) services: Vec<Service<'n>>,
    /// Keys of those that run to their end.
    pub(crate) jobs: BTreeSet<String>,
    pub(crate) internal: BTreeSet<String>,
    pub(crate) shared: Shared<'n>,
    /// How many services have a published port that speaks HTTP.
    pub(crate) published: usize,
}

impl Project<'_> {
    /// Returns the names of the services that a service reaches: those of its networks, and those it links to.
    pub(crate) fn peers(&self, service: &Service) -> Vec<&str> {
        let reaches = |other: &&Service| {
            let near = !other.networks.is_disjoint(&service.networks) || service.links.contains(&other.key);
            // What keeps data calls nobody, unless it says so: a replica its primary, for example.
            let calls = !service.is_store() || service.texts.iter().any(|text| has_word(text, &other.key));
            near && calls && other.key != service.key && !other.ports.is_empty() && !self.jobs.contains(&other.key)
        };
        self.services.iter().filter(reaches).map(|other| other.name.as_str()).collect()
    }

    /// Returns whether a service reaches what is outside of the machine.
    pub(crate) fn has_egress(&self, service: &Service) -> bool {
        service.networks.iter().any(|network| !self.internal.contains(network))
    }
}

/// Returns the stack that says what a Compose file says.
///
/// # Errors
/// A sentence with the line, if the text is no YAML, or no Compose file.
pub fn import(text: &str, options: &Options, files: &dyn Files) -> Result<Imported, String> {
    let root = parse(text).map_err(|error| format!("line {}: {}", error.line, error.why))?;
    if root.map().is_none() {
        return Err("line 1: a Compose file is a mapping with the key `services`".to_owned());
    }
    let cx = Cx {
        options,
        files,
        variables: variables(options, files),
        findings: Findings::default(),
        renamed: RefCell::default(),
        built: RefCell::default(),
    };
    let fields = Fields::new(&root);
    let stack_name = fields.get("name").and_then(|node| cx.known(node));
    let stack_name = name(stack_name.as_deref().unwrap_or(&options.project));
    let nodes = fields.get("services").map(|services| project::services(&cx, services)).unwrap_or_default();
    let project = project(&cx, &fields, &nodes);
    let mut images = Vec::new();
    let mut blocks = Vec::new();
    for service in &project.services {
        if let Some(converted) = convert(&cx, &project, service) {
            images.extend(converted.images);
            blocks.push(converted.block);
        }
    }
    for service in project.services {
        service.fields.finish(&cx, keys::SERVICE);
    }
    for (_, volume) in fields.get("volumes").and_then(|node| node.map()).unwrap_or_default() {
        if volume.map().is_some() {
            Fields::new(volume).finish(&cx, keys::VOLUME);
        }
    }
    for key in ["configs", "secrets"] {
        for (_, node) in fields.get(key).and_then(|node| node.map()).unwrap_or_default() {
            if !node.unused().is_empty() {
                cx.findings.name(node, "no service uses this: it is left out", "");
            }
        }
    }
    fields.finish(&cx, keys::ROOT);
    for node in root.unused() {
        cx.findings.name(node, "this has no effect: nothing uses it, or something else is written over it", "");
    }
    general(&cx, &blocks);
    Ok(written(cx, &stack_name, &images, &blocks))
}

/// Returns the variables as they are set.
fn variables(options: &Options, files: &dyn Files) -> Variables {
    let mut variables = Variables::new(options.environment.clone());
    for path in &options.env_files {
        for (key, value) in files.text(path).map(|text| dotenv(&text)).unwrap_or_default() {
            let value = variables.known(&value);
            if !options.environment.contains_key(&key) {
                variables.set.insert(key, value);
            }
        }
    }
    Variables::new(variables.set)
}

/// Reads what services say of each other.
fn project<'n>(cx: &Cx, fields: &Fields<'n>, nodes: &'n [(String, Rc<Node>)]) -> Project<'n> {
    // Looking for what services call is no use of a variable.
    let quiet = Variables::new(cx.variables.set.clone());
    let mut texts = Vec::new();
    for (_, node) in nodes {
        node.walk(&mut |node, _| {
            let is_image =
                node.path.ends_with(".image") || node.path.contains(".volumes") || node.path.contains(".ports");
            texts.extend(node.peek().filter(|_| !is_image).map(|text| quiet.known(text)));
        });
    }
    let mut jobs = BTreeSet::new();
    for (key, node) in nodes {
        if deploy::is_job(node) {
            jobs.insert(key.clone());
        }
        for (target, entry) in node.get("depends_on").and_then(|node| node.map()).unwrap_or_default() {
            let condition = entry.get("condition").and_then(|node| node.peek());
            if condition == Some("service_completed_successfully") {
                jobs.insert(target.clone());
            }
        }
    }
    let mut names = BTreeSet::new();
    let mut services = Vec::new();
    for (key, node) in nodes {
        let fields = Fields::new(node);
        if node.map().is_none() {
            cx.odd(node, "a service");
            continue;
        }
        fields.get("profiles").inspect(|node| node.use_all());
        let own = name(key);
        if own != *key {
            let what = format!("the service is named `{own}` here, and so is the host in addresses such as `{key}:80`");
            cx.findings.note(node, what, format!("write `{own}` where `{key}` is called otherwise"));
            cx.renamed.borrow_mut().push((key.clone(), own.clone()));
        }
        if !names.insert(own.clone()) {
            cx.findings.name(node, format!("another service is named `{own}` already: this one is left out"), "");
            continue;
        }
        let image = node.get("image").filter(|_| node.get("build").is_none()).and_then(|node| node.peek());
        let image = image.map(|text| quiet.known(text)).unwrap_or_default();
        let (routes, label_port) = network::labels(cx, &fields);
        let mut called = called(&texts, key);
        called.extend(label_port);
        let ports = ports(cx, &fields, &image, &called);
        let (networks, links) = (network::networks(cx, &fields), network::links(cx, &fields));
        let mut own_texts = Vec::new();
        for key in ["command", "entrypoint", "environment", "healthcheck"] {
            if let Some(node) = node.get(key) {
                node.walk(&mut |node, _| own_texts.extend(node.peek().map(|text| quiet.known(text))));
            }
        }
        services.push(Service {
            key: key.clone(),
            name: own,
            fields,
            image,
            ports,
            networks,
            links,
            routes,
            label_port,
            texts: own_texts,
        });
    }
    let has_page = |service: &&Service| {
        let published = service.ports.iter().any(|port| port.http && port.published.is_some());
        published && service.routes.is_empty() && !jobs.contains(&service.key)
    };
    let published = services.iter().filter(has_page).count();
    network::declared(cx, fields, &services);
    let internal = network::internal(cx, fields.get("networks"));
    let users = mounts::users(cx, nodes);
    let shared = Shared { configs: fields.get("configs"), secrets: fields.get("secrets"), users };
    Project { services, jobs, internal, shared, published }
}

/// Says what holds for all services.
fn general(cx: &Cx, blocks: &[Block]) {
    let has = |name: &str| blocks.iter().any(|block| block.attributes.iter().any(|(key, _)| *key == name));
    if has("scratch") {
        let what = "an instance's root is read-only; folders that programs commonly write to became `scratch`, which dies with it";
        cx.findings.general("services", what, "name others that a program writes to, or give it a volume");
    }
    if has("capabilities") {
        let what = "services have the capabilities that Docker gives";
        cx.findings.general("services", what, "leave out those that a service does not need: most need none");
    }
    if has("egress") {
        let what = "services reach the outside, as with Compose; those that only keep data do not";
        cx.findings.general("services", what, "leave out `egress` where a service does not need it");
    }
    if has("connects_to") {
        let what = "services of a network reach each other, as with Compose; those that only keep data reach nobody";
        cx.findings.general("services", what, "leave out of `connects_to` what a service does not call");
    }
}

/// Writes the stack.
fn written(cx: Cx, stack_name: &str, images: &[Block], blocks: &[Block]) -> Imported {
    let uses = cx.variables.uses();
    let mut names: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut declared = Vec::new();
    let mut required = Vec::new();
    for (variable, used) in &uses {
        let set = cx.variables.set.get(variable);
        let secret_in_file = set.is_some() && is_secret(variable) && !cx.options.environment.contains_key(variable);
        if used.inlined {
            let value = set.map_or_else(
                || "not set".to_owned(),
                |value| if is_secret(variable) { "set".to_owned() } else { format!("`{value}`") },
            );
            let what = format!("`{variable}` ({value}) is written out where the stack has no place for a variable");
            cx.findings.general(&format!("${variable}"), what, "");
        }
        if !used.referred {
            continue;
        }
        let lower = variable.to_ascii_lowercase();
        let clash =
            uses.iter().any(|(other, used)| other != variable && used.referred && other.to_ascii_lowercase() == lower);
        let own = if clash { variable.clone() } else { lower };
        names.insert(variable.clone(), (own.clone(), set.is_none() && used.defaults.len() > 1));
        let mut block = Block::new("variable", &own);
        let place = format!("${variable}");
        if Variables::is_sensitive(variable, used) {
            block.set("type", Expr::Raw("string".to_owned()));
            block.set("sensitive", Expr::Raw("true".to_owned()));
            let what = if is_secret(variable) {
                "its name says that it is secret: its value is not written into the stack"
            } else {
                "the name of what it gives its value to says that it is secret: it is not written into the stack"
            };
            cx.findings.general(&place, what, format!("give it when the stack is used: BASALT_VAR_{own}=… basalt up"));
            required.push(own);
        } else {
            match default(set, used) {
                Some(value) => block.set("default", value),
                None => {
                    block.set("type", Expr::Raw("string".to_owned()));
                    let why = used
                        .required
                        .clone()
                        .filter(|why| !why.is_empty())
                        .map(|why| format!(": {why}"))
                        .unwrap_or_default();
                    let what = format!("it is required and not set{why}");
                    cx.findings.general(
                        &place,
                        what,
                        format!("give it when the stack is used: BASALT_VAR_{own}=… basalt up"),
                    );
                    required.push(own.clone());
                }
            }
            if secret_in_file {
                let what = "its name says that it is secret, and its value stands in the stack, for more than the environment uses it";
                cx.findings.general(&place, what, "take the `default` away, and give it when the stack is used");
            }
            if set.is_none() && used.defaults.is_empty() && used.required.is_none() && !used.passed_on {
                cx.findings.general(
                    &place,
                    "it is not set: empty, as with Compose",
                    "set its `default`, or give it when the stack is used",
                );
            }
        }
        declared.push(block);
    }
    let writer = Writer { variables: &names };
    let mut text = format!(
        "# Imported from {}.\n\nstack = {}\n",
        cx.options.file.replace(['\n', '\r'], " "),
        crate::hcl::quoted(stack_name)
    );
    if blocks.iter().any(|block| {
        block.attributes.iter().any(|(_, value)| matches!(value, Expr::Raw(raw) if raw == "local.capabilities"))
    }) {
        let all = Block::plain("locals").with("capabilities", Expr::texts(CAPABILITIES));
        declared.push(all);
    }
    for block in declared.iter().chain(images).chain(blocks) {
        text.push('\n');
        text.push_str(&writer.block(block));
    }
    Imported { stack: text, findings: cx.findings.finish(), required }
}

/// Returns the default of a variable; `None` if it must be given.
fn default(set: Option<&String>, used: &Use) -> Option<Expr> {
    match (set, used.defaults.len()) {
        (Some(value), _) => Some(Expr::text(value)),
        (None, 1) => used.defaults.first().map(Expr::text),
        (None, 2..) => Some(Expr::text("")),
        (None, _) if used.required.is_some() => None,
        (None, _) if used.passed_on => Some(Expr::Raw("null".to_owned())),
        (None, _) => Some(Expr::text("")),
    }
}

impl Cx<'_> {
    /// Returns the text of a scalar with its variables replaced.
    pub(crate) fn known(&self, node: &Node) -> Option<String> {
        self.text(node, Where::Known).map(|text| text.plain())
    }

    /// Returns the text of a scalar with its variables replaced or referred to.
    pub(crate) fn text(&self, node: &Node, place: Where) -> Option<Text> {
        match node.text() {
            Some(text) => Some(self.read(text, place)),
            None => {
                self.odd(node, "a string");
                None
            }
        }
    }

    /// Returns a text with its variables replaced or referred to, and hosts by their names in the stack.
    pub(crate) fn read(&self, text: &str, place: Where) -> Text {
        let text = self.variables.read(text, place);
        if place == Where::Known { text } else { text.map(|literal| self.hosts(literal)) }
    }

    /// Returns a text with the hosts of addresses by their names in the stack: `//db_1`, `@db_1` and `db_1:5432`.
    pub(crate) fn hosts(&self, text: String) -> String {
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        self.renamed.borrow().iter().fold(text, |text, (from, to)| {
            let mut renamed = String::new();
            let mut end = 0;
            for (at, _) in text.match_indices(from) {
                let (before, behind) = (&text[..at], &text[at + from.len()..]);
                let alone = !before.ends_with(part) && !behind.starts_with(part);
                let port = behind.strip_prefix(':').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                if alone && (port || before.ends_with("//") || before.ends_with('@')) {
                    renamed.push_str(&text[end..at]);
                    renamed.push_str(to);
                    end = at + from.len();
                }
            }
            renamed.push_str(&text[end..]);
            renamed
        })
    }

    /// Returns the value of a variable that names a host, if it is nothing but a service whose name can't stay.
    fn host(&self, key: &str, text: Text) -> Text {
        let key = key.to_ascii_uppercase();
        let names_host = ["HOST", "SERVER", "ADDR", "ENDPOINT"].iter().any(|word| key.contains(word));
        let renamed = self.renamed.borrow();
        let to = renamed.iter().find(|(from, _)| names_host && text.is_literal() && text.plain() == *from);
        to.map_or(text, |(_, to)| Text::literal(to))
    }

    /// Returns a bool.
    pub(crate) fn bool(&self, node: &Node) -> Option<bool> {
        match self.known(node)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => {
                self.odd(node, "true or false");
                None
            }
        }
    }

    /// Returns a whole number.
    pub(crate) fn number(&self, node: &Node) -> Option<u64> {
        let number = self.known(node)?.parse().ok();
        if number.is_none() {
            self.odd(node, "a whole number");
        }
        number
    }

    /// Returns `KEY: value` pairs, also written as a list of `KEY=value`. Keys without a value are taken over from outside.
    pub(crate) fn pairs(&self, node: &Node, place: Where) -> Vec<(String, Expr)> {
        match &node.data {
            Data::Map(entries) => entries
                .iter()
                .filter_map(|(key, node)| match node.data {
                    Data::Null => Some((key.clone(), Expr::Text(self.variables.passed_on(key)))),
                    _ => Some((key.clone(), Expr::Text(self.host(key, self.text(node, place)?)))),
                })
                .collect(),
            Data::List(items) => items
                .iter()
                .filter_map(|item| {
                    let raw = item.text()?;
                    Some(match raw.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Expr::Text(self.host(key, self.read(value, place)))),
                        None => (raw.to_owned(), Expr::Text(self.variables.passed_on(raw))),
                    })
                })
                .collect(),
            _ => {
                self.odd(node, "a mapping, or a list of `KEY=value`");
                Vec::new()
            }
        }
    }

    /// Names a node that is not what belongs there.
    pub(crate) fn odd(&self, node: &Node, expected: &str) {
        self.findings.name(node, format!("expected {expected}: this is left out"), "");
    }

    /// Says that a secret stands in the stack.
    pub(crate) fn shown_in_clear(&self, node: &Node, key: &str, value: &str) {
        if is_secret(key) && !value.is_empty() {
            let what = format!("`{key}` stands in the stack in clear");
            self.findings.note(
                node,
                what,
                "declare a `variable` with `sensitive = true`, or give it as a `secret` file",
            );
        }
    }

    /// Returns a path of the Compose file's folder as it stands in the stack.
    pub(crate) fn path(&self, path: &str) -> String {
        match &self.options.folder {
            Some(folder) if !path.starts_with('/') => folder.join(path).display().to_string(),
            _ => path.to_owned(),
        }
    }
}
