//! The root of a sandbox: the image's, with a directory of this machine over it that takes every change.
//!
//! Owners are mapped on the way, so that a file written by the sandbox's root is root's on this machine too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use basalt_model::Tools;
use basalt_seam::SandboxRun;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
};

use super::child::FIRST_ID;
use super::devices::{Devices, mount_devices, mount_kernel};
use crate::erofs;
use crate::root::{PRIVATE, RootError, at, attach, clone_mount, make_dir, new_mount, read_within};
use crate::sys;

/// Where the image's root is for this machine's programs.
const IMAGE: &str = "/image";

/// Directories of this machine that its programs are made of, besides `/usr` and `/etc`; links on merged systems.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What this machine's programs may leave in memory (`/tmp`, `/run`, `/root`): a bootstrapper's downloads lie in the image.
const MACHINE_SIZE: &str = "1g";

/// What is taken from the host before its mount namespace is left.
#[derive(Debug)]
pub(super) struct Sources {
    erofs: OwnedFd,
    objects: OwnedFd,
    work: OwnedFd,
    inputs: Vec<(String, OwnedFd)>,
    programs: Vec<(String, Program)>,
    devices: Devices,
    files: Vec<(&'static str, String)>,
}

/// A directory of this machine's programs.
#[derive(Debug)]
enum Program {
    Directory(OwnedFd),
    Link(PathBuf),
}

impl Sources {
    pub(super) fn open(run: &SandboxRun) -> Result<Self, RootError> {
        for dir in ["upper", "work"] {
            make_dir(&run.work.join(dir))?;
        }
        let erofs = rustix::fs::open(&run.image.erofs, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let inputs = run.inputs.iter().map(|(name, path)| Ok((name.clone(), clone_mount(path)?)));
        let programs = match run.tools {
            Tools::Image => Vec::new(),
            Tools::Machine => programs()?,
        };
        Ok(Self {
            erofs: erofs.map_err(at(format!("could not open image `{}`", run.image.erofs.display())))?,
            objects: clone_mount(&run.image.objects)?,
            work: clone_mount(&run.work)?,
            inputs: inputs.collect::<Result<_, _>>()?,
            programs,
            devices: Devices::open()?,
            files: files(run.network),
        })
    }
}

fn programs() -> Result<Vec<(String, Program)>, RootError> {
    let mut programs = Vec::new();
    for name in ["usr", "etc"].into_iter().chain(PROGRAMS) {
        let path = Path::new("/").join(name);
        match std::fs::read_link(&path) {
            Ok(target) => programs.push((name.to_owned(), Program::Link(target))),
            Err(_) if path.is_dir() => programs.push((name.to_owned(), Program::Directory(clone_mount(&path)?))),
            Err(_) => {}
        }
    }
    Ok(programs)
}

/// Returns what is mounted over the files that name this machine and others.
fn files(network: bool) -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (hosts, resolver) = if network {
        (read("/etc/hosts"), read("/etc/resolv.conf"))
    } else {
        ("127.0.0.1 localhost\n::1 localhost\n".to_owned(), String::new())
    };
    vec![("/etc/hosts", hosts), ("/etc/resolv.conf", resolver), ("/etc/hostname", "bake\n".to_owned())]
}

/// A mounted root, seen from the sandbox's outer process.
#[derive(Debug)]
pub(super) struct SandboxRoot {
    devices: Devices,
    inputs: Vec<(String, OwnedFd)>,
    programs: Vec<(String, Program)>,
    files: Vec<(&'static str, PathBuf)>,
}

impl SandboxRoot {
    /// Leaves the host's mount namespace, and mounts the image with the changes over it at [`SandboxRoot::image`].
    pub(super) fn mount(sources: Sources, userns: BorrowedFd<'_>) -> Result<Self, RootError> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(at("could not make a mount namespace"))?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(at("could not make the mount namespace private"))?;
        let Sources { erofs, objects, work, inputs, programs, devices, files } = sources;
        let (shut, closed) = (sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV, sys::MOUNT_READ_ONLY);
        let erofs = erofs::mount(erofs.as_fd()).map_err(at("could not mount the image (EROFS)"))?;
        let map = |mount: &OwnedFd, set: u64, what: &str| {
            sys::set_mount(mount.as_fd(), set | shut, Some(userns)).map_err(at(format!("could not map {what}")))
        };
        map(&erofs, closed, "the owners of the image")?;
        map(&objects, closed, "the owners of the objects")?;
        map(&work, 0, "the owners of what it writes")?;
        for (name, input) in &inputs {
            map(input, closed, &format!("the owners of `{name}`"))?;
        }
        for (name, program) in &programs {
            if let Program::Directory(mount) = program {
                // Not mapped: of this machine's files it sees what everybody may.
                sys::set_mount(mount.as_fd(), closed | shut, None)
                    .map_err(at(format!("could not make `/{name}` read-only")))?;
            }
        }

        let private = new_mount("tmpfs", &[("size", MACHINE_SIZE), ("mode", "0755")], false);
        attach(private.map_err(at("could not mount a tmpfs"))?.as_fd(), Path::new(PRIVATE))?;
        let place = |name: &str, mount: &OwnedFd| {
            let path = Path::new(PRIVATE).join(name);
            make_dir(&path)?;
            attach(mount.as_fd(), &path)
        };
        place("erofs", &erofs)?;
        place("objects", &objects)?;
        place("work", &work)?;
        // The kernel keeps its own notes beside the changes as who mounts, and must be somebody whom the mapping knows.
        let root = sys::as_file_owner(FIRST_ID, overlay).map_err(at("could not mount the root (overlay)"))?;
        let root = root.map_err(at("could not mount the root (overlay)"))?;
        sys::set_mount(root.as_fd(), shut, None).map_err(at("could not close the root"))?;
        place("image", &root)?;
        make_dir(&Path::new(PRIVATE).join("files"))?;
        let written = files.into_iter().enumerate().map(|(n, (to, text))| {
            let path = Path::new(PRIVATE).join("files").join(n.to_string());
            std::fs::write(&path, text).map_err(at(format!("could not write `{to}`")))?;
            Ok((to, path))
        });
        let files = written.collect::<Result<_, _>>()?;
        Ok(Self { devices, inputs, programs, files })
    }

