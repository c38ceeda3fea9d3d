//! What the keeper writes down of an instance, so that another keeper can go on: no secrets, one small file each.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use basalt_model::{Exit, Generation, Health, InstanceId, Millis};
use serde::{Deserialize, Serialize};

use crate::firewall::Admission;
use crate::user::User;

/// The file's name in the instance's directory.
const FILE: &str = "record.json";

/// An instance as written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: InstanceId,
    pub(crate) generation: Generation,
    /// Its place; free for another once it has ended and is cleaned up.
    pub(crate) index: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) admission: Admission,
    /// When it must be dead, if it was asked to end.
    pub(crate) kill_at: Option<Millis>,
    /// When it was begun: what its log has from before is of another with the same id.
    #[serde(default)]
    pub(crate) begun: Millis,
    pub(crate) stage: Stage,
}

/// Where an instance stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Being created, by this process.
    Starting,
    /// Running.
    Running(Box<Process>),
    /// Ended; everything but this record is cleaned up.
    Ended { exit: Exit, at: Millis, last_lines: Vec<String> },
}

/// The processes of a running instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Process 1 of its pid namespace.
    pub(crate) init: u32,
    /// When that was started, in clock ticks since boot: tells it from another process with the same number.
    pub(crate) init_ticks: u64,
    /// Its own program.
    pub(crate) pid: u32,
    /// The boot in which all that holds.
    pub(crate) boot: String,
    pub(crate) since: Millis,
    /// What a command check needs.
    pub(crate) probe: Option<Probe>,
}

/// A command check.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) command: Vec<String>,
    pub(crate) health: Health,
    pub(crate) user: User,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) capabilities: Vec<String>,
}

impl Record {
    /// Writes the record in place of the one before. It is not synced: what a power loss takes, no instance outlives.
    pub(crate) fn save(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("record.new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, dir.join(FILE))
    }

    /// Reads a record.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(FILE))?)?)
    }
}

/// Returns the id of this boot of the machine.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns when a process was started, in clock ticks since boot (proc_pid_stat(5), field 22).
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    // The name in parentheses may hold anything; fields are counted from the last one on.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_start() {
        let own = start_ticks(std::process::id()).unwrap();
        assert!(own > 0);
        assert_eq!(start_ticks(std::process::id()), Some(own));
        assert_eq!(start_ticks(0), None);
        assert_eq!(boot_id().len(), 36);
    }
}
