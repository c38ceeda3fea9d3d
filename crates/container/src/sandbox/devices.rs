//! What the kernel shows a sandbox: `/proc`, `/sys` and the few devices that every program expects.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::child::FIRST_ID;
use crate::root::{RootError, at, attach, clone_mount, make_dir, new_mount};
use crate::sys;
use crate::tree::{LINKS, MASKED, READ_ONLY};

/// Devices that know nothing of the machine (OCI runtime spec, "Default Devices").
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The group of terminals on every distribution.
const TTY_GROUP: u32 = 5;

/// Mounts of single devices of the host.
#[derive(Debug)]
pub(super) struct Devices(Vec<(&'static str, OwnedFd)>);

impl Devices {
    pub(super) fn open() -> Result<Self, RootError> {
        let open = |name: &'static str| Ok((name, clone_mount(&Path::new("/dev").join(name))?));
        DEVICES.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }
}

/// Mounts `/proc` and, for the root itself, `/sys`, and hides in them what is the host's. `/dev`
/// must be there by then.
pub(super) fn mount_kernel(root: &str) -> Result<(), RootError> {
    let closed = sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV | sys::MOUNT_NO_EXEC;
    let proc = new_mount("proc", &[], false).map_err(at("could not mount `/proc`"))?;
    sys::set_mount(proc.as_fd(), closed, None).map_err(at("could not close `/proc`"))?;
    attach(proc.as_fd(), Path::new(&format!("{root}/proc")))?;
    if root.is_empty() && Path::new("/sys").is_dir() {
        let sysfs = new_mount("sysfs", &[], true).map_err(at("could not mount `/sys`"))?;
        sys::set_mount(sysfs.as_fd(), closed | sys::MOUNT_READ_ONLY, None).map_err(at("could not close `/sys`"))?;
        attach(sysfs.as_fd(), Path::new("/sys"))?;
    }
    for path in READ_ONLY.iter().map(|path| format!("{root}/{path}")) {
        if Path::new(&path).exists() {
            let mount = clone_mount(Path::new(&path))?;
            sys::set_mount(mount.as_fd(), closed | sys::MOUNT_READ_ONLY, None)
                .map_err(at(format!("could not make `{path}` read-only")))?;
            attach(mount.as_fd(), Path::new(&path))?;
        }
    }
    for path in MASKED.iter().map(|path| format!("{root}/{path}")) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            let empty =
                new_mount("tmpfs", &[("mode", "0555")], true).map_err(at(format!("could not hide `{path}`")))?;
            attach(empty.as_fd(), Path::new(&path))?;
        } else {
            attach(clone_mount(Path::new("/dev/null"))?.as_fd(), Path::new(&path))?;
        }
    }
    Ok(())
}

/// Mounts `/dev`, and the inputs of the step in it: it is never part of an image, so nothing of them stays.
pub(super) fn mount_devices(devices: &Devices, inputs: &[(String, OwnedFd)]) -> Result<(), RootError> {
    let owner = FIRST_ID.to_string();
    let own = [("mode", "0755"), ("size", "1m"), ("uid", owner.as_str()), ("gid", owner.as_str())];
    let dev = new_mount("tmpfs", &own, false).map_err(at("could not mount `/dev`"))?;
    let no_suid = sys::MOUNT_NO_SUID | sys::MOUNT_NO_EXEC;
    sys::set_mount(dev.as_fd(), no_suid, None).map_err(at("could not close `/dev`"))?;
    attach(dev.as_fd(), Path::new("/dev"))?;
    for (name, mount) in &devices.0 {
        let path = Path::new("/dev").join(name);
        File::create(&path).map_err(at(format!("could not make `{}`", path.display())))?;
        attach(mount.as_fd(), &path)?;
    }
    for (target, name) in LINKS {
        symlink(target, Path::new("/dev").join(name)).map_err(at(format!("could not make `/dev/{name}`")))?;
    }
    let group = (FIRST_ID + TTY_GROUP).to_string();
    let pts = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", group.as_str())];
    let shm = [("mode", "1777"), ("size", "64m"), ("uid", owner.as_str()), ("gid", owner.as_str())];
    for (kind, path, options) in [("devpts", "/dev/pts", &pts[..]), ("tmpfs", "/dev/shm", &shm[..])] {
        make_dir(Path::new(path))?;
        let mount = new_mount(kind, options, false).map_err(at(format!("could not mount `{path}`")))?;
        sys::set_mount(mount.as_fd(), no_suid, None).map_err(at(format!("could not close `{path}`")))?;
        attach(mount.as_fd(), Path::new(path))?;
    }
    make_dir(Path::new("/dev/basalt"))?;
    for (name, mount) in inputs {
        let path = Path::new("/dev/basalt").join(name);
        let is_dir = rustix::fs::fstat(mount).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir());
        if is_dir {
            make_dir(&path)?;
        } else {
            File::create(&path).map_err(at(format!("could not make `{}`", path.display())))?;
        }
        attach(mount.as_fd(), &path)?;
    }
    Ok(())
}