    /// Returns where the image's root is mounted, with all changes.
    pub(super) fn image(&self) -> PathBuf {
        Path::new(PRIVATE).join("image")
    }

    /// Returns the directory of changes.
    pub(super) fn upper(&self) -> PathBuf {
        Path::new(PRIVATE).join("work/upper")
    }

    /// Reads a small file of the image. Absent is empty.
    pub(super) fn read(&self, path: &str) -> Result<String, RootError> {
        let root = std::fs::File::open(self.image()).map_err(at("could not open the root"))?;
        read_within(root.as_fd(), path)
    }

    /// Makes the program's root the root of this process, which has a mount namespace and a pid namespace of its own.
    ///
    /// Everything is mounted from within, so that no link of an image leads out of it.
    pub(super) fn enter(self, run: &SandboxRun) -> Result<(), RootError> {
        let image = self.image();
        let files = self.files.iter().map(|(to, from)| Ok((*to, clone_mount(from)?))).collect::<Result<Vec<_>, _>>()?;
        let again = self.files.iter().map(|(to, from)| Ok((*to, clone_mount(from)?))).collect::<Result<Vec<_>, _>>()?;
        match run.tools {
            Tools::Image => {
                pivot(&image)?;
                mount_devices(&self.devices, &self.inputs)?;
                mount_kernel("")?;
                mount_files("", &files)
            }
            Tools::Machine => {
                let image = clone_mount(&image)?;
                let root = new_mount("tmpfs", &[("size", MACHINE_SIZE), ("mode", "0755")], false)
                    .map_err(at("could not mount a tmpfs"))?;
                let outside = Path::new(PRIVATE).join("machine");
                make_dir(&outside)?;
                attach(root.as_fd(), &outside)?;
                pivot(&outside)?;
                self.machine(&image)?;
                mount_devices(&self.devices, &self.inputs)?;
                mount_kernel("")?;
                mount_files("", &files)?;
                if Path::new(IMAGE).join("proc").is_dir() && Path::new(IMAGE).join("dev").is_dir() {
                    mount_kernel(IMAGE)?;
                    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                    let dev = open_tree(CWD, "/dev", flags | OpenTreeFlags::AT_RECURSIVE);
                    let dev = dev.map_err(at("could not mount its devices a second time"))?;
                    attach(dev.as_fd(), &Path::new(IMAGE).join("dev"))?;
                    mount_files(IMAGE, &again)?;
                }
                Ok(())
            }
        }
    }

