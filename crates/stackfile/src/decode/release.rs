//! What services and jobs have in common: everything in a release but ports, health and routes.

use std::collections::BTreeMap;

use basalt_model::{
    ConfigFile, Digest, Health, ImageSource, Kind as ReleaseKind, Limits, Name, Release, SecretFile, SecretRef, Volume,
};

use super::image;
use crate::check::Places;
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::sealed::{self, Sealed};
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::units;
use crate::value::{Data, Kind, Value};

/// Permission bits of config and secret files that say nothing else: readable by any user of the instance, and nobody else
/// sees its files.
const READ_ONLY: u32 = 0o444;

/// The least memory an instance can start in, in bytes; a smaller number is one without its unit.
const LEAST_MEMORY: u64 = 4 << 20;

/// The most processes Linux can number (PID_MAX_LIMIT on 64 bits).
const MOST_PIDS: u32 = 1 << 22;

/// All capabilities of Linux 6.18 (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What sensitive values are, by the name of the secret in their place.
pub(super) type Secrets = BTreeMap<Name, Sealed>;

/// Decodes the common part of a service or job.
pub(super) fn release(
    reader: &mut Reader,
    kind: ReleaseKind,
    name: &Name,
    places: &mut Places,
    sealed: &mut Secrets,
) -> (ImageSource, Release) {
    let cx = reader.ev.cx;
    let image = reader.required("image", "image = image.NAME, or a reference in quotes", |v| image::source(cx, v));
    let connects_to = names(reader, "connects_to", Kind::Service);
    places.connections.extend(connects_to.iter().map(|(to, at)| (name.clone(), to.clone(), *at)));
    let mut mounts = Mounts::default();
    let mut release = Release {
        kind,
        image: Digest::from_bytes([0; 32]),
        command: reader.get("command", read::command),
        env: BTreeMap::new(),
        user: reader.get("user", image::user),
        workdir: reader.get("workdir", |v| read::path(&read::text(v)?, v.at)),
        ports: BTreeMap::new(),
        configs: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env_secrets: BTreeMap::new(),
        scratch: scratch(reader, &mut mounts),
        volumes: BTreeMap::new(),
        limits: limits(reader),
        capabilities: capabilities(reader),
        egress: reader.get("egress", read::boolean).unwrap_or(false),
        connects_to: connects_to.into_iter().map(|(to, _)| to).collect(),
        health: Health::default(),
        routes: Vec::new(),
    };
    release.connects_to.sort();
    release.connects_to.dedup();
    environment(reader, name, &mut release, sealed);
    files(reader, name, &mut release, &mut mounts, places, sealed);
    (image.unwrap_or(ImageSource::Reference(String::new())), release)
}

/// Reads a list of references, each with its place.
pub(super) fn names(reader: &mut Reader, attribute: &'static str, kind: Kind) -> Vec<(Name, At)> {
    let read = |value: &Value| Ok((read::reference(kind)(value)?, value.at));
    reader.get(attribute, |value| read::list(value, read)).unwrap_or_default()
}

