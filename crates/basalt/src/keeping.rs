//! The verbs on what is kept: `secret` and `image`.

use std::io::Read;

use basalt_depot::Depot;
use basalt_model::Name;
use basalt_trust::SecretStore;
use serde_json::json;

use crate::cli::{ImageVerb, SecretVerb};
use crate::desired;
use crate::error::{CliError, Kind, Outcome, Result};
use crate::output::Output;
use crate::paths::Data;
use crate::progress::ImageProgress;

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
        SecretVerb::Set { name } => {
            let name = parse(name)?;
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
                return Err(CliError::invalid("the secret is empty").help("give it on standard input"));
            }
            let version = store.set(&name, &content).map_err(failed)?;
            out.note(&format!("{name} has version {version}; it gets to instances with the next apply\n"));
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

fn parse(name: &str) -> Result<Name> {
    name.parse().map_err(|error: basalt_model::InvalidName| CliError::of(Kind::Invalid, &error))
}

fn failed(error: impl std::error::Error) -> CliError {
    CliError::of(Kind::Internal, &error)
}

/// Does something with images.
///
/// # Errors
/// If the depot can't be used, or an image can't be had.
pub fn image(verb: &ImageVerb, data: &Data, out: Output) -> Result<Outcome> {
    if let ImageVerb::Bake(args) = verb {
        let Some(declared) = desired::stack(args, out)? else { return Ok(Outcome::Invalid) };
        data.make()?;
        let baked = desired::bake_all(&declared.stack, data, out)?;
        if out.json() {
            out.document(&baked)?;
        } else {
            for (name, digest) in baked {
                out.text(&format!("{:<24} {digest}\n", name.as_str()))?;
            }
        }
        return Ok(Outcome::Done);
    }
    data.make()?;
    let depot = Depot::open(&data.depot()).map_err(failed)?;
    match verb {
        ImageVerb::Bake(_) => {}
        ImageVerb::List => {
            let images = depot.images().map_err(failed)?;
            if out.json() {
                out.document(&images)?;
            } else {
                for image in images {
                    let size = basalt_model::Bytes(image.bytes).to_string();
                    out.text(&format!("{} {size:>10}  {}\n", image.digest, image.origin))?;
                }
            }
        }
        ImageVerb::Import { reference } => {
            let digest = {
                let progress = ImageProgress::new(out, reference);
                depot.import(reference, &progress).map_err(|error| CliError::of(Kind::Invalid, &error))?
            };
            if out.json() { out.document(&json!({ "digest": digest }))? } else { out.text(&format!("{digest}\n"))? }
        }
        ImageVerb::Verify => return verify(&depot, out),
    }
    Ok(Outcome::Done)
}

fn verify(depot: &Depot, out: Output) -> Result<Outcome> {
    let found = {
        let progress = ImageProgress::new(out, "all");
        depot.verify(&progress).map_err(failed)?
    };
    if out.json() {
        let row = |p: &basalt_depot::Problem| json!({ "image": p.image, "path": p.path, "what": p.what });
        let problems: Vec<_> = found.problems.iter().map(row).collect();
        out.document(&json!({ "images": found.images, "files": found.files, "problems": problems }))?;
    } else {
        out.text(&format!("{} images, {} files checked\n", found.images, found.files))?;
    }
    if found.problems.is_empty() {
        return Ok(Outcome::Done);
    }
    let mut error = CliError::internal(format!("{} files are not what they should be", found.problems.len()));
    error.causes = found.problems.iter().map(|p| format!("{}: {} ({})", p.image, p.what, p.path.display())).collect();
    Err(error.help("bake or import the images again"))
}
