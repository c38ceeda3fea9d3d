//! How the program of an instance is run: its command, working directory and environment.

use std::collections::BTreeMap;

use basalt_model::Release;
use basalt_seam::{PinnedImage, SecretBytes};

use crate::user::User;

/// The search path where neither image nor release sets one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns what an instance runs; empty if neither release nor image says so.
pub(crate) fn command<'a>(release: &'a Release, image: &'a PinnedImage) -> &'a [String] {
    release.command.as_deref().unwrap_or(&image.config.command)
}

/// Returns the working directory, `/` if neither release nor image names one.
pub(crate) fn workdir<'a>(release: &'a Release, image: &'a PinnedImage) -> &'a str {
    let dir = release.workdir.as_deref().unwrap_or(&image.config.workdir);
    if dir.is_empty() { "/" } else { dir }
}

/// Returns the environment: the release's variables win over the image's, and those over what every program expects.
pub(crate) fn environment(id: &str, release: &Release, image: &PinnedImage, user: &User) -> Vec<String> {
    let mut env: BTreeMap<&str, &str> = BTreeMap::new();
    env.insert("PATH", DEFAULT_PATH);
    env.insert("HOSTNAME", id);
    env.insert("HOME", user.home.as_deref().unwrap_or("/"));
    env.extend(image.config.env.iter().chain(&release.env).map(|(k, v)| (k.as_str(), v.as_str())));
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// Adds environment variables that are secrets; they win over others.
///
/// # Errors
/// If one holds what no environment variable can.
pub(crate) fn add_secrets(
    mut env: Vec<String>,
    secrets: &BTreeMap<String, SecretBytes>,
) -> Result<Vec<String>, String> {
    env.retain(|entry| entry.split_once('=').is_none_or(|(key, _)| !secrets.contains_key(key)));
    for (key, value) in secrets {
        let text = std::str::from_utf8(value.expose()).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| format!("the secret for the variable `{key}` is not text"))?;
        env.push(format!("{key}={text}"));
    }
    Ok(env)
}
