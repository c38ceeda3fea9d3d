//! What Basalt puts into the machine, seen from outside: by comparing the machine before, meanwhile and after.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Everything of the kinds that Basalt makes, each as a line for people.
#[derive(Debug, Clone, Default)]
pub struct Machine(BTreeSet<String>);

impl Machine {
    /// Returns what there is now.
    pub fn look() -> Self {
        let mut found = BTreeSet::new();
        // Not a namespace's own lines, which come and go with it, but what the host has.
        for (what, arguments) in [
            ("link", &["ip", "-oneline", "link", "show", "type", "veth"][..]),
            ("route", &["ip", "-oneline", "route", "show", "table", "all", "type", "unicast"]),
            ("local route", &["ip", "-oneline", "route", "show", "table", "all", "type", "local"]),
            ("rule", &["nft", "list", "tables"]),
        ] {
            found.extend(lines(arguments).into_iter().map(|line| format!("{what}: {line}")));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found.extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|at| format!("mount: {at}")));
        cgroups(Path::new("/sys/fs/cgroup"), &mut found);
        Self(found)
    }

    /// Returns what is here and was not there before.
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.difference(&before.0).cloned().collect())
    }

    /// Returns what both have.
    pub fn both(&self, other: &Self) -> Vec<String> {
        self.0.intersection(&other.0).cloned().collect()
    }

    /// Returns this without what bears the mark of another data directory or of Docker, which may come and go meanwhile.
    pub fn without_others(mut self, mark: &str) -> Self {
        self.0.retain(|line| marks(line).all(|found| found == mark) && !line.contains("docker"));
        self
    }
}

/// Returns the marks of data directories in a line: `basalt-MARK` (cgroups), `basalt_MARK` (firewall), `bMARK-` (interfaces).
fn marks(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    words.filter_map(|word| {
        let mark = word.strip_prefix("basalt-").or_else(|| word.strip_prefix("basalt_"));
        let mark = mark.or_else(|| word.strip_prefix('b')?.split_once('-').map(|(mark, _)| mark))?;
        (mark.len() == 6 && mark.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(mark)
    })
}

fn lines(arguments: &[&str]) -> Vec<String> {
    #[allow(clippy::disallowed_methods)] // the kernel's state is read with its own tools
    let output = Command::new(arguments[0]).args(&arguments[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("`{}`: {error}", arguments[0]));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn cgroups(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let path = entry.path().display().to_string();
            // Those of others come and go meanwhile.
            if path.contains("basalt") {
                found.insert(format!("cgroup: {path}"));
            }
            cgroups(&entry.path(), found);
        }
    }
}

/// Returns the processes whose command line names `data`, as id and command line.
pub fn processes_of(data: &Path) -> Vec<(u32, String)> {
    let data = data.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let command = |pid: u32| {
        let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(String::from_utf8_lossy(&text).replace('\0', " "))
    };
    let named = pids.filter_map(|pid| Some((pid, command(pid)?)));
    named.filter(|(_, command)| command.contains(&data)).collect()
}
