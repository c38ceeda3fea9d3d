//! Other people's clients at the gateway, and servers of theirs behind it: gRPC, WebSocket, Python, Node, curl, a browser.

mod grpc;
mod web;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::edge::sh;

/// No script takes longer; one that does hangs, and is ended.
const SECONDS: &str = "60";

/// Returns the folder of this file.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients")
}

/// Returns the folder of the Python packages that clients and servers are written with; installed once and then kept.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/clients");
        sh(&format!("{} {}", script.display(), folder.display()));
        folder.join("packages")
    })
}

/// Returns an OCI archive with Debian's Python and nothing that it does not need; made once and then kept.
fn python() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        let archive = folder.join("python.tar");
        if !archive.exists() {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            // Device nodes are refused in images; a runtime brings its own.
            sh(&format!(
                "cd {}
                mmdebstrap --quiet --variant=extract --include=python3-minimal,libpython3-stdlib,libstdc++6 bookworm root.tar
                tar --delete --wildcards -f root.tar './dev/*'
                umoci init --layout layout
                umoci new --image layout:python
                umoci raw add-layer --image layout:python root.tar
                skopeo copy --quiet oci:layout:python oci-archive:half.tar
                rm -rf root.tar layout
                mv half.tar python.tar",
                folder.display()
            ));
        }
        archive
    })
}

/// Returns a command that runs a script of `scripts/`.
fn script(name: &str, arguments: &[&str]) -> Command {
    let interpreter = if name.ends_with(".js") { "node" } else { "/usr/bin/python3" };
    #[allow(clippy::disallowed_methods)] // other people's clients
    let mut command = Command::new("timeout");
    command.args([SECONDS, interpreter]).arg(here().join("scripts").join(name)).args(arguments);
    command.env("PYTHONPATH", packages()).env("PYTHONDONTWRITEBYTECODE", "1").env("NODE_PATH", "/usr/share/nodejs");
    command
}

/// Runs a script to its end, and shows what it says.
#[track_caller]
fn run(name: &str, arguments: &[&str]) {
    let output = script(name, arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    print!("{name}\n{out}");
}

/// A script that goes on until it is told to end.
struct Script {
    name: &'static str,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Script {
    /// Starts one and waits until it says that it is at work.
    #[track_caller]
    fn start(name: &'static str, arguments: &[&str]) -> Self {
        let mut child = script(name, arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{name}");
        Self { name, child, out }
    }

    /// Ends it and returns its report, in which nothing has failed and both versions were seen.
    #[track_caller]
    fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        let status = self.child.wait().unwrap();
        println!("{}\n{text}", self.name);
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(status.success() && report["versions"] == serde_json::json!(["one", "two"]), "{status}: {text}");
        report
    }
}

/// Returns a stack whose service `app` runs a Python server of `servers/` on port 8080 of a small Debian root.
fn stack(server: &str, version: &str, instances: u32, rest: &str) -> String {
    format!(
        r#"
image "app" {{
  from = "oci-archive:{python}"
  copy "{packages}" {{ to = "/srv/packages" }}
  copy "{servers}/{server}" {{ to = "/srv/server.py" }}
  command = ["python3", "/srv/server.py"]
}}

service "app" {{
  image       = image.app
  instances   = {instances}
  env         = {{ VERSION = "{version}", PYTHONPATH = "/srv/packages", PYTHONDONTWRITEBYTECODE = "1" }}
  drain       = "5s"
  stop_within = "3s"
  port "http" {{ container = 8080 }}
  rollout "rolling" {{ max_surge = 1 }}
  {rest}
}}
"#,
        python = python().display(),
        packages = packages().display(),
        servers = here().join("servers").display(),
    )
}
