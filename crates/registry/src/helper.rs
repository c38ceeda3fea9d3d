//! Credential helpers: programs called `docker-credential-NAME` that keep passwords in the system's key ring or get them from
//! a cloud (docker's credential helper protocol).

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::credentials::Credential;
use crate::error::{Error, Result};

/// Helpers of clouds ask over the network; one that asks a person at a screen has to be quicker than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all helpers say when they know nothing.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper; `None` if it knows nothing of the server.
pub(crate) async fn get(name: &str, server: &str) -> Result<Option<Credential>> {
    let helper = format!("docker-credential-{name}");
    let fail = |why: String| Error::Helper { helper: helper.clone(), host: server.to_owned(), why };
    if name.contains('/') {
        return Err(fail("its name must not be a path".into()));
    }
    #[allow(clippy::disallowed_methods)] // asking another program is what this adapter is for
    let mut child = Command::new(&helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| fail(format!("it can't be started: {e}")))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read what it is asked still may answer.
        drop(input.write_all(format!("{server}\n").as_bytes()).await);
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| fail(format!("it has not answered within {} s", PATIENCE.as_secs())))?;
    let output = output.map_err(|e| fail(e.to_string()))?;
    if !output.status.success() {
        // Helpers write what is wrong to standard output; a password is there only when all went well.
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.trim();
        return if said.contains(NOT_FOUND) { Ok(None) } else { Err(fail(said.escape_debug().take(500).collect())) };
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| fail("its answer is not as the protocol has it".into()))?;
    Ok(Some(Credential::new(answer.username, answer.secret)))
}
