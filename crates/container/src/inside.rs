//! What an instance's init does in its own namespaces until the instance's program runs.
//!
//! It begins before anybody knows what will run, waits, is told, builds what the program will see, and gives up all
//! power over it. Every mount goes to a directory or file that was opened beneath the root, never to a path.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::init;
use crate::root::{PRIVATE, RootError, at, attach, make_dir, new_mount};
use crate::sys;
use crate::tree::Tree;
use crate::user::User;
use crate::{seccomp, veth};

/// How many files an instance may have open at most, if the host's hard limit allows it: what common engines give.
const OPEN_FILES: u64 = 1_048_576;

/// What an init is told when it is known what will run. With it come descriptors: the root, standard output, standard
/// error, the file for the exit status, and one mount for each of `given`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) hostname: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: User,
    /// As bits (capabilities(7)).
    pub(crate) capabilities: u64,
    /// Where a tmpfs goes, and how many bytes it may hold.
    pub(crate) scratch: Vec<(String, u64)>,
    /// Where the mounts go that come with this.
    pub(crate) given: Vec<String>,
    /// Whether cgroups are those of version 2 alone.
    pub(crate) cgroup2: bool,
}

/// What an init says. When its program runs, it closes the channel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// It waits for orders.
    Ready {
        /// What could not be had and is done without.
        warnings: Vec<String>,
    },
    /// It can't go on.
    Failed(String),
}

/// The life of an init, from its first moment on. Ends if the other end of the channel is closed before the program runs.
pub(crate) fn main(mut channel: Channel, address: Ipv4Addr) -> ! {
    // Its parent is outside its pid namespace.
    sys::die_with_parent(0);
    let warnings = match prepare(&mut channel, address) {
        Ok(Some(warnings)) => warnings,
        Ok(None) => sys::exit_now(1),
        Err(error) => fail(&mut channel, &error),
    };
    if channel.send(&FromInit::Ready { warnings }, &[]).is_err() {
        sys::exit_now(1);
    }
    let (orders, descriptors) = match channel.receive::<Orders>() {
        Ok(Some(received)) => received,
        Ok(None) => sys::exit_now(1),
        Err(error) => fail(&mut channel, &error),
    };
    match run(&mut channel, &orders, descriptors) {
        Ok(never) => match never {},
        Err(error) => fail(&mut channel, &error),
    }
}

fn fail(channel: &mut Channel, error: &dyn std::error::Error) -> ! {
    // Fails only if nobody listens any more.
    let _ = channel.send(&FromInit::Failed(crate::create::chain(error)), &[]);
    sys::exit_now(1)
}

/// Sets up what is inside of the namespaces that it begins with. `None` if nobody needs it any more.
fn prepare(channel: &mut Channel, address: Ipv4Addr) -> Result<Option<Vec<String>>, RootError> {
    let mapped = channel.receive::<()>().map_err(at("could not hear from outside"))?;
    if mapped.is_none() {
        return Ok(None);
    }
    let mut warnings = Vec::new();
    // The value belongs to this pid namespace; the file still belongs to this process, which is the host's root outside.
    if let Err(error) = std::fs::write("/proc/sys/vm/memfd_noexec", "2") {
        warnings.push(format!(
            "programs in memory files (memfd) can be executed, kernels from 6.3 on can forbid it: {error}"
        ));
    }
    sys::become_mapped_root().map_err(at("could not become the root of its own users"))?;
    // A change of user has undone it.
    sys::die_with_parent(0);
    sys::new_session().map_err(at("could not begin a session"))?;
    veth::configure_inside(address).map_err(at("could not set up its network"))?;
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .map_err(at("could not open low ports to it"))?;
    Ok(Some(warnings))
}

