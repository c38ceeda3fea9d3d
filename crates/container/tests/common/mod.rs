//! A keeper of its own for each test, with a real depot and a busybox image. Needs root.

#![allow(dead_code, clippy::disallowed_methods)] // Tests run programs and wait.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use basalt_container::{KeeperBackend, keeper_socket, network};
use basalt_depot::Depot;
use basalt_model::{
    Bake, BakeFrom, BakeStep, Digest, Exit, Health, ImageConfig, InstanceId, Kind, Limits, Millis, Release,
};
use basalt_seam::{Backend, BackendInstance, BackendState, InstanceAction, StartInstance, StartSecret};

/// A data directory with a keeper.
pub struct Machine {
    pub data: PathBuf,
    pub backend: Arc<KeeperBackend>,
    keeper: Option<Child>,
    runtime: tokio::runtime::Runtime,
    depot: Depot,
    image: Digest,
    roles: Vec<String>,
    network: network::Network,
    _dir: tempfile::TempDir,
}

/// Returns the steps of the image that tests use.
fn steps_of_image() -> Vec<BakeStep> {
    let copy = BakeStep::copy("/bin/busybox", "/bin/busybox");
    let file = |path: &str, content: &str| BakeStep::file(path, content, 0o644);
    let link = |name: &str| BakeStep::Link { path: format!("/bin/{name}"), to: "busybox".into() };
    let mut steps = vec![
        copy,
        file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/var/www:/bin/sh\n"),
        file("/etc/group", "root:x:0:\nwww:x:34:\nlog:x:4:www\n"),
        file("/tmp/.keep", ""),
    ];
    steps.extend(
        [
            "sh", "sleep", "cat", "mount", "id", "nc", "wget", "dd", "cp", "ls", "httpd", "touch", "stat", "kill",
            "test", "grep", "echo", "true", "false", "ip", "hostname", "tail", "unshare", "ps", "tr", "head", "df",
        ]
        .map(link),
    );
    steps
}

/// Returns the program with this crate's verbs.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/keeperd")
}

impl Machine {
    pub fn new() -> Self {
        Self::with_roles(&[])
    }

    pub fn with_roles(roles: &[&str]) -> Self {
        Self::with_keeper(roles, None)
    }

    /// Returns a machine whose keeper is started with a soft limit of open files.
    pub fn with_few_files(files: u32) -> Self {
        Self::with_keeper(&[], Some(files))
    }

    fn with_keeper(roles: &[&str], files: Option<u32>) -> Self {
        let dir = tempfile::Builder::new().prefix("container-test-").tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let depot = Depot::open(&data.join("depot")).unwrap();
        let steps = steps_of_image();
        let bake = Bake { from: BakeFrom::Scratch, steps, config: ImageConfig::default() };
        let image = depot.bake(&bake, None, &|_: &str, _, _| {}).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let roles: Vec<String> = roles.iter().map(|r| (*r).to_owned()).collect();
        let keeper = spawn(&data, &roles, files);
        let network = network::network(&data).unwrap();
        let backend = {
            let _inside = runtime.enter();
            KeeperBackend::connect(keeper_socket(&data), Arc::new(|| {}), Arc::new(|| {}))
        };
        let machine = Self { data, backend, keeper: Some(keeper), runtime, depot, image, roles, network, _dir: dir };
        machine.until("the keeper is there", |m| m.backend.seen().connected);
        machine
    }

    /// Bakes an image of a single program.
    pub fn bake_with(&self, program: &Path, to: &str) -> Digest {
        let copy = BakeStep::copy_with_mode(program, to, 0o755);
        let bake = Bake { from: BakeFrom::Scratch, steps: vec![copy], config: ImageConfig::default() };
        self.depot.bake(&bake, None, &|_: &str, _, _| {}).unwrap()
    }

    /// Bakes the image that tests use with something more in it.
    pub fn bake_more(&self, steps: &[BakeStep]) -> Digest {
        let mut all = steps_of_image();
        all.extend_from_slice(steps);
        let bake = Bake { from: BakeFrom::Scratch, steps: all, config: ImageConfig::default() };
        self.depot.bake(&bake, None, &|_: &str, _, _| {}).unwrap()
    }

    pub fn release(&self, script: &str) -> Release {
        Release {
            kind: Kind::Service,
            image: self.image,
            command: Some(vec!["/bin/sh".into(), "-c".into(), script.into()]),
            env: BTreeMap::from([("GREETING".into(), "hello".into())]),
            user: None,
            workdir: None,
            ports: BTreeMap::new(),
            configs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            env_secrets: BTreeMap::new(),
            scratch: vec!["/tmp".into()],
            volumes: BTreeMap::new(),
            limits: Limits::default(),
            capabilities: vec![],
            egress: false,
            connects_to: vec![],
            health: Health::default(),
            routes: vec![],
        }
    }

