//! A Docker daemon of its own, started for the rows that need it and stopped after them.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{test_app, wait_until};
use crate::measure::{command, output, run};

/// A running daemon. It makes no network of its own, which spares it work that Basalt does.
pub struct Docker {
    folder: TempDir,
    daemon: Child,
}

impl Docker {
    /// Starts a daemon with an image `app` that holds the test app.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
        let at = folder.path().display();
        let daemon = command(&format!(
            "dockerd --data-root {at}/root --exec-root {at}/exec --pidfile {at}/pid -H unix://{at}/sock \
             --bridge=none --iptables=false --ip6tables=false --log-level=error"
        ))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        let docker = Self { folder, daemon };
        wait_until("dockerd answers", Duration::from_secs(30), || output(&docker.line("info")).status.success());
        let root: PathBuf = docker.folder.path().join("image");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::copy(test_app(), root.join("app")).unwrap();
        run(&format!("tar -C {} -cf {at}/image.tar app", root.display(), at = docker.folder.path().display()));
        run(&docker.line(&format!("import {}/image.tar app", docker.folder.path().display())));
        docker
    }

    /// Returns the folder of all that it keeps.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Runs `docker` with these arguments.
    pub fn run(&self, arguments: &str) -> String {
        run(&self.line(arguments))
    }

    /// Returns the process ids of dockerd and its containerd.
    pub fn pids(&self) -> Vec<u32> {
        let children = run(&format!("cat /proc/{0}/task/{0}/children", self.daemon.id()));
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(self.daemon.id()).chain(children).collect()
    }

    fn line(&self, arguments: &str) -> String {
        format!("docker -H unix://{}/sock {arguments}", self.folder.path().display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let ids = String::from_utf8_lossy(&output(&self.line("ps -aq")).stdout).replace('\n', " ");
        if !ids.trim().is_empty() {
            output(&self.line(&format!("rm -f {ids}")));
        }
        output(&format!("kill {}", self.daemon.id()));
        let _ = self.daemon.wait();
        // What it leaves: a mounted network namespace, and its cgroups.
        output(&format!("umount {}/exec/netns/default", self.folder.path().display()));
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(controller.path().join("docker"));
        }
    }
}
