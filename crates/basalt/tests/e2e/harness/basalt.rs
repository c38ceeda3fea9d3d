//! The real binary, in a data directory and on a port of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::leftovers::{Machine, processes_of};
use super::{Stack, now, wait_until};

/// No verb in these tests takes longer; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tests that measure a whole machine run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Basalt on a data directory of its own. Dropping it ends everything that it has started.
pub struct Basalt {
    data: TempDir,
    http: SocketAddr,
    before: Machine,
    down: bool,
    _turn: MutexGuard<'static, ()>,
}

/// How a verb ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; `None` if a signal ended it or it hung.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Returns both streams.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}

impl Basalt {
    /// Returns a new one, with nothing running.
    pub fn new() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let http = super::free_address();
        let data = tempfile::Builder::new().prefix("basalt-e2e-").tempdir().unwrap();
        Self { data, http, before: Machine::look(), down: true, _turn: turn }
    }

    /// Has the gateway listen on all addresses of the machine.
    pub fn on_all_addresses(mut self) -> Self {
        self.http.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
        self
    }

    /// Returns where the gateway listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Returns a folder for the test's own files.
    pub fn folder(&self) -> PathBuf {
        let folder = self.data.path().join("stack");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Starts a verb.
    pub fn command(&self, arguments: &[&str]) -> Command {
        #[allow(clippy::disallowed_methods)] // the program under test
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.args(arguments).arg("--data").arg(self.data()).env("NO_COLOR", "1").env_remove("BASALT_DATA");
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with_input(arguments, "")
    }

    /// Runs a verb to its end, with this on its standard input.
    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let read = |mut from: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = from.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let out = read(Box::new(child.stdout.take().unwrap()));
        let err = read(Box::new(child.stderr.take().unwrap()));
        let started = now();
        let code = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if started.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        // A process that outlives the verb must not hold its output open: else this hangs, and rightly fails.
        Output { code, out: out.join().unwrap(), err: err.join().unwrap() }
    }

    /// Brings a stack up.
    pub fn up(&mut self, stack: &Stack) -> Output {
        let path = stack.write(&self.folder());
        self.up_path(&path, &[])
    }

    /// Brings up the stack at a path, with more arguments.
    pub fn up_path(&mut self, path: &Path, arguments: &[&str]) -> Output {
        self.down = false;
        let (path, http) = (path.display().to_string(), self.http.to_string());
        self.run(&[&["up", &path, "--http", &http], arguments].concat())
    }

    /// Returns the status.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--output", "json"]).expect(0);
        serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error} in {}", output.out))
    }

    /// Returns the status of a service.
    pub fn service(&self, name: &str) -> Value {
        let status = self.status();
        let services = status["services"].as_array().cloned().unwrap_or_default();
        services.into_iter().find(|service| service["name"] == name).unwrap_or(Value::Null)
    }

    /// Returns the number of the release of service `app` that is stable.
    pub fn stable(&self) -> Option<u64> {
        self.service("app")["stable"]["number"].as_u64()
    }

    /// Returns the instances of service `app`.
    pub fn instances(&self) -> Vec<Value> {
        self.instances_of("app")
    }

    /// Returns the instances of a service.
    pub fn instances_of(&self, service: &str) -> Vec<Value> {
        self.service(service)["instances"].as_array().cloned().unwrap_or_default()
    }

    /// Returns whether service `app` has so many instances, all healthy and of this release, and no other.
    pub fn serves(&self, release: u64, count: usize) -> bool {
        let instances = self.instances();
        let right = |instance: &Value| instance["release"] == release && instance["healthy"] == true;
        instances.len() == count && instances.iter().all(right)
    }

    /// Returns all events.
    pub fn events(&self) -> Vec<Value> {
        let output = self.run(&["events", "--output", "json"]).expect(0);
        output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the events of a kind.
    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// Asks the gateway for a path, and returns status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.http, path)
    }

    /// Returns the process of a role: `serve`, `keeper` or `gateway`.
    pub fn role(&self, role: &str) -> Option<u32> {
        let is_role = |command: &str| command.split(' ').nth(1) == Some(role);
        processes_of(&self.data()).into_iter().find(|(_, command)| is_role(command)).map(|(pid, _)| pid)
    }

    /// Kills a role with SIGKILL and waits until it runs again.
    #[track_caller]
    pub fn kill_role(&self, role: &str) {
        let pid = self.role(role).unwrap_or_else(|| panic!("no {role} runs"));
        kill(pid);
        wait_until(&format!("{role} runs again"), Duration::from_secs(20), || {
            self.role(role).is_some_and(|again| again != pid)
        });
    }

    /// Takes everything down.
    ///
    /// # Panics
    /// If anything of it is left: a process, a mount, a cgroup, a virtual interface, a route, a firewall table.
    #[track_caller]
    pub fn down(&mut self) {
        let meanwhile = Machine::look().since(&self.before).without_others(&self.mark());
        let pids: Vec<u64> = self.status()["services"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|service| service["instances"].as_array().cloned().unwrap_or_default())
            .filter_map(|instance| instance["pid"].as_u64())
            .collect();
        self.run(&["down"]).expect(0);
        self.down = true;
        let left = || {
            let mut left = Machine::look().both(&meanwhile);
            left.extend(
                processes_of(&self.data()).into_iter().map(|(pid, command)| format!("process: {pid} {command}")),
            );
            let alive = pids.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
            left.extend(alive.map(|pid| format!("instance: {pid}")));
            left
        };
        // `down` has waited for the end of everything; only the kernel's own tidying may take a moment more.
        let started = now();
        while !left().is_empty() && started.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(left(), Vec::<String>::new(), "left behind by `down`");
    }

    /// Takes everything down without looking for what is left.
    #[allow(dead_code)] // for the bench, beside which other things run
    #[track_caller]
    pub fn stop(&mut self) {
        self.run(&["down"]).expect(0);
        self.down = true;
    }

    /// Returns what the names of this data directory's cgroups, interfaces and firewall table have in them.
    fn mark(&self) -> String {
        let text = std::fs::read_to_string(self.data().join("network.json")).unwrap_or_default();
        let network: Value = serde_json::from_str(&text).unwrap_or_default();
        network["tag"].as_str().unwrap_or_default().to_owned()
    }

    /// Prints what helps to understand a failure.
    fn explain(&self) {
        for verb in [&["status"][..], &["events"], &["logs", "--tail", "40"]] {
            let output = self.run(verb);
            let lines: Vec<&str> = output.out.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- basalt {}\n{last}\n{}", verb.join(" "), output.err);
        }
        for entry in std::fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("--- {}\n{last}", entry.path().display());
            }
        }
    }
}

impl Drop for Basalt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        if !self.down {
            let output = self.run(&["down"]);
            if output.code != Some(0) {
                eprintln!("--- basalt down\n{}", output.text());
            }
        }
        for (pid, _) in processes_of(self.data.path()) {
            kill(pid);
        }
    }
}

/// Kills a process with SIGKILL.
pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Asks a server for a path, and returns status and body; status 0 is no answer.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    match ask() {
        Ok(answer) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            (status, body.to_owned())
        }
        Err(error) => (0, error.to_string()),
    }
}
