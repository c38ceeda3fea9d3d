//! `import`: from other tools' files to stacks.

use std::io::Write;
use std::path::{Path, PathBuf};

use basalt_compose::{Files, Finding, Imported, Options, PathKind};

use crate::cli::ImportComposeArgs;
use crate::error::{CliError, Outcome, Result};
use crate::output::Output;

/// The files beside a Compose file.
struct Beside(PathBuf);

impl Files for Beside {
    fn text(&self, path: &Path) -> Option<String> {
        let path = self.0.join(path);
        // Reading a device or a pipe might never end.
        path.is_file().then(|| std::fs::read_to_string(path).ok()).flatten()
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let metadata = std::fs::metadata(self.0.join(path)).ok()?;
        Some(if metadata.is_dir() { PathKind::Folder } else { PathKind::File })
    }
}

/// Turns a Compose file into a stack.
///
/// # Errors
/// If the file can't be read or is no Compose file, or the stack can't be written.
pub fn compose(args: &ImportComposeArgs, out: Output) -> Result<Outcome> {
    let shown = args.file.display();
    let unreadable = |error: &std::io::Error| CliError::invalid(format!("`{shown}` can't be read")).because(error);
    let text = std::fs::read_to_string(&args.file).map_err(|error| unreadable(&error))?;
    let folder = std::path::absolute(&args.file).map_err(|error| unreadable(&error))?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    let options = options(args, &folder)?;
    let imported = basalt_compose::import(&text, &options, &Beside(folder))
        .map_err(|why| CliError::invalid(format!("`{shown}` is no Compose file: {why}")))?;
    if let Some(path) = &args.out {
        write(path, &imported.stack)?;
    }
    if out.json() {
        out.document(&imported)?;
        return Ok(Outcome::Done);
    }
    if args.out.is_none() {
        out.text(&imported.stack)?;
    }
    out.note(&report(&imported, args));
    Ok(Outcome::Done)
}

/// Returns what the import is told.
fn options(args: &ImportComposeArgs, folder: &Path) -> Result<Options> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let env_files = match args.env_files.as_slice() {
        [] => vec![folder.join(".env")],
        files => files.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect(),
    };
    if let Some(missing) = env_files.iter().find(|path| !args.env_files.is_empty() && !path.is_file()) {
        return Err(CliError::invalid(format!("there is no file `{}`", missing.display())));
    }
    // Paths of a stack begin at its own folder, and standard output is taken to stay beside the Compose file.
    let beside =
        args.out.as_ref().is_none_or(|path| std::path::absolute(path).is_ok_and(|path| path.parent() == Some(folder)));
    Ok(Options {
        file: args.file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        project: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        environment,
        env_files,
        profiles: args.profiles.iter().cloned().collect(),
        folder: (!beside).then(|| folder.to_owned()),
    })
}

/// Writes the stack to a file that is not there yet.
fn write(path: &Path, stack: &str) -> Result<()> {
    let unwritten = |error: &std::io::Error| {
        let unwritten = CliError::invalid(format!("`{}` can't be written", path.display())).because(error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                unwritten.help("a stack that is there stays as it is; name another file")
            }
            _ => unwritten,
        }
    };
    let mut file = std::fs::File::create_new(path).map_err(|error| unwritten(&error))?;
    file.write_all(stack.as_bytes()).map_err(|error| unwritten(&error))
}

/// Returns what is said to people: each finding with its place, and what comes next.
fn report(imported: &Imported, args: &ImportComposeArgs) -> String {
    let mut text = String::new();
    let (whole, placed): (Vec<&Finding>, Vec<&Finding>) =
        imported.findings.iter().partition(|finding| finding.line == 0);
    for finding in placed.iter().chain(&whole) {
        let place = match finding.line {
            0 => finding.path.clone(),
            line => format!("{}:{line} {}", args.file.display(), finding.path),
        };
        text.push_str(&format!("{place}\n  {}\n", finding.what));
        if let Some(instead) = &finding.instead {
            text.push_str(&format!("  help: {instead}\n"));
        }
    }
    let count = imported.findings.len();
    let said = if count == 1 { "1 thing".to_owned() } else { format!("{count} things") };
    text.push_str(&format!("{said} to know about {}\n", args.file.display()));
    if let Some(path) = &args.out {
        let path = path.display();
        text.push_str(&format!("wrote {path}; see what it would do with `basalt plan {path}`\n"));
    }
    text
}
