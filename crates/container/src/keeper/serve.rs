//! The keeper's main loop: adoption, its sockets, and its end.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use basalt_wire::fdstore;
use basalt_wire::split;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::record::{Record, Stage, boot_id};
use super::state::{Keeper, Shared};
use super::{instance, roles, spare};
use crate::cgroup::Cgroup;
use crate::network::network;
use crate::protocol::{FromKeeper, ToKeeper, fdstore_socket, keeper_socket};
use crate::supervise::claim_role;
use crate::{firewall, forwarding, sys, veth};

/// How often orphans that nobody waits for are reaped: programs of checks that took too long, which count as processes
/// of their instance until then.
const REAP_EVERY: Duration = Duration::from_secs(3);

/// How many instances are created at once for each processor: most of the time that one takes without a spare place,
/// the kernel waits and no processor works.
const STARTS_PER_PROCESSOR: usize = 4;

/// What a keeper is told.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The data directory.
    pub data: PathBuf,
    /// The program of Basalt: run as `create-instance` and `probe-instance`, and for the roles.
    pub basalt: PathBuf,
    /// The roles to keep running, in the order in which they are started; stopped in the opposite order.
    pub roles: Vec<RoleCommand>,
}

/// A role to keep running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleCommand {
    /// What it claims: `gateway` or `controller`.
    pub role: String,
    /// All arguments behind the program.
    pub args: Vec<String>,
}

/// Runs the keeper until it is shut down. To be called before any thread is started.
///
/// # Errors
/// If another keeper runs for the data directory, or network and firewall can't be set up.
pub fn run(options: KeeperOptions) -> io::Result<()> {
    let _guard = claim_role(&options.data, "keeper").map_err(io::Error::other)?;
    let data = std::fs::canonicalize(&options.data)?;
    sys::adopt_orphans()?;
    sys::raise_file_limit();
    for dir in ["logs", "run/instances"] {
        std::fs::create_dir_all(data.join(dir))?;
    }
    // Records, pipes and logs are nobody's business.
    for dir in ["logs", "run"] {
        std::fs::set_permissions(data.join(dir), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let network = network(&data)?;
    veth::open_network(&network)?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let starts = STARTS_PER_PROCESSOR * processors;
    let keeper = Keeper::new(data, options.basalt, network, starts);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(keeper, options.roles))
}

async fn serve(keeper: Shared, roles: Vec<RoleCommand>) -> io::Result<()> {
    let records = recorded(&keeper.data)?;
    sweep(&keeper, &records).await;
    let same_boot = boot_id();
    let live = |r: &&Record| matches!(&r.stage, Stage::Running(p) if p.boot == same_boot);
    let admissions: Vec<_> = records.iter().filter(live).map(|r| r.admission.clone()).collect();
    firewall::install(&keeper.network, &admissions)?;
    records.iter().filter(live).for_each(|r| keeper.note_egress(&r.id, r.admission.egress));
    if !admissions.iter().any(|a| a.egress) {
        forwarding::give_up(&keeper.network)?;
    }
    for record in records {
        let place = (!matches!(record.stage, Stage::Ended { .. })).then_some(record.index);
        keeper.seen_place(record.index);
        let stop = keeper.enter(&record.id, instance::remembered(&record), place);
        spawn_local(instance::adopt(keeper.clone(), record, stop));
    }
    // Everything is in view before anybody is answered.
    let listener = bind(&keeper_socket(&keeper.data))?;
    let store = bind(&fdstore_socket(&keeper.data))?;
    let kept = Rc::new(fdstore::Kept::default());
    for command in &roles {
        spawn_local(roles::keep_running(keeper.clone(), command.clone()));
    }
    spawn_local(reap_orphans());
    spare::refill(&keeper);
    let (down, mut shutdown) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                spawn_local(converse(keeper.clone(), stream, down.clone()));
            }
            Ok((stream, _)) = store.accept() => {
                spawn_local(fdstore::serve(stream, kept.clone()));
            }
            Some(answer) = shutdown.recv() => {
                let message = match keeper.close().as_slice() {
                    [] => {
                        kept.clear();
                        match take_down(&keeper, &roles).await {
                            Ok(()) => FromKeeper::Down,
                            Err(error) => FromKeeper::Refused(format!("could not take everything down: {error}")),
                        }
                    }
                    running => {
                        let names: Vec<String> = running.iter().map(ToString::to_string).collect();
                        FromKeeper::Refused(format!("these instances still run: {}; stop them first", names.join(", ")))
                    }
                };
                let is_down = matches!(message, FromKeeper::Down);
                // Fails only if who asked has gone.
                let _ = mpsc::UnboundedSender::<FromKeeper>::send(&answer, message);
                if is_down {
                    drop(answer);
                    // Lets the last message go out.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    return Ok(());
                }
            }
        }
    }
}

