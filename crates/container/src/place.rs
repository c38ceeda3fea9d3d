//! Preparing a place before it is known what will run in it: cgroup, namespaces, the link to the host, and in them the
//! process that will be the instance's init. All that takes the kernel long is done here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::channel::Channel;
use crate::inside::{self, FromInit};
use crate::order::Place;
use crate::root::{at, map_ids};
use crate::sys::{self, Side};
use crate::veth;

/// The namespaces that an instance has of its own; those of mounts and cgroups follow when its root is there.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A place that is ready. Dropped, its init ends.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Process 1 of the pid namespace.
    pub(crate) init: u32,
    /// To that process.
    pub(crate) channel: Channel,
    /// Its user namespace.
    pub(crate) userns: OwnedFd,
    /// What could not be had and is done without, for people.
    pub(crate) warnings: Vec<String>,
}

/// Prepares a place. For a process with a single thread, which enters the place's cgroup.
pub(crate) fn prepare(place: &Place) -> Result<Prepared, AnyError> {
    let cgroup = place.cgroup();
    cgroup.make().map_err(at("could not make its cgroup"))?;
    cgroup.enter().map_err(at("could not enter its cgroup"))?;
    let (mut channel, theirs) = Channel::pair()?;
    let init = match sys::fork(NAMESPACES).map_err(at("could not make its namespaces"))? {
        Side::Child => {
            drop(channel);
            inside::main(theirs, place.address)
        }
        Side::Parent(init) => init,
    };
    drop(theirs);
    map_ids(init, place.first_id()).map_err(at("could not map its users"))?;
    let namespace = |name: &str| -> io::Result<OwnedFd> { Ok(File::open(format!("/proc/{init}/ns/{name}"))?.into()) };
    let (userns, netns) = (namespace("user")?, namespace("net")?);
    veth::connect(&place.link(), &place.network, place.address, netns.as_fd())
        .map_err(at("could not link it to the host"))?;
    channel.send(&(), &[])?;
    match channel.receive()? {
        Some((FromInit::Ready { warnings }, _)) => Ok(Prepared { init: init as u32, channel, userns, warnings }),
        Some((FromInit::Failed(why), _)) => Err(why.into()),
        None => Err("its init ended while it was prepared".into()),
    }
}
