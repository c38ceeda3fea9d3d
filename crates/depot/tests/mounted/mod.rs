//! An image mounted as a root: the EROFS file by itself, and over it and the objects a read-only overlay.

use std::path::{Path, PathBuf};
use std::process::Command;

use basalt_seam::PinnedImage;

pub struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    pub fn new(image: &PinnedImage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["erofs", "root"] {
            std::fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let erofs = dir.path().join("erofs");
        run(&["-t", "erofs", "-o", "ro"], &image.erofs, &erofs);
        let mounted = Self { dir };
        let lower = format!("lowerdir={}::{},metacopy=on,redirect_dir=on", erofs.display(), image.objects.display());
        run(&["-t", "overlay", "-o", &lower], Path::new("overlay"), &mounted.path());
        mounted
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    #[allow(dead_code, reason = "not every test lists")]
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path().join(path)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for sub in ["root", "erofs"] {
            let _ = rustix::mount::unmount(self.dir.path().join(sub), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "mount(8) finds a loop device where the kernel needs one")]
fn run(options: &[&str], what: &Path, target: &Path) {
    let status = Command::new("mount").args(options).arg(what).arg(target).status().unwrap();
    assert!(status.success(), "mount {options:?}");
}
