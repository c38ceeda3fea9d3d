//! The verbs on secrets.

use std::io::Read;

use basalt_model::Name;
use basalt_seam::Secrets;
use basalt_trust::SecretStore;
use serde_json::json;

use crate::cli::SecretVerb;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;

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
        SecretVerb::Remove { name } => {
            let name = parse(name)?;
            if !store.remove(&name).map_err(failed)? {
                return Err(CliError::invalid(format!("there is no secret `{name}`")));
            }
            out.note(&format!("{name} is removed; a release that needs it can't be started any more\n"));
        }
    }
    Ok(Outcome::Done)
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
