//! This process's side of a sandbox: starts the child that makes it, and reads what the program writes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use basalt_model::Exit;
use basalt_seam::{Sandbox, SandboxError, SandboxRun, Sandboxed};
use serde::{Deserialize, Serialize};

/// The longest line that is told whole; programs that never end a line must not fill the memory.
const LONGEST_LINE: u64 = 16 << 10;

/// What the layer is called in the directory that the program writes to.
pub(super) const LAYER: &str = "layer.tar";

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) run: SandboxRun,
    /// The process that waits for it: should another one be the parent, that has ended.
    pub(super) parent: u32,
}

/// What the child answers on its standard error.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The program has ended; if it ended well, what it changed is in the layer.
    Ended(Exit),
    /// It could not be run; the text says why.
    Failed(String),
}

/// Makes sandboxes on this machine.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    /// The program of Basalt: run as `run-sandbox`.
    pub basalt: PathBuf,
}

impl Sandbox for Sandboxes {
    fn run(&self, run: &SandboxRun, line: &mut dyn FnMut(&str)) -> Result<Sandboxed, SandboxError> {
        let failed = |error: io::Error| SandboxError(format!("the sandbox could not be made: {error}"));
        let mut child = self.start().map_err(failed)?;
        let talked = talk(&mut child, run, line);
        if talked.is_err() {
            // Fails only if it has ended already.
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed)?;
        let answer = talked.map_err(failed)?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Ended(exit)) => {
                let layer = exit.is_success().then(|| run.work.join(LAYER));
                Ok(Sandboxed { exit, layer })
            }
            Ok(Answer::Failed(why)) => Err(SandboxError(format!("the sandbox could not be made: {why}"))),
            Err(_) => {
                let text = String::from_utf8_lossy(&answer);
                Err(SandboxError(format!("the sandbox ended early ({status}): {}", text.trim())))
            }
        }
    }
}

impl Sandboxes {
    #[allow(clippy::disallowed_methods)] // Starting the child is what this function is for.
    fn start(&self) -> io::Result<Child> {
        Command::new(&self.basalt)
            .arg("run-sandbox")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }
}

/// Gives the order, tells all lines, and returns the answer.
fn talk(child: &mut Child, run: &SandboxRun, line: &mut dyn FnMut(&str)) -> io::Result<Vec<u8>> {
    let order = Order { run: run.clone(), parent: std::process::id() };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&order)?)?;
    }
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes)? > 0 {
            line(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
            bytes.clear();
        }
    }
    let mut answer = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut answer)?;
    }
    Ok(answer)
}
