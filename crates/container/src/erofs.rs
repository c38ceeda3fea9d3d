//! Mounting an EROFS image that is a plain file: by the kernel itself from 6.12 on, through a loop device before that.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::root::new_mount;
use crate::sys;

/// How often another loop device is asked for when somebody else was faster.
const LOOP_TRIES: u32 = 64;

/// Mounts an image read-only, attached nowhere yet.
pub(crate) fn mount(image: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match by_file(image) {
        // What kernels say that want a block device.
        Err(error) if error.raw_os_error() == Some(libc::ENOTBLK) => by_loop(image),
        result => result,
    }
}

fn by_file(image: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let source = format!("/proc/self/fd/{}", image.as_raw_fd());
    Ok(new_mount("erofs", &[("source", &source)], true)?)
}

/// Mounts through a loop device, which the kernel gives back when the mount goes.
fn by_loop(image: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("{error}; kernels before 6.12 need loop devices (module loop)"))
    };
    let control = File::options().read(true).write(true).open("/dev/loop-control").map_err(failed)?;
    for _ in 0..LOOP_TRIES {
        let device = format!("/dev/loop{}", sys::free_loop(control.as_fd()).map_err(failed)?);
        let opened = File::open(&device).map_err(failed)?;
        match sys::set_up_loop(opened.as_fd(), image) {
            // Somebody else has taken it in between.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(failed(error)),
            Ok(()) => return Ok(new_mount("erofs", &[("source", &device)], true)?),
        }
    }
    Err(io::Error::other("could not get a loop device: all were taken by others"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use basalt_depot::Depot;
    use basalt_model::{Bake, BakeFrom, BakeStep, ImageConfig};

    use super::*;

    /// Needs root and loop devices; without these only older kernels would miss something, and the test passes over it.
    #[test]
    fn both_ways_show_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        let file = BakeStep::file("/etc/motd", "hello", 0o644);
        let config = ImageConfig { env: BTreeMap::new(), ..ImageConfig::default() };
        let bake = Bake { from: BakeFrom::Scratch, steps: vec![file], config };
        let digest = depot.bake(&bake, None, &|_: &str, _, _| {}).unwrap();
        let image = File::open(depot.with_mount_points(&digest, &[], &[]).unwrap().erofs).unwrap();
        let names = |mount: OwnedFd| {
            let dir = rustix::fs::Dir::read_from(
                rustix::fs::openat(
                    mount,
                    ".",
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
                    rustix::fs::Mode::empty(),
                )
                .unwrap(),
            )
            .unwrap();
            let mut names: Vec<_> = dir.map(|e| e.unwrap().file_name().to_owned()).collect();
            names.sort();
            names
        };
        let expected = names(by_file(image.as_fd()).unwrap());
        assert!(expected.iter().any(|n| n.as_c_str() == c"etc"));
        match by_loop(image.as_fd()) {
            Ok(mount) => assert_eq!(names(mount), expected),
            Err(error) => eprintln!("passed over, no loop devices: {error}"),
        }
    }
}
