//! The verb `init`: a small stack to start from.

use std::io::Write;
use std::path::Path;

use crate::error::{CliError, Outcome, Result};
use crate::output::Output;

/// The stack that is written.
const STACK: &str = include_str!("init.hcl");

/// Writes a stack into a folder.
///
/// # Errors
/// If there is one already, or it can't be written.
pub fn init(dir: &Path, out: Output) -> Result<Outcome> {
    let path = dir.join("stack.hcl");
    let unwritten = |error: &std::io::Error| {
        let error_ = CliError::invalid(format!("`{}` can't be written", path.display())).because(error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                error_.help("a stack that is there stays as it is; name another folder")
            }
            _ => error_,
        }
    };
    std::fs::create_dir_all(dir).map_err(|error| unwritten(&error))?;
    let mut file = std::fs::File::create_new(&path).map_err(|error| unwritten(&error))?;
    file.write_all(STACK.as_bytes()).map_err(|error| unwritten(&error))?;
    let dir = dir.display();
    out.note(&format!(
        "wrote {}; see what it would do with `basalt plan {dir}`, run it with `basalt up {dir}`\n",
        path.display()
    ));
    Ok(Outcome::Done)
}
