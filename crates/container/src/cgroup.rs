//! The cgroups of instances: how they are made and limited, whether memory ran out in them, and how they are removed.
//!
//! Works with version 2, with version 1, and with both side by side (hybrid). An instance's cgroup is named by its place
//! and not by its id, so that a process can be in it before it is known which instance that will be: entering a cgroup
//! waits for all processors of the machine, which takes the kernel ten milliseconds.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use basalt_model::Limits;

/// Where cgroups are mounted on every distribution.
const ROOT: &str = "/sys/fs/cgroup";

/// The period over which processor time is counted, in microseconds: the kernel's own default.
const CPU_PERIOD: u64 = 100_000;

/// The controllers that limits need, for version 2, where they have to be passed on.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Devices that may be used (version 1): null, zero, full, random, urandom, tty, ptmx and pseudo-terminals. The second
/// line of defence: instances can't make device nodes, and none but these are in their `/dev`.
const DEVICES: [&str; 8] =
    ["c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"];

/// The cgroup of one instance, or of all instances of a data directory: a path below every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Where the hierarchies are mounted.
    root: PathBuf,
    /// The path within each.
    path: String,
}

impl Cgroup {
    /// Returns the cgroup that holds all instances of a data directory.
    pub(crate) fn of_data(tag: &str) -> Self {
        Self::at(&format!("/basalt-{tag}"))
    }

    /// Returns the cgroup of the instance in a place.
    pub(crate) fn of_place(tag: &str, index: u32) -> Self {
        Self::of_data(tag).below(&index.to_string())
    }

    /// Returns the cgroup with this path within every hierarchy.
    pub(crate) fn at(path: &str) -> Self {
        Self { root: ROOT.into(), path: path.to_owned() }
    }

    /// Returns the cgroup below this one with this name.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { root: self.root.clone(), path: format!("{}/{name}", self.path) }
    }

    /// Returns the path within a hierarchy.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether the machine has version 2 alone.
    pub(crate) fn is_version_2() -> bool {
        Path::new(ROOT).join("cgroup.controllers").exists()
    }

    /// Returns its directory in each hierarchy where it exists.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        self.places().into_iter().filter(|dir| dir.is_dir()).collect()
    }

    fn places(&self) -> Vec<PathBuf> {
        hierarchies(&self.root).into_iter().map(|h| h.join(&self.path[1..])).collect()
    }

    /// Makes it in every hierarchy; the cgroup above it is made too. Made already is well.
    pub(crate) fn make(&self) -> io::Result<()> {
        for hierarchy in hierarchies(&self.root) {
            let mut dir = hierarchy;
            for name in self.path[1..].split('/') {
                pass_controllers_on(&dir);
                let above = dir.clone();
                dir.push(name);
                match std::fs::create_dir(&dir) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(|e| named(e, &dir))?,
                }
                // A set of no processors admits no process (version 1).
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if !dir.join("cgroup.controllers").exists() && dir.join(file).exists() {
                        let set = std::fs::read(above.join(file))?;
                        std::fs::write(dir.join(file), set).map_err(|e| named(e, &dir))?;
                    }
                }
            }
            if dir.join("devices.deny").exists() {
                std::fs::write(dir.join("devices.deny"), "a")?;
                DEVICES.iter().try_for_each(|device| std::fs::write(dir.join("devices.allow"), device))?;
            }
        }
        Ok(())
    }

    /// Puts limits on it.
    ///
    /// # Errors
    /// If the machine has no controller for one of them, or the kernel refuses it.
    pub(crate) fn limit(&self, limits: &Limits) -> io::Result<()> {
        let dirs = self.dirs();
        let has = |file: &str| dirs.iter().map(|dir| dir.join(file)).find(|path| path.exists());
        let set = |file: PathBuf, value: &str| std::fs::write(&file, value).map_err(|e| named(e, &file));
        let lacks = |what: &str| {
            io::Error::other(format!("this machine's cgroups can't limit {what}: the controller is not enabled"))
        };
        match has("pids.max") {
            Some(file) => set(file, &limits.pids.to_string())?,
            None => return Err(lacks("processes")),
        }
        if let Some(memory) = limits.memory {
            let bytes = memory.0.to_string();
            // The limit is for memory and swap together, so nothing is left for swap.
            if let Some(file) = has("memory.max") {
                set(file, &bytes)?;
                has("memory.swap.max").map_or(Ok(()), |file| set(file, "0"))?;
            } else if let Some(file) = has("memory.limit_in_bytes") {
                set(file, &bytes)?;
                has("memory.memsw.limit_in_bytes").map_or(Ok(()), |file| set(file, &bytes))?;
            } else {
                return Err(lacks("memory"));
            }
        }
        if let Some(cpu) = limits.cpu {
            let quota = u64::from(cpu.0) * CPU_PERIOD / 1000;
            if let Some(file) = has("cpu.max") {
                set(file, &format!("{quota} {CPU_PERIOD}"))?;
            } else if let (Some(period), Some(file)) = (has("cpu.cfs_period_us"), has("cpu.cfs_quota_us")) {
                set(period, &CPU_PERIOD.to_string())?;
                set(file, &quota.to_string())?;
            } else {
                return Err(lacks("processor time"));
            }
        }
        Ok(())
    }

    /// Returns how many processes the kernel has killed in it because memory ran out.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let count = |dir: PathBuf| {
            let text =
                ["memory.events", "memory.oom_control"].iter().find_map(|f| std::fs::read_to_string(dir.join(f)).ok());
            text.map_or(0, |text| field(&text, "oom_kill"))
        };
        self.dirs().into_iter().map(count).max().unwrap_or(0)
    }

    /// Returns the ids of all processes in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let read = |dir: PathBuf| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let mut all: Vec<i32> = self
            .dirs()
            .into_iter()
            .map(read)
            .flat_map(|t| t.lines().filter_map(|l| l.parse().ok()).collect::<Vec<_>>())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Returns the names of the cgroups right below it, in any hierarchy.
    pub(crate) fn children(&self) -> BTreeSet<String> {
        let entries = self.dirs().into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.dirs().into_iter().try_for_each(|dir| std::fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// Removes it with everything below it. Fails with `EBUSY` while processes are in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.dirs().iter().try_for_each(|dir| remove_tree(dir))
    }
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

/// Returns the roots of all hierarchies.
fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| !p.is_symlink() && p.join("cgroup.procs").exists()).collect()
}

