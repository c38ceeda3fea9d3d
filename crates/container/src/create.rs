//! The short-lived child that creates one instance (`basalt create-instance`).
//!
//! libcontainer forks, and mounts have to be made in a private namespace: both need a process of their own with a
//! single thread. It reads its order from standard input, secrets included, and answers on standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use crate::cgroup::Cgroup;
use crate::init::Init;
use crate::order::{CreateAnswer, CreateOrder};
use crate::root::{PRIVATE, Root, Sources, at, make_dir, user_namespace};
use crate::runtime_spec::{Facts, command, environment, spec, workdir};
use crate::sys::{self, Side};
use crate::user::{self, User};
use crate::{firewall, veth};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Creates and starts one instance. To be called before any thread is started.
pub fn main() -> ExitCode {
    sys::die_with_parent();
    let answer = sys::close_on_exec_from(3)
        .map_err(AnyError::from)
        .and_then(|()| create())
        .unwrap_or_else(|error| CreateAnswer::Failed(chain(error.as_ref())));
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    match io::stdout().write_all(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Returns an error with its causes, each once: libcontainer's errors repeat what they are caused by.
fn chain(error: &dyn std::error::Error) -> String {
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

fn create() -> Result<CreateAnswer, AnyError> {
    let mut order = Vec::new();
    io::stdin().read_to_end(&mut order)?;
    let order: CreateOrder = serde_json::from_slice(&order)?;
    let (start, mut warnings) = (&order.start, Vec::new());
    let id = start.id.to_string();
    if command(&start.release, &start.image).is_empty() {
        return Err("neither the release nor its image says what to run; give the service a `command`".into());
    }

    // Everything on the host is opened before the private tmpfs hides some of it.
    let volumes = open_volumes(&order)?;
    let sources = Sources::open(&start.image, &volumes)?;
    let output = |name: &str| {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(order.run_dir().join(name))
    };
    let (stdout, stderr) = (output("stdout")?, output("stderr")?);
    let exit =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(order.run_dir().join("exit"))?;
    let userns = user_namespace(order.first_id())?;
    let host_users = File::open("/proc/self/ns/net")?;

    let root = Root::mount(sources, userns.as_fd())?;
    let text = start.release.user.as_deref().unwrap_or(&start.image.config.user);
    let user = user::resolve(text, &Root::read("/etc/passwd")?, &Root::read("/etc/group")?)?;
    own_volumes(&root, order.first_id(), &user)?;
    let files = write_files(&order, &user)?;
    for stream in [&stdout, &stderr] {
        // Programs open `/dev/stdout` anew, so the pipe has to be theirs.
        std::os::unix::fs::fchown(stream, Some(order.first_id() + user.uid), Some(order.first_id() + user.gid))?;
        rustix::fs::fcntl_setfl(stream, rustix::fs::OFlags::empty())?;
    }

    let cgroup = Cgroup::of_data(order.network.tag()).below(&id);
    let facts = Facts {
        id: &id,
        release: &start.release,
        image: &start.image,
        user: &user,
        root: Root::path(),
        userns: format!("/proc/self/fd/{}", userns.as_raw_fd()).into(),
        cgroup: cgroup.path(),
        cgroup2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        files: &files,
        volumes: &root.volumes,
        open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX),
    };
    let bundle = Path::new(PRIVATE).join("bundle");
    make_dir(&bundle)?;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec(&facts))?)?;

    let env = environment(&id, &start.release, &start.image, &user);
    let (report_read, report_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let init = Init { report: report_write.as_raw_fd(), exit: exit.as_raw_fd(), env: env.clone() };
    let container = ContainerBuilder::new(id.clone(), SyscallType::default())
        .with_root_path(Path::new(PRIVATE).join("state"))?
        .with_executor(init)
        .with_stdin(File::open("/dev/null")?)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .as_init(&bundle)
        .with_systemd(false)
        .build()?;
    drop((exit, userns));
    let process = container.pid().ok_or("the instance ended while it was created")?.as_raw() as u32;
    let started = start_created(&order, container, process, host_users.into(), &mut warnings);
    drop(report_write);
    if let Err(error) = started {
        kill(process);
        return Err(error);
    }
    let mut refusal = String::new();
    File::from(report_read).read_to_string(&mut refusal)?;
    if !refusal.is_empty() {
        return Err(refusal.into());
    }
    Ok(CreateAnswer::Running {
        init: process,
        pid: program_of(process).unwrap_or(process),
        user,
        env,
        cwd: workdir(&start.release, &start.image).to_owned(),
        warnings,
    })
}

/// Does what has to be done between creation and start: network, and the ban on executing memory files.
fn start_created(
    order: &CreateOrder,
    mut container: Container,
    process: u32,
    host: OwnedFd,
    warnings: &mut Vec<String>,
) -> Result<(), AnyError> {
    let netns = File::open(format!("/proc/{process}/ns/net"))?;
    let names = veth::Names::new(order.network.tag(), order.index);
    veth::connect(&names, &order.network, order.address, netns.as_fd()).map_err(at("could not link it to the host"))?;
    firewall::admit(order)?;

    let network_only = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(netns.as_fd(), network_only)
        .map_err(at("could not enter its network"))?;
    veth::configure_inside(order.address).map_err(at("could not set up its network"))?;
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .map_err(at("could not open low ports to it"))?;
    rustix::thread::move_into_link_name_space(host.as_fd(), network_only)?;

    if let Err(error) = ban_memory_programs(process) {
        warnings.push(format!(
            "programs in memory files (memfd) can be executed, kernels from 6.3 on can forbid it: {error}"
        ));
    }
    container.start()?;
    Ok(())
}

/// Writes `vm.memfd_noexec=2` for the pid namespace of the instance: the value belongs to the writer's namespace.
fn ban_memory_programs(process: u32) -> io::Result<()> {
    let pidfd = sys::pidfd(process)?;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)?;
    match sys::fork(0)? {
        Side::Child => match std::fs::write("/proc/sys/vm/memfd_noexec", "2") {
            Ok(()) => sys::exit_now(0),
            Err(error) => sys::exit_now(error.raw_os_error().unwrap_or(libc::EIO)),
        },
        Side::Parent(pid) => match libc::WEXITSTATUS(sys::wait(pid)?) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        },
    }
}

fn kill(process: u32) {
    if let Ok(pidfd) = sys::pidfd(process) {
        // Fails only if it has ended already.
        let _ = sys::signal(&pidfd, libc::SIGKILL);
    }
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
    for (_, path) in &root.volumes {
        let owner = std::fs::metadata(path)?.uid();
        if user.uid != 0 && owner == first && std::fs::read_dir(path)?.next().is_none() {
            chown(path, Some(first + user.uid), Some(first + user.gid))?;
        }
    }
    Ok(())
}

/// Writes configs, secrets and the files about names into the private tmpfs.
fn write_files(order: &CreateOrder, user: &User) -> Result<Vec<(String, PathBuf)>, AnyError> {
    let start = &order.start;
    let id = start.id.to_string();
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{} {id}\n", order.address);
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
        chown(&path, Some(order.first_id() + user.uid), Some(order.first_id() + user.gid))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o7777))?;
        files.push((to.to_owned(), path));
    }
    Ok(files)
}
