//! The life of one instance, as a task: created or adopted, watched, stopped, cleaned up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use basalt_model::{Exit, HealthCheck, InstanceId, Millis};
use basalt_seam::{BackendInstance, BackendState, StartInstance};
use rustix::fs::{CWD, FileType, Mode};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch::Receiver;

use super::collector::Collector;
use super::record::{Probe, Process, Record, Stage, boot_id, start_ticks};
use super::spare::{self, Spare};
use super::state::Shared;
use super::watch::{Helper, ended, now, sleep_until, wait_status, watchable};
use crate::cgroup::Cgroup;
use crate::forwarding;
use crate::order::{CreateAnswer, CreateOrder, instance_dir};
use crate::probe::{self, ProbeOrder};
use crate::{logs, sys, veth};

/// How long creating an instance may take: it takes some milliseconds; a machine that swaps may need seconds.
const CREATE_WITHIN: Duration = Duration::from_secs(60);

/// Between attempts to remove a cgroup whose last processes are just going.
const CGROUP_PAUSE: Duration = Duration::from_millis(2);

/// How often that is tried: two seconds in all.
const CGROUP_TRIES: u32 = 1000;

/// Between attempts to look for an instance's process while the machine is short of something.
const FIND_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than its time-out a check may take in all: starting and ending it takes milliseconds.
const CHECK_GRACE: Duration = Duration::from_secs(5);

/// When an instance is asked to end.
type Stop = Receiver<Option<Millis>>;

/// Starts an instance and sees it through to its end.
pub(crate) async fn start(keeper: Shared, start: Box<StartInstance>, stop: Stop) {
    let id = start.id.clone();
    // Fails only if the semaphore is closed, which nobody does.
    let permit = keeper.starts.acquire().await;
    let created = if stop.borrow().is_some() {
        Err("it was asked to stop before it was started".to_owned())
    } else {
        create(&keeper, start).await
    };
    drop(permit);
    spare::refill(&keeper);
    match created {
        Ok((record, collector)) => live(keeper, record, Some(collector), stop).await,
        Err(why) => {
            tracing::warn!(%id, %why, "could not start an instance");
            end(&keeper, &id, Exit::CouldNotStart(why), None).await;
        }
    }
}

async fn create(keeper: &Shared, start: Box<StartInstance>) -> Result<(Record, Collector), String> {
    let id = start.id.clone();
    let (generation, health, release) = (start.generation, start.release.health.clone(), start.release.clone());
    let Spare { place, mut helper } = spare::take(keeper).await.map_err(|e| e.to_string())?;
    keeper.give_place(place.index, &id);
    let runs = |id: &InstanceId| keeper.with(id, |_| ()).is_some();
    if let Err(error) = logs::prune(&keeper.data, id.service(), runs) {
        tracing::warn!(%id, %error, "could not remove old logs");
    }
    let order = CreateOrder { start: *start, data: keeper.data.clone() };
    let mut record = Record {
        id: id.clone(),
        generation,
        index: place.index,
        address: place.address,
        admission: order.admission(place.address),
        kill_at: None,
        begun: now(),
        stage: Stage::Starting,
    };
    let prepared = prepare(&order, &record).and_then(|dir| Ok((Collector::start(&dir, &keeper.data, &id)?, dir)));
    let (collector, dir) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            helper.kill().await;
            clear(keeper, place.index).await;
            return Err(format!("could not prepare it in `{}`: {error}", keeper.data.display()));
        }
    };
    if record.admission.egress {
        keeper.note_egress(&id, true);
        forwarding::claim(&keeper.network).map_err(|e| format!("could not let it reach beyond the machine: {e}"))?;
    }
    let told = helper.tell(&order);
    drop(order);
    let answer = match tokio::time::timeout(CREATE_WITHIN, helper.finish()).await {
        // What it says of itself is worth more than that it could not be told anything.
        Ok(Ok((_, answer))) if !answer.is_empty() => answer,
        Ok(answer) => told.and(answer).map_err(|e| format!("the process that creates it could not do so: {e}"))?.1,
        Err(_) => {
            helper.kill().await;
            return Err(format!("creating it took more than {} s", CREATE_WITHIN.as_secs()));
        }
    };
    match serde_json::from_slice(&answer) {
        Ok(CreateAnswer::Running { init, pid, user, env, cwd, warnings, steps }) => {
            tracing::debug!(%id, ?steps, "created an instance; steps in microseconds");
            for warning in warnings {
                tracing::warn!(%id, %warning, "an instance runs without something");
            }
            let probe = match health.check.clone() {
                HealthCheck::Command(command) => {
                    Some(Probe { command, health, user, env, cwd, capabilities: release.capabilities.clone() })
                }
                _ => None,
            };
            let init_ticks = start_ticks(init).unwrap_or(0);
            record.stage =
                Stage::Running(Box::new(Process { init, init_ticks, pid, boot: boot_id(), since: now(), probe }));
            record.save(&dir).map_err(|e| format!("could not write down that it runs: {e}"))?;
            Ok((record, collector))
        }
        Ok(CreateAnswer::Failed(why)) => Err(why),
        Err(error) => Err(format!("the process that creates it died: {error}")),
    }
}