fn run(channel: &mut Channel, orders: &Orders, descriptors: Vec<OwnedFd>) -> Result<Infallible, RootError> {
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| at("a descriptor is missing")(io::Error::other("none came")));
    let (root, stdout, stderr, exit) = (next()?, next()?, next()?, next()?);
    let given: Vec<OwnedFd> = descriptors.collect();

    let own = nix::sched::CloneFlags::CLONE_NEWNS | nix::sched::CloneFlags::CLONE_NEWCGROUP;
    nix::sched::unshare(own).map_err(at("could not make its mount namespace"))?;
    sys::set_host_name(&orders.hostname).map_err(at("could not set its host name"))?;
    enter_root(orders, root, &given)?;
    drop(given);

    for (stream, fd) in [(0, null()?.as_fd()), (1, stdout.as_fd()), (2, stderr.as_fd())] {
        sys::replace_stream(fd, stream).map_err(at("could not set its standard streams"))?;
    }
    sys::close_on_exec_from(3).map_err(at("could not close descriptors"))?;
    for (resource, most) in [(Resource::Nofile, OPEN_FILES), (Resource::Core, 0)] {
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |host| host.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(at("could not set its limits"))?;
    }
    // From here on nothing of this process may be seen from inside: neither its memory nor the program on the host.
    // What is forked from it is hidden too, until it executes the instance's own program.
    sys::hide_process();
    let user = &orders.user;
    sys::become_user(user.uid, user.gid, &user.groups, orders.capabilities).map_err(at("could not take its user"))?;
    sys::hide_process();
    enter_directory(&orders.cwd)?;
    sys::filter_calls(&seccomp::filter()).map_err(at("could not filter its system calls"))?;
    sys::outlive_parent();
    init::run(channel, &orders.args, &orders.env, exit).map_err(at("could not start its program"))
}

/// Opens the `/dev/null` of the instance itself.
fn null() -> Result<File, RootError> {
    File::options().read(true).write(true).open("/dev/null").map_err(at("could not open its /dev/null"))
}

/// Makes the working directory the current one, and makes sure that it is one of the instance (CVE-2024-21626).
fn enter_directory(path: &str) -> Result<(), RootError> {
    let failed = || format!("could not enter its working directory `{path}`");
    std::env::set_current_dir(path).map_err(at(failed()))?;
    match std::env::current_dir() {
        Ok(now) if now.is_absolute() => Ok(()),
        Ok(now) => Err(at(failed())(io::Error::other(format!("it lies outside, at `{}`", now.display())))),
        Err(error) => Err(at(failed())(error)),
    }
}

/// Builds the instance's tree of mounts and makes it the only one.
fn enter_root(orders: &Orders, root: OwnedFd, given: &[OwnedFd]) -> Result<(), RootError> {
    // Whatever is mounted on the host's side from now on is none of this namespace's business.
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .map_err(at("could not make its mounts private"))?;
    let private =
        new_mount("tmpfs", &[("size", "4k"), ("mode", "0755")], false).map_err(at("could not mount a tmpfs"))?;
    attach(private.as_fd(), Path::new(PRIVATE))?;
    let path = Path::new(PRIVATE).join("root");
    make_dir(&path)?;
    attach(root.as_fd(), &path)?;

    let tree = Tree::new(root.as_fd());
    tree.system(orders.cgroup2)?;
    tree.shut()?;
    // Outer directories first, so that no mount hides one made before it.
    let mut places: Vec<(&str, Wanted<'_>)> =
        orders.scratch.iter().map(|(to, size)| (to.as_str(), Wanted::Scratch(*size))).collect();
    places.extend(orders.given.iter().zip(given).map(|(to, mount)| (to.as_str(), Wanted::Given(mount.as_fd()))));
    places.sort_by(|a, b| a.0.cmp(b.0));
    for (to, wanted) in places {
        match wanted {
            Wanted::Scratch(size) => tree.scratch(to, size)?,
            Wanted::Given(mount) => tree.attach(mount, to)?,
        }
    }

    rustix::process::fchdir(&root).map_err(at("could not enter its root"))?;
    rustix::process::pivot_root(".", ".").map_err(at("could not make its root the only one"))?;
    unmount(".", UnmountFlags::DETACH).map_err(at("could not leave the host's root"))?;
    std::env::set_current_dir("/").map_err(at("could not enter its root"))
}

/// What goes to a path.
enum Wanted<'a> {
    Scratch(u64),
    Given(BorrowedFd<'a>),
}
