//! Starting what is missing for a data directory.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use basalt_api::Client;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::edge::EdgeArgs;
use crate::error::{CliError, Result};
use crate::paths::Data;
use crate::render;

/// How long the processes may take until the API answers: they take well under a second, or there is something wrong.
const WITHIN: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const EVERY: Duration = Duration::from_millis(20);

/// Lines of a process's log that are shown if it does not start: what happened, and why.
const LAST_LINES: usize = 2;

/// Returns the arguments of a role's process.
pub fn arguments(role: &str, data: &Data, edge: &EdgeArgs) -> Vec<String> {
    let data = data.dir().display().to_string();
    [vec![role.to_owned(), "--data".to_owned(), data], edge.to_arguments()].concat()
}

/// Returns this program's file.
///
/// # Errors
/// If the kernel does not say.
pub fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| CliError::internal("this program's file can't be found").because(&error))
}

/// Starts this program again with the same arguments: a newer version of it, if its file was replaced meanwhile.
///
/// # Errors
/// If it can't be started.
#[allow(clippy::disallowed_methods)] // A process that hands its work over starts who takes it.
pub fn again() -> std::io::Result<()> {
    let own = std::env::current_exe()?;
    // So the kernel marks the file of a running program that was replaced.
    let path = own.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map_or(own.clone(), PathBuf::from);
    let arguments = std::env::args_os().skip(1);
    std::process::Command::new(path).args(arguments).stdin(std::process::Stdio::null()).spawn().map(drop)
}

/// Starts a keeper unless one runs. It starts gateway and controller, and keeps them running.
///
/// # Errors
/// If this is not root, or the keeper does not start.
pub fn keeper(data: &Data, edge: &EdgeArgs) -> Result<()> {
    prepare(data)?;
    basalt_container::supervise::ensure_keeper(data.dir(), &program()?, &arguments("keeper", data, edge))
        .map_err(|error| CliError::unreachable(error.to_string()).help(log_of(data, "keeper")))
}

/// Makes the data directory, for those who may run instances.
fn prepare(data: &Data) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::invalid("instances can only be run by root")
            .help("run it with sudo; `basalt plan` and `basalt validate` need no root"));
    }
    data.make()
}

/// Starts what is missing and waits until controller and gateway answer. A gateway that runs and was told something else
/// hands over to one that is told this.
///
/// # Errors
/// If a process does not start, or the gateway could not listen as it is told.
pub async fn ensure(data: &Data, edge: &EdgeArgs) -> Result<Client> {
    edge.check()?;
    prepare(data)?;
    let (before, wanted) = (EdgeArgs::recorded(data), edge.or_recorded(data));
    let renewed = UnixStream::connect(data.socket("gateway")).is_ok() && !wanted.same(&before);
    if renewed {
        wanted.can_listen(Some(&before))?;
    } else if UnixStream::connect(data.socket("keeper")).is_err() {
        // Where something is to come back, only what was asked for now: at boot, an address may come later than its gateway.
        let recorded = data.journal().exists();
        edge.can_listen(recorded.then(EdgeArgs::default).as_ref())?;
    }
    // The gateway reads them here. What does not work is forgotten again, so that the keeper starts it as it was.
    wanted.record(data)?;
    let started = started(data, &wanted, renewed).await;
    if started.is_err() {
        before.record(data)?;
    }
    started
}

async fn started(data: &Data, edge: &EdgeArgs, renewed: bool) -> Result<Client> {
    keeper(data, edge)?;
    let client = Client::new(data.socket("controller"));
    let mut waited = Duration::ZERO;
    loop {
        match client.health().await {
            Ok(_) => break,
            Err(_) if waited < WITHIN => {}
            Err(error) => return Err(unstarted(data).because(&error)),
        }
        tokio::time::sleep(EVERY).await;
        waited += EVERY;
    }
    // A gateway that is asked to hand over still answers for a moment: its successor is another process.
    let old = if renewed { hand_over(data)? } else { None };
    // Its metrics are there once it listens everywhere that it was told to.
    while UnixStream::connect(data.socket("metrics")).is_err() || old.is_some() && pid(data, "gateway") == old {
        if waited >= WITHIN {
            return Err(unstarted(data));
        }
        tokio::time::sleep(EVERY).await;
        waited += EVERY;
    }
    Ok(client)
}

/// Asks the gateway to start its successor, which loses no request. Returns its process.
fn hand_over(data: &Data) -> Result<Option<Pid>> {
    let Some(gateway) = pid(data, "gateway") else { return Ok(None) };
    match kill_process(gateway, Signal::HUP) {
        // Who has just ended is started again by the keeper.
        Ok(()) | Err(Errno::SRCH) => Ok(Some(gateway)),
        Err(error) => Err(CliError::internal("the gateway can't be asked to take its options").because(&error)),
    }
}

/// Returns the process that has a role, or had it last.
fn pid(data: &Data, role: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(data.dir().join(format!("run/{role}.pid"))).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Says which process does not answer, with the end of its log.
fn unstarted(data: &Data) -> CliError {
    let socket = |role: &str| data.socket(if role == "gateway" { "metrics" } else { role });
    let silent = |role: &&str| UnixStream::connect(socket(role)).is_err();
    let role = ["keeper", "controller", "gateway"].into_iter().find(silent).unwrap_or("controller");
    let mut error = CliError::unreachable(format!("the {role} does not answer within {} s", WITHIN.as_secs()));
    let log = std::fs::read_to_string(data.logs().join(format!("{role}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let bare = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("error: ").or(line.strip_prefix("caused by: ")).unwrap_or(line);
        render::printable(line)
    };
    error.causes = lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).map(|line| bare(line)).collect();
    error.help(log_of(data, role))
}

fn log_of(data: &Data, role: &str) -> String {
    format!("its log is {}", data.logs().join(format!("{role}.log")).display())
}