/// Gives the cgroups below a directory the controllers that it has itself (version 2). One that can't be passed on is
/// missed when a limit needs it, and named then.
fn pass_controllers_on(dir: &Path) {
    let has = std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in CONTROLLERS.iter().filter(|c| has.split_whitespace().any(|h| h == **c)) {
        if let Err(error) = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, dir = %dir.display(), "could not pass a controller on");
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the number behind a key in a file of `key value` lines, or 0.
fn field(text: &str, key: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use basalt_model::{Bytes, CpuMillis};

    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions() {
        let check = |text: &str, kills: u64| assert_eq!(field(text, "oom_kill"), kills, "{text}");
        check("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 3\n", 1);
        check("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4);
        check("", 0);
    }

    /// A directory that looks like what the kernel shows; plain files keep what is written last.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn limits_are_written_as_each_version_has_them() {
        let limits = Limits { cpu: Some(CpuMillis(1500)), memory: Some(Bytes(1 << 20)), pids: 7 };
        let check = |files: &[&str], hierarchies: &[(&str, &str)], expected: &[(&str, &str)]| {
            let given: Vec<(&str, &str)> = hierarchies.iter().copied().chain(files.iter().map(|f| (*f, ""))).collect();
            let dir = machine(&given);
            let cgroup = Cgroup { root: dir.path().to_owned(), path: "/basalt-x/3".into() };
            cgroup.limit(&limits).unwrap();
            for (file, content) in expected {
                assert_eq!(std::fs::read_to_string(dir.path().join(file)).unwrap(), *content, "{file}");
            }
        };
        let v2 = ["basalt-x/3/pids.max", "basalt-x/3/memory.max", "basalt-x/3/memory.swap.max", "basalt-x/3/cpu.max"];
        check(
            &v2,
            &[("cgroup.controllers", "cpu memory pids"), ("cgroup.procs", "")],
            &[(v2[0], "7"), (v2[1], "1048576"), (v2[2], "0"), (v2[3], "150000 100000")],
        );
        let v1 = [
            "pids/basalt-x/3/pids.max",
            "memory/basalt-x/3/memory.limit_in_bytes",
            "memory/basalt-x/3/memory.memsw.limit_in_bytes",
            "cpu,cpuacct/basalt-x/3/cpu.cfs_period_us",
            "cpu,cpuacct/basalt-x/3/cpu.cfs_quota_us",
        ];
        check(
            &v1,
            &[("pids/cgroup.procs", ""), ("memory/cgroup.procs", ""), ("cpu,cpuacct/cgroup.procs", "")],
            &[(v1[0], "7"), (v1[1], "1048576"), (v1[2], "1048576"), (v1[3], "100000"), (v1[4], "150000")],
        );
    }

    #[test]
    fn a_limit_without_controller_is_refused() {
        let dir = machine(&[("cgroup.controllers", "pids"), ("cgroup.procs", ""), ("basalt-x/3/pids.max", "")]);
        let cgroup = Cgroup { root: dir.path().to_owned(), path: "/basalt-x/3".into() };
        let limits = Limits { memory: Some(Bytes(1)), ..Limits::default() };
        assert!(cgroup.limit(&limits).unwrap_err().to_string().contains("memory"));
        cgroup.limit(&Limits::default()).unwrap();
    }

    #[test]
    fn controllers_are_passed_on_in_version_2() {
        let dir = machine(&[("cgroup.controllers", "cpuset pids"), ("cgroup.procs", "")]);
        let cgroup = Cgroup { root: dir.path().to_owned(), path: "/basalt-x/3".into() };
        cgroup.make().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "+pids");
        assert_eq!(cgroup.dirs(), [dir.path().join("basalt-x/3")]);
        let above = Cgroup { root: dir.path().to_owned(), path: "/basalt-x".into() };
        assert_eq!(above.children(), BTreeSet::from(["3".to_owned()]));
        above.remove().unwrap();
        assert!(above.dirs().is_empty());
    }
}
