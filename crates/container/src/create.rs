//! The short-lived child that creates one instance (`basalt create-instance`).
//!
//! It makes namespaces and mounts in them, and so needs a process of its own with a single thread. On standard input it
//! reads a [`Place`], one line, and prepares it; later its [`CreateOrder`], secrets included, to the end. It answers on
//! standard output. The keeper has some of these waiting for their order, so that starting an instance does not take
//! the time that preparing takes.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{AtFlags, Gid, Uid};

use crate::cgroup::Cgroup;
use crate::inside::{FromInit, Orders};
use crate::order::{CreateAnswer, CreateOrder, Place};
use crate::place::{Prepared, prepare};
use crate::probe;
use crate::process::{add_secrets, command, environment, workdir};
use crate::root::{PRIVATE, Root, Sources, at, clone_mount, make_dir};
use crate::sys;
use crate::user::{self, User};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The verb under which the binary calls [`main`].
pub const VERB: &str = "create-instance";

/// How much a scratch directory may hold where the release has no limit of memory, which bounds it otherwise: the same
/// on every machine, and less than what servers have.
const SCRATCH_SIZE: u64 = 1 << 30;

/// Creates and starts one instance. To be called before any thread is started.
pub fn main() -> ExitCode {
    let answer = answer().unwrap_or_else(|error| Some(CreateAnswer::Failed(chain(error.as_ref()))));
    let Some(answer) = answer else { return ExitCode::SUCCESS };
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    match io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prepares, waits and creates. `None` if no order came.
fn answer() -> Result<Option<CreateAnswer>, AnyError> {
    let mut input = io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line)?;
    let place: Place = serde_json::from_str(&line)?;
    sys::die_with_parent(place.keeper);
    // Nothing of this process may be seen from inside an instance: neither its memory nor the program on the host.
    sys::hide_process();
    sys::close_on_exec_from(3)?;
    let mut steps = Steps::start();
    let prepared = prepare(&place);
    steps.done("place");
    let mut order = Vec::new();
    input.read_to_end(&mut order)?;
    if order.is_empty() {
        return Ok(None);
    }
    steps.wait();
    let order: CreateOrder = serde_json::from_slice(&order)?;
    create(&place, prepared?, &order, steps).map(Some)
}

/// How long each step took.
struct Steps {
    at: std::time::Instant,
    done: Vec<(String, u64)>,
}

#[allow(clippy::disallowed_methods)] // Times for people who wonder what takes long; nothing is decided by them.
impl Steps {
    fn start() -> Self {
        Self { at: std::time::Instant::now(), done: Vec::new() }
    }

    fn wait(&mut self) {
        self.at = std::time::Instant::now();
    }

    fn done(&mut self, step: &str) {
        self.done.push((step.to_owned(), u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX)));
        self.wait();
    }
}

/// Returns an error with its causes, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn create(place: &Place, prepared: Prepared, order: &CreateOrder, mut steps: Steps) -> Result<CreateAnswer, AnyError> {
    let Prepared { init, mut channel, userns, warnings } = prepared;
    let start = &order.start;
    let id = start.id.to_string();
    let args = command(&start.release, &start.image);
    if args.is_empty() {
        return Err("neither the release nor its image says what to run; give the service a `command`".into());
    }
    place.cgroup().limit(&start.release.limits).map_err(at("could not limit it"))?;

    // Everything on the host is opened before the private tmpfs hides some of it.
    let sources = Sources::open(&start.image, &open_volumes(order)?)?;
    let output = |name: &str| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(order.run_dir().join(name))
    };
    let (stdout, stderr) = (output("stdout")?, output("stderr")?);
    let exit =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(order.run_dir().join("exit"))?;
    order.admission(place.address).admit(&place.network)?;
    steps.done("host");

    let root = Root::mount(sources, userns.as_fd())?;
    steps.done("root");
    let text = start.release.user.as_deref().unwrap_or(&start.image.config.user);
    let user = user::resolve(text, &root.read("/etc/passwd")?, &root.read("/etc/group")?)?;
    let first = place.first_id();
    own_volumes(&root, first, &user)?;
    let files = write_files(place, order, &user)?;
    for stream in [&stdout, &stderr] {
        // Programs open `/dev/stdout` anew, so the pipe has to be theirs.
        std::os::unix::fs::fchown(stream, Some(first + user.uid), Some(first + user.gid))?;
        rustix::fs::fcntl_setfl(stream, rustix::fs::OFlags::empty())?;
    }
    steps.done("files");

    let given: Vec<(String, OwnedFd)> = root.volumes.into_iter().chain(files).collect();
    let env = environment(&id, &start.release, &start.image, &user);
    let size = start.release.limits.memory.map_or(SCRATCH_SIZE, |memory| memory.0);
    let orders = Orders {
        hostname: id,
        args: args.to_vec(),
        // Secrets are given to the program alone: what is written down of the instance holds none.
        env: add_secrets(env.clone(), &start.secret_env)?,
        cwd: workdir(&start.release, &start.image).to_owned(),
        user: user.clone(),
        capabilities: probe::capability_bits(&start.release.capabilities),
        scratch: start.release.scratch.iter().map(|to| (to.clone(), size)).collect(),
        given: given.iter().map(|(to, _)| to.clone()).collect(),
        cgroup2: Cgroup::is_version_2(),
    };
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![root.tree.as_fd(), stdout.as_fd(), stderr.as_fd(), exit.as_fd()];
    descriptors.extend(given.iter().map(|(_, mount)| mount.as_fd()));
    channel.send(&orders, &descriptors)?;
    match channel.receive()? {
        None => {}
        Some((FromInit::Failed(why), _)) => return Err(why.into()),
        Some((FromInit::Ready { .. }, _)) => return Err("its init does not understand its orders".into()),
    }
    steps.done("inside");
    Ok(CreateAnswer::Running {
        init,
        pid: program_of(init).unwrap_or(init),
        user,
        env,
        cwd: orders.cwd,
        warnings,
        steps: steps.done,
    })
}