/// Makes the instance's directory: the pipes for its output, and the record.
fn prepare(order: &CreateOrder, record: &Record) -> io::Result<PathBuf> {
    let dir = order.run_dir();
    match std::fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::create_dir_all(&dir)?,
    }
    for name in ["stdout", "stderr"] {
        rustix::fs::mknodat(CWD, dir.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    }
    record.save(&dir)?;
    Ok(dir)
}

/// Takes over an instance that another keeper has written down.
pub(crate) async fn adopt(keeper: Shared, record: Record, stop: Stop) {
    match &record.stage {
        Stage::Running(_) => {
            let dir = instance_dir(&keeper.data, &record.id.to_string());
            let collector = Collector::start(&dir, &keeper.data, &record.id).ok();
            live(keeper, record, collector, stop).await;
        }
        Stage::Starting => {
            // The order, with its secrets, died with the other keeper: the controller decides anew.
            clean(&keeper, &record.id, Some(&record)).await;
            keeper.forget(&record.id);
        }
        Stage::Ended { .. } => {}
    }
}

/// Watches a running instance to its end.
async fn live(keeper: Shared, mut record: Record, collector: Option<Collector>, mut stop: Stop) {
    let id = record.id.clone();
    let Stage::Running(process) = record.stage.clone() else { return };
    let watched = loop {
        match find(&process) {
            Ok(found) => break found,
            // It is there or not, but this can't be seen now: too many open files, or no memory.
            Err(error) => {
                tracing::warn!(%id, %error, "can't watch an instance yet");
                tokio::time::sleep(FIND_PAUSE).await;
            }
        }
    };
    keeper.update(&id, |seen| {
        seen.state = BackendState::Running { pid: process.pid, since: process.since };
        seen.address = Some(record.address);
    });
    let checks = process
        .probe
        .clone()
        .map(|probe| tokio::task::spawn_local(check(keeper.clone(), id.clone(), record.index, process.init, probe)));
    let (mut status, mut killed) = (None, false);
    if let Some(pidfd) = &watched {
        loop {
            tokio::select! {
                () = ended(pidfd) => break,
                Ok(()) = stop.changed() => {
                    let within = stop.borrow_and_update().unwrap_or_default();
                    record.kill_at = Some(now() + within);
                    save(&keeper, &record);
                    if within > Millis::ZERO {
                        ask_to_end(&process);
                    }
                }
                () = sleep_until(record.kill_at) => {
                    // Fails only if it has ended.
                    let _ = sys::signal(pidfd.get_ref().as_fd(), libc::SIGKILL);
                    record.kill_at = None;
                    killed = true;
                }
            }
        }
        status = wait_status(pidfd).await.or(killed.then_some(libc::SIGKILL));
    }
    if let Some(checks) = checks {
        checks.abort();
    }
    let exit = exit_of(&keeper, &record, status);
    if let Some(collector) = collector {
        collector.finish().await;
    }
    let last_lines = logs::last_lines(&keeper.data, &id, record.begun);
    end(&keeper, &id, exit, Some((record, last_lines))).await;
}

