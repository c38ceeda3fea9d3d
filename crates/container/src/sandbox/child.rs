//! The short-lived child that is a sandbox (`basalt run-sandbox`).
//!
//! It forks and mounts, and so has a single thread. Everything it makes lies in namespaces of its own and ends with it:
//! killed, it leaves nothing behind but files in the directory that its caller gave it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use basalt_model::{Exit, Tools};
use basalt_seam::SandboxRun;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::LinkNameSpaceType;

use super::capture;
use super::root::{SandboxRoot, Sources};
use super::run::{Answer, LAYER, Order};
use crate::netlink::Netlink;
use crate::root::{at, map_ids};
use crate::seccomp;
use crate::sys::{self, Side};
use crate::user::{self, User};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The host's user that is root in a sandbox: the range below that of instances. All sandboxes share it: what they
/// write keeps the owners that they see, and they share nothing else.
pub(super) const FIRST_ID: u32 = 0x6FFF_0000;

/// The search path where neither the image nor the step sets one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What package managers need of root's powers, by number (linux/capability.h): chown, dac_override, fowner, fsetid,
/// kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, audit_write, setfcap. All of them reach no further than
/// the sandbox's own user namespace.
const CAPABILITIES: [u32; 12] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31];

/// The system calls that a sandbox may make besides those of an instance: package managers enter roots.
const MORE_CALLS: &[libc::c_long] = &[libc::SYS_chroot];

/// What a process sees of a parent that is outside of its pid namespace.
const OUTSIDE: u32 = 0;