/// Paths that something is mounted at, to find two at the same.
#[derive(Default)]
struct Mounts(BTreeMap<String, (&'static str, At)>);

impl Mounts {
    /// Takes a path for a mount; reports it if it is no path, or taken.
    fn take(&mut self, reader: &Reader, text: &str, what: &'static str, at: At) -> Option<String> {
        let path = reader.ev.cx.keep(read::inner_path(text, at))?;
        if let Some((other, other_at)) = self.0.get(&path) {
            let fault = Fault::at(at, format!("`{path}` of {} is taken by a `{other}`", reader.what));
            reader
                .report(fault.label("the second").place(*other_at, "the first").help("give one of them another path"));
            return None;
        }
        self.0.insert(path.clone(), (what, at));
        Some(path)
    }
}

/// Decodes `scratch`.
fn scratch(reader: &mut Reader, mounts: &mut Mounts) -> Vec<String> {
    let read = |value: &Value| Ok((read::text(value)?, value.at));
    let paths = reader.get("scratch", |value| read::list(value, read)).unwrap_or_default();
    let mut paths: Vec<String> =
        paths.iter().filter_map(|(text, at)| mounts.take(reader, text, "scratch", *at)).collect();
    paths.sort();
    paths
}

/// Decodes `env`. What is sensitive becomes a secret of the stack's own; `secret.NAME` is one that is set apart from it.
fn environment(reader: &mut Reader, owner: &Name, release: &mut Release, sealed: &mut Secrets) {
    let cx = reader.ev.cx;
    let Some(mut env) = reader.value("env") else { return };
    if let Data::Map(map) = &mut env.data {
        map.retain(|key, value| {
            let secret = match &value.data {
                Data::Reference(Kind::Secret, text) => cx.keep(read::name(text, value.at)),
                Data::Null => return true,
                _ if env.sensitive || value.is_sensitive() => cx.keep(read::text(value)).map(|text| {
                    let name = sealed::name(owner, "env", key);
                    sealed.insert(name.clone(), Sealed::new(text));
                    name
                }),
                _ => return true,
            };
            if let Some(name) = secret {
                cx.keep(read::variable_name(key, value.at));
                release.env_secrets.insert(key.clone(), SecretRef { name, version: 0 });
            }
            false
        });
    }
    release.env = cx.keep(read::environment(&env)).unwrap_or_default();
}

/// Decodes `config`, `secret` and `volume` blocks.
fn files(
    reader: &mut Reader,
    name: &Name,
    release: &mut Release,
    mounts: &mut Mounts,
    places: &mut Places,
    sealed: &mut Secrets,
) {
    let ev = reader.ev;
    for block in reader.blocks(&["config", "secret", "volume"]) {
        let Some((label, at)) = Reader::single_label(ev, block) else { continue };
        let word = block.ident.as_str();
        let mut inner = Reader::block(ev, block, format!("`{word}` of {}", reader.what));
        match word {
            "config" => {
                let path = mounts.take(reader, &label, "config", at);
                let sensitive = inner.value("content").filter(Value::is_sensitive);
                let mode = inner.get("mode", units::mode).unwrap_or(READ_ONLY);
                if let Some(value) = sensitive {
                    let content = inner.ev.cx.keep(read::content(&value));
                    if let Some((path, content)) = path.zip(content) {
                        let name = sealed::name(name, "file", &path);
                        sealed.insert(name.clone(), Sealed::new(content));
                        release.secrets.insert(path, SecretFile { name, version: 0, mode });
                    }
                    continue;
                }
                let content = inner.required("content", "content = \"…\", or content = file(\"…\")", read::content);
                if let Some((path, content)) = path.zip(content) {
                    release.configs.insert(path, ConfigFile { content, mode });
                }
            }
            "secret" => {
                let path = mounts.take(reader, &label, "secret", at);
                let secret = inner.required("from", "from = secret.NAME", read::reference(Kind::Secret));
                let mode = inner.get("mode", units::mode).unwrap_or(READ_ONLY);
                if let Some((path, name)) = path.zip(secret) {
                    release.secrets.insert(path, SecretFile { name, version: 0, mode });
                }
            }
            _ => {
                let path = mounts.take(reader, &label, "volume", at);
                let volume =
                    inner.required("name", "name = \"…\", the volume's name", |v| read::name(&v.to_text()?, v.at));
                let shared = inner.get("shared", read::boolean).unwrap_or(false);
                if let Some((path, volume)) = path.zip(volume) {
                    places.volumes.push((volume.clone(), shared, name.clone(), at));
                    release.volumes.insert(path, Volume { name: volume, shared });
                }
            }
        }
        inner.finish();
    }
}

/// Decodes the `limits` block.
fn limits(reader: &mut Reader) -> Limits {
    let default = Limits::default();
    let Some(mut limits) = reader.only_block("limits") else { return default };
    let memory = limits.get("memory", |value| {
        let size = units::size(value)?;
        if size.0 < LEAST_MEMORY {
            let fault = Fault::at(value.at, format!("{} is less than 4MiB, in which nothing starts", value.shown()));
            return Err(fault.help("a number alone is bytes: write for example \"128MiB\"").into());
        }
        Ok(size)
    });
    let decoded = Limits {
        cpu: limits.get("cpu", units::cpu),
        memory,
        pids: limits.get("pids", read::integer(1..=MOST_PIDS)).unwrap_or(default.pids),
    };
    limits.finish();
    decoded
}

/// Decodes `capabilities`: sorted, without `CAP_`.
fn capabilities(reader: &mut Reader) -> Vec<String> {
    let read = |value: &Value| -> Eval<String> {
        let text = read::text(value)?.to_ascii_uppercase();
        let name = text.strip_prefix("CAP_").unwrap_or(&text).to_owned();
        if CAPABILITIES.contains(&name.as_str()) {
            return Ok(name);
        }
        let fault = Fault::at(value.at, format!("there is no capability {}", value.shown()));
        Err(fault.help("see capabilities(7)").maybe_help(did_you_mean(&name, CAPABILITIES)).into())
    };
    let mut names = reader.get("capabilities", |value| read::list(value, read)).unwrap_or_default();
    names.sort();
    names.dedup();
    names
}
