//! The verbs `fmt` and `schema`: the form of stack files.

use std::io::Read;
use std::path::{Path, PathBuf};

use basalt_stackfile::{Disk, parse_hcl, render};
use serde_json::json;

use crate::error::{CliError, Outcome, Result};
use crate::output::Output;

/// Brings files into their usual form; with `check`, only names those that are not.
///
/// # Errors
/// If a file can't be read or written.
pub fn format(paths: &[PathBuf], check: bool, out: Output) -> Result<Outcome> {
    let mut changed = Vec::new();
    let mut valid = true;
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| unread(path, &error))?;
            let Some(formatted) = formatted("<standard input>", &text, out) else {
                valid = false;
                continue;
            };
            if check && formatted != text {
                changed.push("-".to_owned());
            } else if !check {
                out.text(&formatted)?;
            }
            continue;
        }
        for file in files(path)? {
            let text = std::fs::read_to_string(&file).map_err(|error| unread(&file, &error))?;
            let name = file.display().to_string();
            match formatted(&name, &text, out) {
                None => valid = false,
                Some(formatted) if formatted != text => {
                    if !check {
                        write(&file, &formatted)?;
                    }
                    changed.push(name);
                }
                Some(_) => {}
            }
        }
    }
    if out.json() {
        out.document(&json!({ "changed": changed, "valid": valid }))?;
    } else if paths != [PathBuf::from("-")] {
        out.text(&changed.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    }
    Ok(match (valid, check && !changed.is_empty()) {
        (false, _) => Outcome::Invalid,
        (true, true) => Outcome::ChangesPresent,
        (true, false) => Outcome::Done,
    })
}

/// Prints the JSON Schema of stacks.
///
/// # Errors
/// If it can't be written.
pub fn schema(out: Output) -> Result<Outcome> {
    out.document(&basalt_stackfile::json_schema())?;
    Ok(Outcome::Done)
}

/// Returns the text in its usual form; shows what is wrong with it if it is not valid.
fn formatted(name: &str, text: &str, out: Output) -> Option<String> {
    let parsed = parse_hcl(&Disk, name, text);
    out.note(&render(&parsed, out.error_style.colour));
    if parsed.has_errors() {
        return None;
    }
    // A text that the formatter does not understand stays as it is.
    Some(basalt_stackfile::format(text).unwrap_or_else(|| text.to_owned()))
}

/// Returns the HCL files that a path names: itself, or those of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut files: Vec<PathBuf> = entries.map_err(|error| unread(path, &error))?.iter().map(|e| e.path()).collect();
    files.retain(|file| file.is_file() && file.extension().is_some_and(|suffix| suffix == "hcl" || suffix == "basalt"));
    files.sort();
    Ok(files)
}

/// Replaces a file as a whole, so that a crash leaves the one or the other.
fn write(path: &Path, text: &str) -> Result<()> {
    let unwritten =
        |error: std::io::Error| CliError::invalid(format!("`{}` can't be written", path.display())).because(&error);
    let path = path.canonicalize().map_err(unwritten)?;
    let beside = path.with_extension("hcl.new");
    let permissions = std::fs::metadata(&path).map_err(unwritten)?.permissions();
    std::fs::write(&beside, text).map_err(unwritten)?;
    std::fs::set_permissions(&beside, permissions).map_err(unwritten)?;
    std::fs::rename(&beside, &path).map_err(unwritten)
}

fn unread(path: &Path, error: &std::io::Error) -> CliError {
    CliError::invalid(format!("`{}` can't be read", path.display())).because(error)
}
