//! Command checks: a program of the image, run inside the instance by a short-lived child (`basalt probe-instance`).

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::keeper::record::Probe;
use crate::sys::{self, Side};
use crate::{cgroup, seccomp};

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProbeOrder {
    /// Process 1 of the instance's pid namespace.
    pub(crate) init: u32,
    /// The instance's cgroup.
    pub(crate) cgroup: String,
    pub(crate) probe: Probe,
    /// The process of the keeper.
    pub(crate) keeper: u32,
}

/// Counts successes and failures in a row.
#[derive(Debug)]
pub(crate) struct Tally {
    healthy_after: u32,
    unhealthy_after: u32,
    row: (bool, u32),
    verdict: Option<bool>,
}

impl Tally {
    pub(crate) fn new(healthy_after: u32, unhealthy_after: u32) -> Self {
        Self { healthy_after, unhealthy_after, row: (false, 0), verdict: None }
    }

    /// Takes the outcome of a check and returns the verdict after it; `None` before the first.
    pub(crate) fn count(&mut self, success: bool) -> Option<bool> {
        self.row = if self.row.0 == success { (success, self.row.1.saturating_add(1)) } else { (success, 1) };
        let needed = if success { self.healthy_after } else { self.unhealthy_after };
        if self.row.1 >= needed {
            self.verdict = Some(success);
        }
        self.verdict
    }
}

/// The status with which the child ends when the command took too long: what timeout(1) uses.
pub(crate) const TOO_LONG: u8 = 124;

/// The verb under which the binary calls [`main`].
pub const VERB: &str = "probe-instance";

/// Runs the command inside the instance and ends as it ends. To be called before any thread is started.
pub fn main() -> ExitCode {
    match run() {
        Ok(None) => ExitCode::from(TOO_LONG),
        Ok(Some(status)) if libc::WIFEXITED(status) => {
            ExitCode::from(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(1))
        }
        Ok(Some(status)) => ExitCode::from(u8::try_from(128 + libc::WTERMSIG(status)).unwrap_or(1)),
        Err(error) => {
            println!("could not run the check: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how the command ended; `None` if it was killed because it took too long.
fn run() -> io::Result<Option<i32>> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    let order: ProbeOrder = serde_json::from_slice(&text)?;
    sys::die_with_parent(order.keeper);
    let strings = |list: &[String]| -> io::Result<Vec<CString>> {
        list.iter().map(|s| CString::new(s.as_str()).map_err(io::Error::other)).collect()
    };
    let (args, env) = (strings(&order.probe.command)?, strings(&order.probe.env)?);
    let filter = seccomp::filter();
    let init = sys::pidfd(order.init)?;
    // Nothing of this process may be seen from inside: neither its memory nor the program on the host.
    sys::hide_process();
    sys::close_on_exec_from(3)?;
    cgroup::Cgroup::at(&order.cgroup).enter()?;
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    rustix::thread::move_into_thread_name_spaces(init.as_fd(), all)?;
    match sys::fork(0)? {
        Side::Parent(pid) => wait(pid, Duration::from_millis(order.probe.health.timeout.0)),
        Side::Child => {
            // Its parent is outside its pid namespace.
            sys::die_with_parent(0);
            // What it starts is killed with it if it takes too long.
            sys::new_group();
            let enter = || -> io::Result<()> {
                if let Some(path) = order.probe.env.iter().find_map(|v| v.strip_prefix("PATH=")) {
                    sys::set_path(path);
                }
                std::env::set_current_dir(&order.probe.cwd)?;
                let user = &order.probe.user;
                let capabilities = capability_bits(&order.probe.capabilities);
                sys::become_user(user.uid, user.gid, &user.groups, capabilities)?;
                sys::filter_calls(&filter)?;
                // A change of user has undone it.
                sys::die_with_parent(0);
                sys::default_signals();
                Err(sys::exec(&args, &env))
            };
            if let Err(error) = enter() {
                println!("{error}");
            }
            sys::exit_now(127)
        }
    }
}

/// Waits for the command's end, or ends it with all of its group.
fn wait(pid: i32, within: Duration) -> io::Result<Option<i32>> {
    let pidfd = sys::pidfd(pid as u32)?;
    let mut ready = [PollFd::new(&pidfd, PollFlags::IN)];
    let within = Timespec::try_from(within).map_err(io::Error::other)?;
    if poll(&mut ready, Some(&within))? > 0 {
        return sys::wait(pid).map(Some);
    }
    sys::kill_group(pid);
    // It may not have come as far as having a group.
    let _ = sys::signal(&pidfd, libc::SIGKILL);
    sys::wait(pid).map(|_| None)
}

/// Returns the bits of capabilities by name, as the kernel numbers them (capabilities(7)).
pub(crate) fn capability_bits(names: &[String]) -> u64 {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    names.iter().filter_map(|name| NAMES.iter().position(|n| n == name)).fold(0, |bits, n| bits | 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_a_row() {
        let mut tally = Tally::new(2, 3);
        let mut check = |success: bool, verdict: Option<bool>| assert_eq!(tally.count(success), verdict);
        check(true, None);
        check(false, None);
        check(true, None);
        check(true, Some(true));
        check(false, Some(true));
        check(false, Some(true));
        check(true, Some(true));
        check(false, Some(true));
        check(false, Some(true));
        check(false, Some(false));
        check(true, Some(false));
        check(true, Some(true));
    }

    #[test]
    fn capabilities_are_numbered_as_in_the_kernel() {
        let check = |name: &str, bits: u64| assert_eq!(capability_bits(&[name.to_owned()]), bits, "{name}");
        check("CHOWN", 1);
        check("NET_BIND_SERVICE", 1 << 10);
        check("SYS_ADMIN", 1 << 21);
        check("CHECKPOINT_RESTORE", 1 << 40);
        check("NO_SUCH", 0);
    }
}
