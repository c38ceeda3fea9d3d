//! What libcontainer is told: the OCI runtime spec of one instance.

use std::collections::BTreeMap;
use std::path::PathBuf;

use basalt_model::{Limits, Release};
use basalt_seam::PinnedImage;
use serde_json::{Value, json};

use crate::user::User;

/// The search path where neither image nor release sets one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The period over which processor time is counted, in microseconds: the kernel's own default.
const CPU_PERIOD: u64 = 100_000;

/// How many files an instance may have open at most, if the host's hard limit allows it: what common engines give.
const OPEN_FILES: u64 = 1_048_576;

/// Parts of `/proc` and `/sys` that say something of the host or change it: hidden.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kallsyms",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysvipc",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/security",
];

/// Parts of `/proc` that are needed and must not be written.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is known of an instance once its root is mounted.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) id: &'a str,
    pub(crate) release: &'a Release,
    pub(crate) image: &'a PinnedImage,
    pub(crate) user: &'a User,
    pub(crate) root: PathBuf,
    pub(crate) userns: PathBuf,
    pub(crate) cgroup: &'a str,
    /// Whether cgroups are those of version 2 alone.
    pub(crate) cgroup2: bool,
    /// Files to mount: path in the instance, path outside.
    pub(crate) files: &'a [(String, PathBuf)],
    /// Directories to mount: path in the instance, path outside.
    pub(crate) volumes: &'a [(String, PathBuf)],
    /// The hard limit of open files.
    pub(crate) open_files: u64,
}

/// Returns what an instance runs; empty if neither release nor image says so.
pub(crate) fn command<'a>(release: &'a Release, image: &'a PinnedImage) -> &'a [String] {
    release.command.as_deref().unwrap_or(&image.config.command)
}

/// Returns the working directory, `/` if neither release nor image names one.
pub(crate) fn workdir<'a>(release: &'a Release, image: &'a PinnedImage) -> &'a str {
    let dir = release.workdir.as_deref().unwrap_or(&image.config.workdir);
    if dir.is_empty() { "/" } else { dir }
}

/// Returns the environment: the release's variables win over the image's, and those over what every program expects.
pub(crate) fn environment(id: &str, release: &Release, image: &PinnedImage, user: &User) -> Vec<String> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    env.insert("PATH", DEFAULT_PATH);
    env.insert("HOSTNAME", id);
    env.insert("HOME", user.home.as_deref().unwrap_or("/"));
    env.extend(image.config.env.iter().chain(&release.env).map(|(k, v)| (k.as_str(), v.as_str())));
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Returns the runtime spec.
pub(crate) fn spec(facts: &Facts<'_>) -> Value {
    let capabilities: Vec<String> = facts.release.capabilities.iter().map(|c| format!("CAP_{c}")).collect();
    json!({
        "ociVersion": "1.1.0",
        "hostname": facts.id,
        "root": { "path": facts.root, "readonly": true },
        "process": {
            "user": { "uid": facts.user.uid, "gid": facts.user.gid, "additionalGids": facts.user.groups },
            "args": command(facts.release, facts.image),
            "env": environment(facts.id, facts.release, facts.image, facts.user),
            "cwd": workdir(facts.release, facts.image),
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "inheritable": capabilities,
                "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": facts.open_files.min(OPEN_FILES), "hard": facts.open_files.min(OPEN_FILES) },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
            ],
        },
        "mounts": mounts(facts),
        "linux": {
            "namespaces": [
                { "type": "user", "path": facts.userns },
                { "type": "pid" }, { "type": "mount" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "cgroup" },
            ],
            "cgroupsPath": facts.cgroup,
            "resources": resources(&facts.release.limits),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn resources(limits: &Limits) -> Value {
    let mut resources = json!({ "pids": { "limit": limits.pids } });
    if let Some(memory) = limits.memory {
        resources["memory"] = json!({ "limit": memory.0, "swap": memory.0 });
    }
    if let Some(cpu) = limits.cpu {
        resources["cpu"] = json!({ "quota": u64::from(cpu.0) * CPU_PERIOD / 1000, "period": CPU_PERIOD });
    }
    resources
}

fn mounts(facts: &Facts<'_>) -> Vec<Value> {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    if facts.cgroup2 {
        // Runtimes size heaps and thread pools by what they read there.
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    }
    let size = facts.release.limits.memory.map(|m| format!("size={}", m.0));
    let mut scratch = vec!["nosuid", "noexec", "nodev", "mode=1777"];
    scratch.extend(size.as_deref());
    // Outer directories first, so that no mount hides one made before it.
    let mut places: Vec<(&str, Value)> =
        facts.release.scratch.iter().map(|to| (to.as_str(), mount(to, "tmpfs", &scratch))).collect();
    let bind = |to: &str, from: &PathBuf, options: &[&str]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
    places.extend(
        facts.volumes.iter().map(|(to, from)| (to.as_str(), bind(to, from, &["bind", "nosuid", "noexec", "nodev"]))),
    );
    places.extend(
        facts
            .files
            .iter()
            .map(|(to, from)| (to.as_str(), bind(to, from, &["bind", "ro", "nosuid", "noexec", "nodev"]))),
    );
    places.sort_by(|a, b| a.0.cmp(b.0));
    mounts.extend(places.into_iter().map(|(_, mount)| mount));
    mounts
}