    /// Lays out a root of this machine's programs.
    fn machine(&self, image: &OwnedFd) -> Result<(), RootError> {
        for (name, program) in &self.programs {
            let path = Path::new("/").join(name);
            match program {
                Program::Directory(mount) => {
                    make_dir(&path)?;
                    attach(mount.as_fd(), &path)?;
                }
                Program::Link(target) => std::os::unix::fs::symlink(target, &path)
                    .map_err(at(format!("could not make the link `{}`", path.display())))?,
            }
        }
        for dir in ["/dev", "/proc", "/sys", "/var", "/var/lib", "/var/cache", IMAGE] {
            make_dir(Path::new(dir))?;
        }
        for dir in ["/tmp", "/run", "/root", "/var/tmp"] {
            make_dir(Path::new(dir))?;
            std::os::unix::fs::chown(dir, Some(FIRST_ID), Some(FIRST_ID))
                .map_err(at(format!("could not give away `{dir}`")))?;
        }
        attach(image.as_fd(), Path::new(IMAGE))
    }
}

/// Mounts the image with the changes over it. What is written need not survive a crash: the caller throws it away then.
fn overlay() -> rustix::io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let options = [
        ("source", "basalt".to_owned()),
        ("lowerdir", format!("{PRIVATE}/erofs::{PRIVATE}/objects")),
        ("upperdir", format!("{PRIVATE}/work/upper")),
        ("workdir", format!("{PRIVATE}/work/work")),
        ("metacopy", "on".to_owned()),
        ("redirect_dir", "on".to_owned()),
        ("index", "off".to_owned()),
    ];
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), key, &value)?;
    }
    fsconfig_set_flag(fs.as_fd(), "volatile")?;
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Changes the root of the mount namespace, and lets go of the old one.
fn pivot(root: &Path) -> Result<(), RootError> {
    let failed = || "could not change the root";
    let all = || -> io::Result<()> {
        std::env::set_current_dir(root)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        std::env::set_current_dir("/")
    };
    all().map_err(at(failed()))
}

/// Mounts files over those of a root; where a link leads nowhere, its target is made.
fn mount_files(root: &str, files: &[(&str, OwnedFd)]) -> Result<(), RootError> {
    for (to, mount) in files {
        let path = PathBuf::from(format!("{root}{to}"));
        if path.is_file() {
            sys::set_mount(mount.as_fd(), sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV, None)
                .map_err(at(format!("could not make `{to}` read-only")))?;
            attach(mount.as_fd(), &path)?;
        } else if let Ok(target) = std::fs::read_link(&path)
            && root.is_empty()
            && let Ok(rest) = Path::new("/etc").join(target).strip_prefix("/")
        {
            // On machines with systemd-resolved the file is a link into /run, which is the sandbox's own and empty.
            let target = Path::new("/").join(rest);
            let made =
                target.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&target, ""));
            made.map_err(at(format!("could not make `{}`", target.display())))?;
            attach(mount.as_fd(), &target)?;
        }
    }
    Ok(())
}
