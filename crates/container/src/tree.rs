//! The mounts that every instance sees below its root: `/proc`, `/dev`, `/sys`, and what of them is hidden or read-only.
//!
//! Everything is opened beneath the root without following a magic link, and mounted by descriptor, so that nothing in
//! an image or a volume can lead a mount elsewhere (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::root::{RootError, at, clone_mount, new_mount};
use crate::sys::{self, MOUNT_NO_DEV, MOUNT_NO_EXEC, MOUNT_NO_SUID, MOUNT_READ_ONLY};

/// Parts of `/proc` and `/sys` that say something of the host or change it: hidden.
pub(crate) const MASKED: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/kmsg",
    "proc/kallsyms",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/sysvipc",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/kernel/security",
];

/// Parts of `/proc` that are needed and must not be written.
pub(crate) const READ_ONLY: &[&str] = &["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// What statfs(2) says of procfs and sysfs (linux/magic.h).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// The devices of an instance, with their numbers (linux/Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links in `/dev` that programs expect.
pub(crate) const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Nothing on it can be executed, no set-user-id bit and no device node has an effect.
const PLAIN: u64 = MOUNT_NO_EXEC | MOUNT_NO_SUID | MOUNT_NO_DEV;

/// How paths are resolved on which no link may be.
const FIXED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The root of an instance, attached somewhere in this mount namespace.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
}

