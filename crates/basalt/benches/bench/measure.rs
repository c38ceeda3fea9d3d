//! Running programs and taking times.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::now;

/// Returns how long something takes, in milliseconds.
pub fn millis(work: impl FnOnce()) -> f64 {
    let started = now();
    work();
    started.elapsed().as_secs_f64() * 1000.0
}

/// Returns the value below which `percent` of the values lie.
pub fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values[rank.saturating_sub(1).min(values.len() - 1)]
}

/// Returns the middle value.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50.0)
}

/// Returns a command, from a line without quotes.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    #[allow(clippy::disallowed_methods)] // a bench runs the peers
    let mut command = Command::new(words.next().expect("a command line has a first word"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command line to its end and returns its standard output.
///
/// # Panics
/// If it fails.
pub fn run(line: &str) -> String {
    run_to_end(command(line))
}

/// Runs a command to its end and returns its standard output.
///
/// # Panics
/// If it fails.
pub fn run_to_end(mut command: Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command line to its end, well or not.
pub fn output(line: &str) -> Output {
    command(line).output().unwrap_or_else(|error| panic!("`{line}`: {error}"))
}

/// A process that is asked to end, and waited for, when this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a command line, whose output goes nowhere, with a home of its own.
    pub fn start(line: &str, home: &Path) -> Self {
        let child = command(line).stdout(Stdio::null()).stderr(Stdio::null()).env("HOME", home).spawn();
        Self(child.unwrap_or_else(|error| panic!("`{line}`: {error}")))
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        output(&format!("kill {}", self.pid()));
        let _ = self.0.wait();
    }
}

/// Resident memory of a process in MiB.
pub fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Memory of a process and those that it has started, in MiB; what they share counts once.
pub fn family(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    kib / 1024.0 + children.split_whitespace().filter_map(|child| child.parse().ok()).map(family).sum::<f64>()
}

/// Percent of one core that processes use, watched for a while.
pub fn cpu(pids: &[u32], watched: Duration) -> f64 {
    // Linux counts in hundredths of a second for user space (`USER_HZ`, fixed at 100 on the architectures in use).
    let ticks = || -> f64 {
        let of = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<f64> = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split(' ')
                .map(|field| field.parse().unwrap_or(0.0))
                .collect();
            fields.get(12).copied().unwrap_or(0.0) + fields.get(13).copied().unwrap_or(0.0)
        };
        pids.iter().map(of).sum()
    };
    let before = ticks();
    std::thread::sleep(watched);
    (ticks() - before) / watched.as_secs_f64()
}