/// Returns all records that can be read; of what can't be, nothing stays.
fn recorded(data: &Path) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(data.join("run/instances"))? {
        let dir = entry?.path();
        match Record::load(&dir) {
            Ok(record) => records.push(record),
            Err(error) => {
                // Its instance, if it lives, is ended by its cgroup, and the controller decides anew.
                tracing::warn!(dir = %dir.display(), %error, "an instance is not known any more");
                std::fs::remove_dir_all(dir)?;
            }
        }
    }
    Ok(records)
}

/// Takes away every place that no record names: spare ones of the keeper before, and instances that nobody would watch.
async fn sweep(keeper: &Shared, records: &[Record]) {
    let known: Vec<String> = records.iter().map(|r| r.index.to_string()).collect();
    for name in Cgroup::of_data(keeper.network.tag()).children() {
        if let (false, Ok(index)) = (known.contains(&name), name.parse()) {
            instance::clear(keeper, index).await;
        }
    }
}

/// Listens on a socket that root alone may use; one left by a keeper before is replaced.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

type Answer = mpsc::UnboundedSender<FromKeeper>;

/// Hears and speaks at once: were it deaf while it speaks, and the other side too, both would wait for ever.
async fn converse(keeper: Shared, stream: UnixStream, down: mpsc::UnboundedSender<Answer>) {
    let (mut reader, mut writer) = split(stream);
    let (answer, mut messages) = keeper.listen();
    let hear = async {
        while let Ok(Some(message)) = reader.next().await {
            match message {
                ToKeeper::Perform(action) => keeper.perform(action),
                // Fails only when the keeper is ending.
                ToKeeper::Shutdown => drop(down.send(answer.clone())),
            }
        }
    };
    let speak = async {
        while let Some(message) = messages.recv().await {
            if writer.send(&message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = speak => {}
    }
}

/// Stops the roles and takes everything away that the keeper has set up on the host.
async fn take_down(keeper: &Shared, roles: &[RoleCommand]) -> io::Result<()> {
    roles::stop_all(keeper, roles).await?;
    spare::drop_all(keeper).await;
    forwarding::give_up(&keeper.network)?;
    firewall::remove(&keeper.network)?;
    veth::close_network(&keeper.network)?;
    Cgroup::of_data(keeper.network.tag()).remove()?;
    crate::network::release(&keeper.network)?;
    let run = keeper.data.join("run");
    for entry in std::fs::read_dir(&run)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

/// Reaps children that no task waits for: what helpers leave behind when they are killed.
async fn reap_orphans() {
    let mut before: Vec<i32> = Vec::new();
    loop {
        tokio::time::sleep(REAP_EVERY).await;
        let own = std::process::id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let ended = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
        let zombies: Vec<i32> = children.split_whitespace().filter_map(|p| p.parse().ok()).filter(ended).collect();
        // A task that waits for one has had all the time since the last look.
        zombies.iter().filter(|pid| before.contains(pid)).for_each(|pid| sys::reap(*pid));
        before = zombies;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use basalt_model::InstanceId;
    use basalt_seam::InstanceAction;

    #[test]
    fn a_controller_that_speaks_first_and_hears_later_is_no_deadlock() {
        let dir = tempfile::tempdir().unwrap();
        let network = network(dir.path()).unwrap();
        let keeper = Keeper::new(dir.path().into(), "basalt".into(), network.clone(), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let talk = async {
            let (here, there) = UnixStream::pair().unwrap();
            let (down, _shutdown) = mpsc::unbounded_channel();
            spawn_local(converse(keeper.clone(), there, down));
            let (mut reader, mut writer) = split(here);
            assert!(reader.next::<FromKeeper>().await.unwrap().is_some());
            // More each way than a socket holds.
            let (id, many) = ("web-1-1".parse::<InstanceId>().unwrap(), 20_000);
            (0..many).for_each(|_| keeper.forget(&id));
            for _ in 0..many {
                let action = InstanceAction::Forget { id: id.clone(), generation: 1 };
                writer.send(&ToKeeper::Perform(action)).await.unwrap();
            }
            for _ in 0..many {
                assert!(reader.next::<FromKeeper>().await.unwrap().is_some());
            }
        };
        let within = Duration::from_secs(20);
        let done = LocalSet::new().block_on(&runtime, async { tokio::time::timeout(within, talk).await });
        crate::network::release(&network).unwrap();
        done.expect("both wait for each other");
    }
}
