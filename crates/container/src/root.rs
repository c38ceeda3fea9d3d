//! The root of an instance: mounts in a private mount namespace, so that nothing is left on the host when it ends.
//!
//! All of it lies on a tmpfs over `/run`, which the instance's user can reach while its data directory stays closed to it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use basalt_seam::PinnedImage;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::user::IDS;
use crate::{erofs, sys};

/// Where the private tmpfs is: a directory that every Linux system has (FHS 3.0) and everybody may pass through.
pub(crate) const PRIVATE: &str = "/run";

/// How much the private tmpfs may hold: configs and secrets of one instance; a program error must not fill the memory.
const PRIVATE_SIZE: &str = "64m";

/// The longest `/etc/passwd` or `/etc/group` that is read from an image.
const LONGEST_USERS: u64 = 1 << 20;

/// A step that failed, with what it was.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct RootError {
    what: String,
    #[source]
    source: io::Error,
}

/// Names what was being done when it failed.
pub(crate) fn at<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> RootError {
    let what = what.into();
    |source| RootError { what, source: source.into() }
}

/// What is taken from the host before its mount namespace is left: the image's file, and mounts of directories.
#[derive(Debug)]
pub(crate) struct Sources {
    erofs: OwnedFd,
    objects: OwnedFd,
    volumes: Vec<(String, OwnedFd)>,
}

impl Sources {
    /// Opens the image and the volumes (path in the instance, directory on the host).
    pub(crate) fn open(image: &PinnedImage, volumes: &[(String, PathBuf)]) -> Result<Self, RootError> {
        let erofs = rustix::fs::open(&image.erofs, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let erofs = erofs.map_err(at(format!("could not open image `{}`", image.erofs.display())))?;
        let objects = clone_mount(&image.objects)?;
        let volumes =
            volumes.iter().map(|(to, from)| Ok((to.clone(), clone_mount(from)?))).collect::<Result<_, _>>()?;
        Ok(Self { erofs, objects, volumes })
    }
}

/// Writes the map of a new user namespace: ids 0 to 65535 are the host's from `first` on. `process` is in it.
pub(crate) fn map_ids(process: i32, first: u32) -> io::Result<()> {
    let map = format!("0 {first} {IDS}");
    std::fs::write(format!("/proc/{process}/uid_map"), &map)?;
    std::fs::write(format!("/proc/{process}/gid_map"), &map)
}

/// A root that is attached nowhere yet.
#[derive(Debug)]
pub(crate) struct Root {
    /// The root itself.
    pub(crate) tree: OwnedFd,
    /// Mounts for volumes: path in the instance, and the mount.
    pub(crate) volumes: Vec<(String, OwnedFd)>,
}

impl Root {
    /// Leaves the host's mount namespace, covers [`PRIVATE`] with a tmpfs and mounts the root of an instance.
    pub(crate) fn mount(sources: Sources, userns: BorrowedFd<'_>) -> Result<Self, RootError> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).map_err(at("could not make a mount namespace"))?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(at("could not make the mount namespace private"))?;
        let fixed = sys::MOUNT_READ_ONLY | sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV;

        let erofs = erofs::mount(sources.erofs.as_fd()).map_err(at("could not mount the image (EROFS)"))?;
        sys::set_mount(erofs.as_fd(), fixed, Some(userns)).map_err(at("could not map the owners of the image"))?;
        let objects = sources.objects;
        sys::set_mount(objects.as_fd(), fixed, Some(userns)).map_err(at("could not map the owners of the objects"))?;
        for (to, mount) in &sources.volumes {
            let set = sys::MOUNT_NO_EXEC | sys::MOUNT_NO_SUID | sys::MOUNT_NO_DEV;
            sys::set_mount(mount.as_fd(), set, Some(userns))
                .map_err(at(format!("could not map the owners of the volume for `{to}`")))?;
        }

        let private = new_mount("tmpfs", &[("size", PRIVATE_SIZE), ("mode", "0755")], false);
        let private = private.map_err(at("could not mount a tmpfs"))?;
        attach(private.as_fd(), Path::new(PRIVATE))?;
        for (name, mount) in [("image", &erofs), ("objects", &objects)] {
            let path = Path::new(PRIVATE).join(name);
            make_dir(&path)?;
            attach(mount.as_fd(), &path)?;
        }
        let tree = overlay("::")
            .or_else(|error| match error {
                // Before 6.5 a layer of contents alone is one like any other; the image hides its directories.
                rustix::io::Errno::INVAL => overlay(":"),
                error => Err(error),
            })
            .map_err(at("could not mount the root (overlay)"))?;
        sys::set_mount(tree.as_fd(), fixed, None).map_err(at("could not make the root read-only"))?;
        Ok(Self { tree, volumes: sources.volumes })
    }

    /// Reads a small file of the root, following links only beneath it. Absent is empty.
    pub(crate) fn read(&self, path: &str) -> Result<String, RootError> {
        read_within(self.tree.as_fd(), path)
    }
}

/// Reads a small file of a root, following links only beneath it. Absent is empty.
pub(crate) fn read_within(root: BorrowedFd<'_>, path: &str) -> Result<String, RootError> {
    let failed = || format!("could not read `{path}` of the image");
    let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let relative = path.trim_start_matches('/');
    let file = match rustix::fs::openat2(root, relative, how, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(at(failed())(error)),
    };
    if !file.metadata().map_err(at(failed()))?.is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_USERS).read_to_end(&mut bytes).map_err(at(failed()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lays the image over its objects; `between` is what overlayfs wants between the two.
fn overlay(between: &str) -> rustix::io::Result<OwnedFd> {
    let layers = format!("{PRIVATE}/image{between}{PRIVATE}/objects");
    let options = [("source", "basalt"), ("lowerdir", layers.as_str()), ("metacopy", "on"), ("redirect_dir", "on")];
    new_mount("overlay", &options, true)
}

/// Makes a directory that everybody may pass through.
pub(crate) fn make_dir(path: &Path) -> Result<(), RootError> {
    DirBuilder::new().mode(0o755).create(path).map_err(at(format!("could not make `{}`", path.display())))
}

/// Makes a file system and a mount of it that is attached nowhere yet.
pub(crate) fn new_mount(kind: &str, options: &[(&str, &str)], read_only: bool) -> rustix::io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, *value)?;
    }
    if read_only {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), "ro")?;
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Makes a mount of a directory or file that is not attached anywhere yet. Works only in the mount namespace of the directory.
pub(crate) fn clone_mount(dir: &Path) -> Result<OwnedFd, RootError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, dir, flags).map_err(at(format!("could not mount `{}`", dir.display())))
}

/// Attaches a mount to a path.
pub(crate) fn attach(mount: BorrowedFd<'_>, to: &Path) -> Result<(), RootError> {
    move_mount(mount, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(at(format!("could not attach a mount to `{}`", to.display())))
}