/// Returns the only child of an init: the instance's own program.
fn program_of(init: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Makes directories for volumes that are new; nobody but root may pass through the one above them, because files with
/// the set-user-id bit in them belong to the host's root.
fn open_volumes(order: &CreateOrder) -> Result<Vec<(String, PathBuf)>, AnyError> {
    let parent = order.data.join("volumes");
    let mut volumes = Vec::new();
    for (to, volume) in &order.start.release.volumes {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&parent)?;
        std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o700))?;
        let dir = parent.join(volume.name.as_str());
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
        volumes.push((to.clone(), dir));
    }
    Ok(volumes)
}

/// Gives volumes that are new (empty, and still root's) to the instance's user. Owners are seen through the mapped mount.
fn own_volumes(root: &Root, first: u32, user: &User) -> Result<(), AnyError> {
    for (to, mount) in &root.volumes {
        let failed = || format!("could not give the volume for `{to}` to its user");
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(mount));
        let owner = std::fs::metadata(&path).map_err(at(failed()))?.uid();
        if user.uid != 0 && owner == first && std::fs::read_dir(&path).map_err(at(failed()))?.next().is_none() {
            let (uid, gid) = (Uid::from_raw(first + user.uid), Gid::from_raw(first + user.gid));
            rustix::fs::chownat(mount, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).map_err(at(failed()))?;
        }
    }
    Ok(())
}

/// Writes configs, secrets and the files about names into the private tmpfs; returns a read-only mount of each.
fn write_files(place: &Place, order: &CreateOrder, user: &User) -> Result<Vec<(String, OwnedFd)>, AnyError> {
    let start = &order.start;
    let id = start.id.to_string();
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{} {id}\n", place.address);
    for (name, address) in &start.hosts {
        hosts.push_str(&format!("{address} {name}\n"));
    }
    let resolver = if start.release.egress { crate::network::name_servers() } else { String::new() };
    let hostname = format!("{id}\n");
    let mut wanted: Vec<(&str, &[u8], u32)> = vec![
        ("/etc/hosts", hosts.as_bytes(), 0o644),
        ("/etc/resolv.conf", resolver.as_bytes(), 0o644),
        ("/etc/hostname", hostname.as_bytes(), 0o644),
    ];
    wanted.extend(start.release.configs.iter().map(|(path, c)| (path.as_str(), c.content.as_bytes(), c.mode)));
    wanted.extend(start.secrets.iter().map(|s| (s.path.as_str(), s.content.expose(), s.mode)));

    let dir = Path::new(PRIVATE).join("files");
    make_dir(&dir)?;
    let mut files = Vec::new();
    for (n, (to, content, mode)) in wanted.into_iter().enumerate() {
        let path = dir.join(n.to_string());
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?.write_all(content)?;
        chown(&path, Some(place.first_id() + user.uid), Some(place.first_id() + user.gid))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o7777))?;
        let mount = clone_mount(&path)?;
        let set = sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV | sys::MOUNT_NO_EXEC;
        sys::set_mount(mount.as_fd(), set, None).map_err(at(format!("could not write-protect `{to}`")))?;
        files.push((to.to_owned(), mount));
    }
    Ok(files)
}
