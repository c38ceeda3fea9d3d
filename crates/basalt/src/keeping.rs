//! The verbs on secrets.

use std::collections::BTreeSet;
use std::io::Read;

use basalt_model::{InstanceId, JobState, Name, Release, State};
use basalt_seam::Secrets;
use basalt_trust::SecretStore;
use serde_json::json;

use crate::cli::SecretVerb;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::recorded::recorded;

/// The most that is read as a secret; certificates and keys are far below it.
const LONGEST_SECRET: u64 = 1 << 20;

/// Does something with secrets.
///
/// # Errors
/// If the store can't be used, or there is no such secret.
pub fn secret(verb: &SecretVerb, data: &Data, out: Output) -> Result<Outcome> {
    data.make()?;
    let store = SecretStore::open(&data.secrets()).map_err(failed)?;
    match verb {
        SecretVerb::Set { name, content } => {
            let name = parse(name)?;
            let version = store.set(&name, &read(content.is_some())?).map_err(failed)?;
            out.note(&format!("{name} has version {version}; it gets to instances with the next apply\n"));
        }
        SecretVerb::Rotate { name, content } => {
            let name = parse(name)?;
            let Some(before) = store.latest(&name).map_err(failed)? else {
                let error = CliError::invalid(format!("there is no secret `{name}`"));
                return Err(error.help(format!("store it first: basalt secret set {name}")));
            };
            let version = store.set(&name, &read(content.is_some())?).map_err(failed)?;
            if version == before {
                return Err(CliError::invalid(format!("this is what version {before} of `{name}` holds already")));
            }
            out.note(&format!("{name} has version {version}, and keeps version {before} for releases that pin it; "));
            out.note("the next apply brings the new one to instances\n");
        }
        SecretVerb::List => {
            let secrets = store.list().map_err(failed)?;
            if out.json() {
                let rows: Vec<_> = secrets.iter().map(|s| json!({ "name": s.name, "version": s.version })).collect();
                out.document(&rows)?;
            } else {
                for secret in secrets {
                    out.text(&format!("{:<40} version {}\n", secret.name.as_str(), secret.version))?;
                }
            }
        }
        SecretVerb::Remove { name, force } => {
            let name = parse(name)?;
            let users = users(&recorded(data)?, &name);
            if !(users.is_empty() || *force) {
                let error = CliError::invalid(format!("`{name}` is needed by what runs: {}", users.join(", ")));
                return Err(error.help("apply a stack that does not need it first, or add --force"));
            }
            if !store.remove(&name).map_err(failed)? {
                return Err(CliError::invalid(format!("there is no secret `{name}`")));
            }
            out.note(&format!("{name} is removed; a kept release that needs it can't be gone back to any more\n"));
        }
    }
    Ok(Outcome::Done)
}

/// Returns the releases that run or are to run, and need a secret.
fn users(state: &State, secret: &Name) -> Vec<String> {
    let needs = |release: &Release| release.secret_names().any(|name| name == secret);
    let mut users = Vec::new();
    for (name, service) in &state.services {
        let numbers: BTreeSet<_> = service.instances.keys().map(InstanceId::release).chain(service.stable).collect();
        let kept = numbers.iter().filter(|number| service.releases.get(number).is_some_and(|release| needs(release)));
        users.extend(kept.map(|number| format!("{name}#{number}")));
    }
    let jobs = state.jobs.iter().filter(|(_, job)| matches!(job.state, JobState::Pending | JobState::Running { .. }));
    users.extend(jobs.filter(|(_, job)| needs(&job.release)).map(|(name, job)| format!("{name}#{}", job.number)));
    users
}

/// Reads a secret from standard input. `typed` says that something stands in the arguments, where everyone can see it.
fn read(typed: bool) -> Result<Vec<u8>> {
    const HELP: &str = "give it on standard input: basalt secret set NAME < FILE";
    if typed {
        return Err(CliError::invalid("a secret is not taken from the arguments, for others can see them").help(HELP));
    }
    let mut content = Vec::new();
    std::io::stdin()
        .lock()
        .take(LONGEST_SECRET + 1)
        .read_to_end(&mut content)
        .map_err(|error| CliError::internal("the secret can't be read from standard input").because(&error))?;
    if content.len() as u64 > LONGEST_SECRET {
        return Err(CliError::invalid(format!("the secret has more than {LONGEST_SECRET} bytes")));
    }
    if content.is_empty() {
        return Err(CliError::invalid("the secret is empty").help(HELP));
    }
    Ok(content)
}

fn parse(name: &str) -> Result<Name> {
    name.parse().map_err(|error: basalt_model::InvalidName| CliError::of(Kind::Invalid, &error))
}

fn failed(error: impl std::error::Error) -> CliError {
    CliError::of(Kind::Internal, &error)
}