/// Runs one program. To be called before any thread is started.
pub fn main() -> ExitCode {
    let answer = sys::close_on_exec_from(3)
        .map_err(AnyError::from)
        .and_then(|()| run())
        .map_or_else(|error| Answer::Failed(chain(error.as_ref())), Answer::Ended);
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    match io::stderr().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn run() -> Result<Exit, AnyError> {
    let mut order = Vec::new();
    io::stdin().read_to_end(&mut order)?;
    let Order { run, parent } = serde_json::from_slice(&order)?;
    sys::die_with_parent(parent);
    if run.command.is_empty() {
        return Err("no program was named".into());
    }
    // Neither what is made here nor what the program makes depends on who bakes.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let layer = File::create(run.work.join(LAYER)).map_err(at("could not make the file of the layer"))?;
    let sources = Sources::open(&run)?;
    let userns = user_namespace().map_err(at("could not make a user namespace"))?;
    let root = SandboxRoot::mount(sources, userns.as_fd())?;
    // Again, since mounting as somebody else has undone it.
    sys::die_with_parent(parent);
    let user = match run.tools {
        Tools::Image => user::resolve(&run.user, &root.read("/etc/passwd")?, &root.read("/etc/group")?)?,
        Tools::Machine => User { home: Some("/root".into()), ..User::default() },
    };

    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let network = if run.network { 0 } else { libc::CLONE_NEWNET };
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | network;
    let init = match sys::fork(flags)? {
        Side::Child => {
            let report = report_write.as_raw_fd();
            match inside(&run, root, &user, &userns, report) {
                Ok(program) => watch(program, &report_write),
                Err(error) => report_and_end(report, &chain(error.as_ref())),
            }
        }
        Side::Parent(pid) => pid,
    };
    drop(report_write);
    let in_time = wait_for(init, run.timeout.map(|t| Duration::from_millis(t.0)))?;
    let mut report = String::new();
    File::from(report_read).read_to_string(&mut report)?;
    let exit = match (in_time, run.timeout, report.strip_prefix(STATUS)) {
        (false, Some(after), _) => Exit::TimedOut { after },
        (_, _, Some(status)) => exit_of(status.parse()?),
        // The init itself was ended: by the kernel for want of memory, or by somebody.
        (_, _, None) if report.is_empty() => Exit::Signal(libc::SIGKILL),
        (_, _, None) => return Err(report.into()),
    };
    if exit.is_success() {
        capture::write(&root.upper(), &root.image(), FIRST_ID, layer)?;
    }
    Ok(exit)
}

/// Makes a user namespace for as long as somebody holds it.
fn user_namespace() -> io::Result<OwnedFd> {
    match sys::fork(libc::CLONE_NEWUSER)? {
        Side::Child => loop {
            std::thread::park();
        },
        Side::Parent(pid) => {
            let made = map_ids(pid, FIRST_ID).and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
            sys::pidfd(pid as u32).and_then(|child| sys::signal(child, libc::SIGKILL))?;
            sys::wait(pid)?;
            Ok(made?.into())
        }
    }
}

/// What the report of a program that has ended begins with; anything else is why there was none.
const STATUS: &str = "status ";

fn exit_of(status: i32) -> Exit {
    if libc::WIFEXITED(status) { Exit::Code(libc::WEXITSTATUS(status)) } else { Exit::Signal(libc::WTERMSIG(status)) }
}

/// Waits until the init has ended, and ends it if it takes too long. Returns whether it ended in time.
fn wait_for(init: i32, timeout: Option<Duration>) -> io::Result<bool> {
    let mut in_time = true;
    if let Some(timeout) = timeout {
        let pidfd = sys::pidfd(init as u32)?;
        let limit = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        in_time = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? > 0;
        if !in_time {
            sys::signal(&pidfd, libc::SIGKILL)?;
        }
    }
    sys::wait(init)?;
    Ok(in_time)
}

/// The first process within: sets up what only it can, gives up all power over the host, and starts the program.
fn inside(run: &SandboxRun, root: SandboxRoot, user: &User, userns: &OwnedFd, report: i32) -> Result<i32, AnyError> {
    sys::die_with_parent(OUTSIDE);
    sys::set_host_name("bake")?;
    if !run.network {
        /// The loopback interface: always the first one of a namespace.
        const LOOPBACK: u32 = 1;
        Netlink::open()?.bring_up(LOOPBACK)?;
    }
    root.enter(run)?;
    rustix::thread::move_into_link_name_space(userns.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(at("could not enter its user namespace"))?;
    sys::become_mapped_root().map_err(at("could not become its root"))?;
    let workdir = if run.workdir.is_empty() { "/" } else { &run.workdir };
    std::fs::create_dir_all(workdir).map_err(at(format!("could not make the working directory `{workdir}`")))?;
    let env = environment(run, user);
    let strings = |list: &[String]| list.iter().map(|s| CString::new(s.as_bytes())).collect::<Result<Vec<_>, _>>();
    let (args, env_strings) = (strings(&run.command)?, strings(&env)?);
    sys::set_path(env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH));
    let capabilities = if user.uid == 0 { CAPABILITIES.iter().fold(0, |all, c| all | 1 << c) } else { 0 };
    sys::become_user(user.uid, user.gid, &user.groups, capabilities).map_err(at("could not become its user"))?;
    std::env::set_current_dir(workdir).map_err(at(format!("could not enter the working directory `{workdir}`")))?;
    sys::filter_calls(&seccomp::filter_and(MORE_CALLS)).map_err(at("could not filter its system calls"))?;
    match sys::fork(0)? {
        Side::Parent(program) => Ok(program),
        Side::Child => {
            let plain = || {
                sys::default_signals();
                sys::new_session()?;
                sys::replace_stream(File::open("/dev/null")?.as_fd(), 0)?;
                sys::replace_stream(io::stdout().as_fd(), 2)
            };
            let error = plain().map_or_else(|error| error, |()| sys::exec(&args, &env_strings));
            report_and_end(report, &format!("could not run `{}`: {error}", run.command[0]))
        }
    }
}

/// Returns the environment as `NAME=value`, sorted.
fn environment(run: &SandboxRun, user: &User) -> Vec<String> {
    let home = user.home.as_deref().unwrap_or("/");
    let mut env: BTreeMap<&str, &str> = BTreeMap::from([("PATH", DEFAULT_PATH), ("HOME", home)]);
    env.extend(run.env.iter().map(|(k, v)| (k.as_str(), v.as_str())));
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Reaps until the program has ended, and reports how. With this process all that is left of the sandbox ends.
fn watch(program: i32, report: &OwnedFd) -> ! {
    sys::hide_process();
    // Again, since becoming another user has undone it.
    sys::die_with_parent(OUTSIDE);
    sys::name_process(c"basalt-sandbox");
    sys::close_all_but(report.as_raw_fd());
    sys::drop_standard_streams();
    let nobody_reads = poll(&mut [PollFd::new(report, PollFlags::empty())], Some(&Timespec::default()));
    if nobody_reads.is_ok_and(|ready| ready > 0) {
        // The outer process has ended before it could be told of.
        sys::exit_now(1);
    }
    let report = report.as_raw_fd();
    loop {
        match sys::wait_any() {
            Ok((pid, status)) if pid == program => {
                sys::write_raw(report, format!("{STATUS}{status}").as_bytes());
                sys::exit_now(0)
            }
            Ok(_) => {}
            Err(_) => sys::exit_now(1),
        }
    }
}

fn report_and_end(report: i32, why: &str) -> ! {
    sys::write_raw(report, why.as_bytes());
    sys::exit_now(127)
}