    pub fn order(&self, id: &str, generation: u64, release: Release) -> StartInstance {
        let mut dirs = release.scratch.clone();
        dirs.extend(release.volumes.keys().cloned());
        let mut files: Vec<String> = release.configs.keys().cloned().collect();
        files.extend(release.secrets.keys().cloned());
        StartInstance {
            secret_env: Default::default(),
            id: id.parse().unwrap(),
            generation,
            image: self.depot.with_mount_points(&release.image, &dirs, &files).unwrap(),
            secrets: release
                .secrets
                .keys()
                .map(|path| StartSecret {
                    path: path.clone(),
                    content: basalt_seam::SecretBytes::new(b"s3cr3t-in-clear".to_vec()),
                    mode: 0o400,
                })
                .collect(),
            release: Arc::new(release),
            hosts: vec![("api.internal".into(), Ipv4Addr::new(10, 64, 0, 9))],
            reaches: vec![],
        }
    }

    pub fn start(&self, id: &str, generation: u64, release: Release) {
        self.perform(InstanceAction::Start(Box::new(self.order(id, generation, release))));
        let shown = self.instance(id).expect("a start is seen at once");
        assert!(shown.generation >= generation);
    }

    pub fn perform(&self, action: InstanceAction) {
        self.backend.perform(action);
    }

    pub fn stop(&self, id: &str, generation: u64, within: Millis) {
        self.perform(InstanceAction::Stop { id: id.parse().unwrap(), generation, within });
    }

    pub fn forget(&self, id: &str, generation: u64) {
        self.perform(InstanceAction::Forget { id: id.parse().unwrap(), generation });
        self.until("it is forgotten", |m| m.instance(id).is_none());
    }

    pub fn instance(&self, id: &str) -> Option<BackendInstance> {
        self.backend.seen().instances.get(&id.parse::<InstanceId>().unwrap()).cloned()
    }

    /// Waits until an instance runs; returns its process and address.
    pub fn running(&self, id: &str) -> (u32, Ipv4Addr) {
        self.until(&format!("{id} runs"), |m| {
            if let Some(BackendInstance { state: BackendState::Ended { exit, last_lines, .. }, .. }) = m.instance(id) {
                panic!("{id} {exit}: {last_lines:?}");
            }
            matches!(m.instance(id).map(|i| i.state), Some(BackendState::Running { .. }))
        });
        let instance = self.instance(id).unwrap();
        let BackendState::Running { pid, .. } = instance.state else { panic!("it has ended meanwhile") };
        (pid, instance.address.unwrap())
    }

    /// Waits until an instance has ended; returns how, and its last lines.
    pub fn ended(&self, id: &str) -> (Exit, Vec<String>) {
        self.until(&format!("{id} has ended"), |m| {
            matches!(m.instance(id).map(|i| i.state), Some(BackendState::Ended { .. }))
        });
        match self.instance(id).unwrap().state {
            BackendState::Ended { exit, last_lines, .. } => (exit, last_lines),
            _ => panic!("an end is final"),
        }
    }

    /// Runs a script in an instance to its end and returns its output.
    pub fn output(&self, release: Release) -> Vec<String> {
        self.start("job-1-1", 1, release);
        let (exit, lines) = self.ended("job-1-1");
        assert_eq!(exit, Exit::Code(0), "{lines:?}");
        self.forget("job-1-1", 1);
        lines
    }