/// Returns a pidfd of an instance's init if that still runs.
///
/// # Errors
/// If it can't be said whether it does.
fn find(process: &Process) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    if process.boot != boot_id() {
        return Ok(None);
    }
    let pidfd = match sys::pidfd(process.init) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Zero: it was gone before its start could be read, and only its parent can open a pidfd then.
    let same = process.init_ticks == 0 || start_ticks(process.init) == Some(process.init_ticks);
    if same { watchable(pidfd).map(Some) } else { Ok(None) }
}

/// Sends SIGTERM to the instance's own program: the init, as process 1, would ignore it.
fn ask_to_end(process: &Process) {
    // The program is the init's only child of its own making; if the number is gone, the instance is just ending.
    if let Ok(pidfd) = sys::pidfd(process.pid) {
        let parent = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok();
        let parent = parent.and_then(|s| s.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent == Some(process.init) || process.pid == process.init {
            let _ = sys::signal(pidfd, libc::SIGTERM);
        }
    }
}

/// Decides how an instance ended: by what its init wrote down, else by the init's own status.
fn exit_of(keeper: &Shared, record: &Record, init_status: Option<i32>) -> Exit {
    let id = record.id.to_string();
    let written = std::fs::read_to_string(instance_dir(&keeper.data, &id).join("exit")).ok();
    let status = written.and_then(|text| text.trim().parse().ok()).or(init_status);
    let kills = Cgroup::of_place(keeper.network.tag(), record.index).out_of_memory_kills();
    decide_exit(status, kills)
}

fn decide_exit(status: Option<i32>, out_of_memory_kills: u64) -> Exit {
    // What a shell says of a child that SIGKILL ended.
    const KILLED_CHILD: i32 = 128 + libc::SIGKILL;
    match status {
        None if out_of_memory_kills > 0 => Exit::OutOfMemory,
        None => Exit::Unseen,
        Some(s) if libc::WIFEXITED(s) => match libc::WEXITSTATUS(s) {
            KILLED_CHILD if out_of_memory_kills > 0 => Exit::OutOfMemory,
            code => Exit::Code(code),
        },
        Some(s) => match libc::WTERMSIG(s) {
            libc::SIGKILL if out_of_memory_kills > 0 => Exit::OutOfMemory,
            signal => Exit::Signal(signal),
        },
    }
}

/// Cleans up after an instance and shows it as ended.
async fn end(keeper: &Shared, id: &InstanceId, exit: Exit, known: Option<(Record, Vec<String>)>) {
    let dir = instance_dir(&keeper.data, &id.to_string());
    let (record, last_lines) = match known {
        Some((record, lines)) => (Some(record), lines),
        None => (Record::load(&dir).ok(), Vec::new()),
    };
    clean(keeper, id, record.as_ref()).await;
    let at = now();
    if let Some(mut record) = record {
        record.stage = Stage::Ended { exit: exit.clone(), at, last_lines: last_lines.clone() };
        save(keeper, &record);
    }
    keeper.free_place(id);
    keeper.update(id, |seen| {
        seen.state = BackendState::Ended { exit, at, last_lines };
        seen.healthy = None;
    });
    keeper.start_next(id);
}

/// Takes away what an instance had on the host: its place, and its firewall entries. Its mounts and namespaces went with it.
async fn clean(keeper: &Shared, id: &InstanceId, record: Option<&Record>) {
    let Some(record) = record else { return };
    clear(keeper, record.index).await;
    if let Err(error) = record.admission.revoke(&keeper.network) {
        tracing::warn!(%id, %error, "could not close the firewall");
    }
    keeper.note_egress(id, false);
    if record.admission.egress
        && !keeper.others_have_egress(id)
        && let Err(error) = forwarding::give_up(&keeper.network)
    {
        tracing::warn!(%error, "could not turn off the passing on of packets");
    }
}

/// Clears a place: ends its processes, and removes its cgroup and its link.
pub(crate) async fn clear(keeper: &Shared, index: u32) {
    let cgroup = Cgroup::of_place(keeper.network.tag(), index);
    for attempt in 1..=CGROUP_TRIES {
        for pid in cgroup.processes() {
            // Killed by pidfd, and still one of the cgroup's: so it is none that got the number of a dead one.
            if let Ok(pidfd) = sys::pidfd(pid as u32)
                && cgroup.processes().contains(&pid)
            {
                let _ = sys::signal(pidfd, libc::SIGKILL);
            }
            sys::reap(pid);
        }
        match cgroup.remove() {
            Ok(()) => break,
            Err(error) if attempt == CGROUP_TRIES => tracing::warn!(index, %error, "could not remove a cgroup"),
            Err(_) => tokio::time::sleep(CGROUP_PAUSE).await,
        }
    }
    if let Err(error) = veth::disconnect(&veth::Names::new(keeper.network.tag(), index)) {
        tracing::warn!(index, %error, "could not remove an interface");
    }
}

fn save(keeper: &Shared, record: &Record) {
    if let Err(error) = record.save(&instance_dir(&keeper.data, &record.id.to_string())) {
        tracing::warn!(id = %record.id, %error, "could not write down where an instance stands");
    }
}

/// Runs an instance's command check again and again.
async fn check(keeper: Shared, id: InstanceId, index: u32, init: u32, probe: Probe) {
    let mut tally = probe::Tally::new(probe.health.healthy_after, probe.health.unhealthy_after);
    let order = ProbeOrder {
        init,
        cgroup: Cgroup::of_place(keeper.network.tag(), index).path().to_owned(),
        probe: probe.clone(),
        keeper: std::process::id(),
    };
    loop {
        let outcome = check_once(&keeper, &order).await;
        let verdict = tally.count(outcome.is_ok());
        let text = match outcome {
            Ok(()) => "the command ended with status 0".to_owned(),
            Err(why) => why,
        };
        keeper.update(&id, |seen| {
            seen.healthy = verdict;
            seen.last_probe = Some(text);
        });
        tokio::time::sleep(Duration::from_millis(probe.health.interval.0)).await;
    }
}

async fn check_once(keeper: &Shared, order: &ProbeOrder) -> Result<(), String> {
    let mut helper = Helper::start(&keeper.basalt, probe::VERB).map_err(|e| e.to_string())?;
    helper.tell(order).map_err(|e| e.to_string())?;
    let timeout = order.probe.health.timeout;
    let too_long = || format!("the command took more than {timeout}");
    match tokio::time::timeout(Duration::from_millis(timeout.0) + CHECK_GRACE, helper.finish()).await {
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((status, _))) if status.code() == Some(probe::TOO_LONG.into()) => Err(too_long()),
        Ok(Ok((status, text))) => {
            let text = String::from_utf8_lossy(&text);
            let last = text.lines().last().unwrap_or_default();
            Err(format!("the command ended with {status}{}{last}", if last.is_empty() { "" } else { ": " }))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            helper.kill().await;
            Err(too_long())
        }
    }
}

/// Returns how a written-down instance is shown before its task has looked at it.
pub(crate) fn remembered(record: &Record) -> BackendInstance {
    let state = match record.stage.clone() {
        Stage::Starting => BackendState::Starting,
        Stage::Running(process) => BackendState::Running { pid: process.pid, since: process.since },
        Stage::Ended { exit, at, last_lines } => BackendState::Ended { exit, at, last_lines },
    };
    BackendInstance {
        generation: record.generation,
        state,
        address: Some(record.address),
        healthy: None,
        last_probe: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let check = |status: Option<i32>, kills: u64, exit: Exit| assert_eq!(decide_exit(status, kills), exit);
        check(Some(0), 0, Exit::Code(0));
        check(Some(3 << 8), 0, Exit::Code(3));
        check(Some(3 << 8), 5, Exit::Code(3));
        check(Some(15), 0, Exit::Signal(15));
        check(Some(9), 0, Exit::Signal(9));
        check(Some(9), 1, Exit::OutOfMemory);
        check(Some(137 << 8), 1, Exit::OutOfMemory);
        check(Some(139), 0, Exit::Signal(11));
        check(None, 0, Exit::Unseen);
        check(None, 1, Exit::OutOfMemory);
    }
}
