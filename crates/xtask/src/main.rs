//! The repository's own checks: `cargo xtask tidy`.
//!
//! It reads `cargo metadata` and the sources, and knows nothing of how anything runs. Its main type is [`Workspace`].
//! Each rule is a pure function from that to a list of sentences, one per breach.

#![forbid(unsafe_code)]

mod events;
mod files;
mod floors;
mod licences;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => match tidy() {
            Ok(breaches) if breaches.is_empty() => ExitCode::SUCCESS,
            Ok(breaches) => {
                breaches.iter().for_each(|breach| eprintln!("tidy: {breach}"));
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask tidy");
            ExitCode::from(4)
        }
    }
}

/// Returns a sentence for each breach of a rule.
fn tidy() -> anyhow::Result<Vec<String>> {
    let workspace = Workspace::read()?;
    let mut breaches = floors::breaches(&workspace);
    breaches.extend(licences::breaches(&workspace));
    breaches.extend(files::breaches(&workspace)?);
    breaches.extend(events::breaches(&workspace)?);
    Ok(breaches)
}