    pub fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !met(self) {
            assert!(Instant::now() < end, "not in time: {what}; seen: {:?}", self.backend.seen());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills the keeper as hard as can be, and waits until that is noticed.
    pub fn kill_keeper(&mut self) {
        let mut keeper = self.keeper.take().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        self.until("its end is noticed", |m| !m.backend.seen().connected);
    }

    pub fn start_keeper(&mut self) {
        self.keeper = Some(spawn(&self.data, &self.roles, None));
        self.until("the keeper is there again", |m| m.backend.seen().connected);
    }

    /// Returns the keeper's process.
    pub fn keeper(&self) -> u32 {
        self.keeper.as_ref().unwrap().id()
    }

    pub fn network(&self) -> network::Network {
        self.network.clone()
    }

    pub fn shutdown(&mut self) -> std::io::Result<()> {
        let done = self.runtime.block_on(basalt_container::shutdown(&self.data));
        if done.is_ok()
            && let Some(mut keeper) = self.keeper.take()
        {
            assert!(keeper.wait().unwrap().success());
        }
        done
    }

    /// Stops everything, and finds nothing left of it on the machine.
    pub fn finish(mut self) {
        for (id, instance) in &self.backend.seen().instances {
            self.perform(InstanceAction::Stop {
                id: id.clone(),
                generation: instance.generation,
                within: Millis::ZERO,
            });
        }
        self.until("all have ended", |m| {
            m.backend.seen().instances.values().all(|i| matches!(i.state, BackendState::Ended { .. }))
        });
        let tag = self.tag();
        self.shutdown().unwrap();
        assert_eq!(self.leftovers(&tag), Vec::<String>::new());
    }

    /// Returns which of the machine's networks it has.
    pub fn network_number(&self) -> u64 {
        let text = std::fs::read_to_string(self.data.join("network.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["number"].as_u64().unwrap()
    }

    pub fn tag(&self) -> String {
        let text = std::fs::read_to_string(self.data.join("network.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["tag"].as_str().unwrap().to_owned()
    }

    /// Returns everything on the machine that bears the name of this data directory.
    pub fn leftovers(&self, tag: &str) -> Vec<String> {
        let mut left = Vec::new();
        for command in ["ip -o link", "nft list tables", "ip route show table all"] {
            let base = self.network().services().0.to_string();
            let text = sh(command);
            left.extend(
                text.lines()
                    .filter(|l| l.contains(tag) || l.contains(&format!("{base}/20")))
                    .map(|l| format!("{command}: {l}")),
            );
        }
        left.extend(
            sh(&format!("ls -d /sys/fs/cgroup/basalt-{tag} /sys/fs/cgroup/*/basalt-{tag} 2>/dev/null"))
                .lines()
                .map(str::to_owned),
        );
        let data = self.data.to_string_lossy().into_owned();
        left.extend(sh("cat /proc/self/mountinfo").lines().filter(|l| l.contains(&data)).map(str::to_owned));
        left.extend(processes(&data));
        left.extend(std::fs::read_dir(self.data.join("run")).unwrap().map(|e| format!("{:?}", e.unwrap().path())));
        left
    }
}

impl Drop for Machine {
    /// After a failure: everything of this test goes.
    fn drop(&mut self) {
        let tag = self.tag();
        for _ in 0..20 {
            for file in sh(&format!("cat /sys/fs/cgroup/basalt-{tag}/*/cgroup.procs /sys/fs/cgroup/*/basalt-{tag}/*/cgroup.procs 2>/dev/null")).lines() {
                sh(&format!("kill -9 {file} 2>/dev/null"));
            }
            if let Some(mut keeper) = self.keeper.take() {
                std::thread::sleep(Duration::from_millis(100));
                let _ = keeper.kill();
                let _ = keeper.wait();
            }
        }
        for role in &self.roles {
            if let Ok(pid) = std::fs::read_to_string(self.data.join(format!("run/{role}.pid"))) {
                sh(&format!("kill -9 {} 2>/dev/null", pid.trim()));
            }
        }
        sh(&format!("nft delete table inet basalt_{tag} 2>/dev/null"));
        // Once the claim is given back, another machine may have the network.
        let claim = format!("/run/basalt/networks/{}", self.network_number());
        if std::fs::read(claim).is_ok_and(|data| data == self.data.as_os_str().as_encoded_bytes()) {
            let (services, prefix) = self.network().services();
            sh(&format!("ip route del local {services}/{prefix} dev lo 2>/dev/null"));
            sh(&format!("ip route del unreachable {services}/16 2>/dev/null"));
        }
        sh(&format!("for l in $(ip -o link | grep -o 'b{tag}-[0-9]*' | sort -u); do ip link del $l; done 2>/dev/null"));
        sh(&format!("find /sys/fs/cgroup -depth -type d -path '*basalt-{tag}*' -exec rmdir {{}} \\; 2>/dev/null"));
    }
}

fn spawn(data: &Path, roles: &[String], files: Option<u32>) -> Child {
    let limit = files.map(|files| format!("ulimit -Sn {files};")).unwrap_or_default();
    let script = format!("{limit} exec \"$0\" keeper \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(program()).arg(data).args(roles).stdin(Stdio::null()).spawn().unwrap()
}

/// Runs a line of shell and returns its output.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns processes whose command line names a path, but for this one.
fn processes(path: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let pids = entries.filter(|n| n.bytes().all(|b| b.is_ascii_digit()) && *n != own);
    pids.filter_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?.replace('\0', " ");
        line.contains(path).then(|| format!("process {pid}: {line}"))
    })
    .collect()
}
