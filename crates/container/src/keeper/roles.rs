//! Gateway and controller: started where they do not run, watched, and started again when they die.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::serve::RoleCommand;
use super::state::Shared;
use super::watch::{ended, watchable};
use crate::supervise::holder;
use crate::sys;

/// The first pause before a role that died is started again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: someone who mends the cause should not have to wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A role that ran this long did not die of what it dies of at once.
const LONG_RUN: Duration = Duration::from_secs(10);

/// How long a role may take to end when asked.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Keeps a role running until the keeper is shut down.
pub(crate) async fn keep_running(keeper: Shared, command: RoleCommand) {
    let mut pause = SHORTEST_PAUSE;
    while !keeper.is_closing() {
        let began = started_at();
        if let Err(error) = run_once(&keeper, &command).await {
            tracing::warn!(role = command.role, %error, "could not start a role");
        }
        pause = if began.elapsed() >= LONG_RUN { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        if !keeper.is_closing() {
            tracing::warn!(role = command.role, ?pause, "a role has ended and is started again");
            tokio::time::sleep(pause).await;
        }
    }
}

#[allow(clippy::disallowed_methods)] // Pauses of processes are measured, nothing is decided by it.
fn started_at() -> Instant {
    Instant::now()
}

/// Waits for the end of the one that holds the role, or starts one and waits for that.
async fn run_once(keeper: &Shared, command: &RoleCommand) -> io::Result<()> {
    if let Some((_, pidfd)) = holder(&keeper.data, &command.role)? {
        ended(&watchable(pidfd)?).await;
        return Ok(());
    }
    let mut child = spawn(keeper, command)?;
    ended(&watchable(sys::pidfd(child.id())?)?).await;
    let status = child.wait()?;
    tracing::info!(role = command.role, %status, "a role has ended");
    Ok(())
}

#[allow(clippy::disallowed_methods)] // Starting the other roles is the keeper's work.
fn spawn(keeper: &Shared, command: &RoleCommand) -> io::Result<Child> {
    let log = keeper.data.join("logs").join(format!("{}.log", command.role));
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    let mut program = Command::new(&keeper.basalt);
    program.args(&command.args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    sys::in_new_session(&mut program);
    program.spawn()
}

/// Asks all roles to end, and kills those that do not.
pub(crate) async fn stop_all(keeper: &Shared, roles: &[RoleCommand]) -> io::Result<()> {
    // The controller first: it must not find the gateway gone.
    for command in roles.iter().rev() {
        let Some((_, pidfd)) = holder(&keeper.data, &command.role)? else { continue };
        // Fails only if it has ended.
        let _ = sys::signal(&pidfd, libc::SIGTERM);
        let watched = watchable(pidfd)?;
        if tokio::time::timeout(END_WITHIN, ended(&watched)).await.is_err() {
            let _ = sys::signal(watched.get_ref(), libc::SIGKILL);
            ended(&watched).await;
        }
    }
    Ok(())
}
