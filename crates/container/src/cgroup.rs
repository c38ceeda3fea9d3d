//! The cgroups of instances: where they are, whether memory ran out in them, and how they are removed.
//!
//! Works with version 2, with version 1, and with both side by side (hybrid).

use std::io;
use std::path::{Path, PathBuf};

/// Where cgroups are mounted on every distribution.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of one instance, or of all instances of a data directory: a path below every hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup(String);

impl Cgroup {
    /// Returns the cgroup that holds all instances of a data directory.
    pub(crate) fn of_data(tag: &str) -> Self {
        Self(format!("/basalt-{tag}"))
    }

    /// Returns the cgroup with this path within every hierarchy.
    pub(crate) fn at(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Returns the cgroup below this one with this name.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Returns the path within a hierarchy.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }

    /// Returns its directory in each hierarchy where it exists.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|h| h.join(&self.0[1..])).filter(|dir| dir.is_dir()).collect()
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

    /// Moves this process into it.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.dirs().into_iter().try_for_each(|dir| std::fs::write(dir.join("cgroup.procs"), "0"))
    }

    /// Removes it with everything below it. Fails with `EBUSY` while processes are in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.dirs().iter().try_for_each(|dir| remove_tree(dir))
    }
}

/// Returns the roots of all hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink()).collect()
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
    use super::*;

    #[test]
    fn kills_are_counted_in_both_versions() {
        let check = |text: &str, kills: u64| assert_eq!(field(text, "oom_kill"), kills, "{text}");
        check("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 3\n", 1);
        check("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n", 4);
        check("", 0);
    }
}