impl<'a> Tree<'a> {
    /// Returns the tree below a mounted root.
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root }
    }

    /// Mounts what every instance has.
    pub(crate) fn system(&self, cgroup2: bool) -> Result<(), RootError> {
        self.file_system("proc", &[], PLAIN, "proc")?;
        self.file_system("sysfs", &[], PLAIN | MOUNT_READ_ONLY, "sys")?;
        if cgroup2 {
            // Runtimes size heaps and thread pools by what they read there.
            self.file_system("cgroup2", &[], PLAIN | MOUNT_READ_ONLY, "sys/fs/cgroup")?;
        }
        self.devices()
    }

    /// Mounts a tmpfs for files that end with the instance.
    pub(crate) fn scratch(&self, to: &str, bytes: u64) -> Result<(), RootError> {
        let size = bytes.to_string();
        let mount = self.made("tmpfs", &[("mode", "1777"), ("size", &size)], PLAIN)?;
        self.attach(mount.as_fd(), to)
    }

    /// Attaches a mount to a path, whose links are followed beneath the root only, and never to what the kernel shows:
    /// a volume may hold links that another instance has put there.
    pub(crate) fn attach(&self, mount: BorrowedFd<'_>, to: &str) -> Result<(), RootError> {
        let failed = || format!("could not mount to `{to}`");
        let target = self.open(to, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).map_err(at(failed()))?;
        let target = target.ok_or_else(|| at(failed())(Errno::NOENT))?;
        let kind = rustix::fs::fstatfs(&target).map_err(at(failed()))?.f_type;
        if [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&(kind as u64)) {
            return Err(at(failed())(io::Error::other("it leads into `/proc` or `/sys`")));
        }
        onto(mount, target.as_fd()).map_err(at(failed()))
    }

    /// Hides and write-protects what must not be seen or changed.
    pub(crate) fn shut(&self) -> Result<(), RootError> {
        let null = self.fixed("dev/null")?.ok_or_else(|| at("could not find `/dev/null`")(Errno::NOENT))?;
        let empty = self.made("tmpfs", &[("size", "4k"), ("nr_inodes", "2")], PLAIN | MOUNT_READ_ONLY)?;
        // Only what is attached can be cloned, so the first directory gets the mount itself.
        let mut attached = false;
        for path in MASKED {
            let Some(target) = self.fixed(path)? else { continue };
            let failed = || format!("could not hide `/{path}`");
            let stat = rustix::fs::fstat(&target).map_err(at(failed()))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let cover = clone(null.as_fd()).map_err(at(failed()))?;
                onto(cover.as_fd(), target.as_fd()).map_err(at(failed()))?;
            } else if attached {
                let cover = clone(empty.as_fd()).map_err(at(failed()))?;
                onto(cover.as_fd(), target.as_fd()).map_err(at(failed()))?;
            } else {
                onto(empty.as_fd(), target.as_fd()).map_err(at(failed()))?;
                attached = true;
            }
        }
        for path in READ_ONLY {
            let Some(target) = self.fixed(path)? else { continue };
            let failed = || format!("could not write-protect `/{path}`");
            let copy = clone(target.as_fd()).map_err(at(failed()))?;
            sys::set_mount(copy.as_fd(), PLAIN | MOUNT_READ_ONLY, None).map_err(at(failed()))?;
            onto(copy.as_fd(), target.as_fd()).map_err(at(failed()))?;
        }
        Ok(())
    }

    /// Makes `/dev`: written once, then read-only.
    fn devices(&self) -> Result<(), RootError> {
        let failed = || "could not make `/dev`".to_owned();
        let dev = self.made("tmpfs", &[("mode", "0755"), ("size", "64k")], PLAIN)?;
        self.put(dev.as_fd(), "dev")?;
        for dir in ["pts", "shm", "mqueue"] {
            mkdirat(&dev, dir, Mode::from_raw_mode(0o755)).map_err(at(failed()))?;
        }
        for (to, name) in LINKS {
            symlinkat(to, &dev, name).map_err(at(failed()))?;
        }
        for (name, major, minor) in DEVICES {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666)).map_err(at(failed()))?;
            let device = device(name, major, minor)?;
            self.put(device.as_fd(), &format!("dev/{name}"))?;
        }
        let terminals = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        self.file_system("devpts", &terminals, MOUNT_NO_SUID | MOUNT_NO_EXEC, "dev/pts")?;
        self.file_system("tmpfs", &[("mode", "1777"), ("size", "64m")], PLAIN, "dev/shm")?;
        self.file_system("mqueue", &[], PLAIN, "dev/mqueue")?;
        sys::set_mount(dev.as_fd(), MOUNT_READ_ONLY, None).map_err(at(failed()))
    }

    /// Mounts a file system to a directory of the image or of one made here; links on the way are refused.
    fn file_system(&self, kind: &str, options: &[(&str, &str)], set: u64, to: &str) -> Result<(), RootError> {
        let mount = self.made(kind, options, set)?;
        self.put(mount.as_fd(), to)
    }

    fn made(&self, kind: &str, options: &[(&str, &str)], set: u64) -> Result<OwnedFd, RootError> {
        let mount = new_mount(kind, options, false).map_err(at(format!("could not mount a {kind}")))?;
        sys::set_mount(mount.as_fd(), set, None).map_err(at(format!("could not restrict a {kind}")))?;
        Ok(mount)
    }

    fn put(&self, mount: BorrowedFd<'_>, to: &str) -> Result<(), RootError> {
        let failed = || format!("could not mount to `/{to}`");
        let target = self.fixed(to)?.ok_or_else(|| at(failed())(Errno::NOENT))?;
        onto(mount, target.as_fd()).map_err(at(failed()))
    }

    /// Opens a path on which no link may be; `None` if there is nothing.
    fn fixed(&self, path: &str) -> Result<Option<OwnedFd>, RootError> {
        self.open(path, FIXED).map_err(at(format!("could not open `/{path}`")))
    }

    fn open(&self, path: &str, how: ResolveFlags) -> io::Result<Option<OwnedFd>> {
        let relative = path.trim_start_matches('/');
        match rustix::fs::openat2(self.root, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns a mount of one of the host's devices, having made sure that it is that device.
fn device(name: &str, major: u32, minor: u32) -> Result<OwnedFd, RootError> {
    let path = Path::new("/dev").join(name);
    let mount = clone_mount(&path)?;
    let stat = rustix::fs::fstat(&mount).map_err(at(format!("could not look at `{}`", path.display())))?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (major, minor);
    if !is_device {
        let what = format!("`{}` of this machine is not the device {major}:{minor}", path.display());
        return Err(at(what)(io::Error::from(io::ErrorKind::InvalidData)));
    }
    Ok(mount)
}

/// Makes another mount of what a descriptor shows.
fn clone(mount: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(mount, "", flags)
}

/// Attaches a mount over what a descriptor shows.
fn onto(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}
