//! Projects on the disk, and stacks in memory beside them.

use std::io;
use std::path::{Path, PathBuf};

use basalt_compose::{Files, Imported, Options, PathKind};

/// Returns the folder of a project.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/projects").join(name)
}

/// Returns the names of all projects.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder("")).expect("the projects are there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The files of a folder.
pub struct Disk(pub PathBuf);

impl Files for Disk {
    fn text(&self, path: &Path) -> Option<String> {
        std::fs::read_to_string(self.0.join(path)).ok()
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let kind = std::fs::metadata(self.0.join(path)).ok()?;
        Some(if kind.is_dir() { PathKind::Folder } else { PathKind::File })
    }
}

/// Imports a project, or another text in its place.
pub fn import(name: &str, text: Option<&str>) -> Result<Imported, String> {
    let folder = folder(name);
    let own = std::fs::read_to_string(folder.join("compose.yaml")).expect("the Compose file is there");
    let options = Options {
        file: "compose.yaml".to_owned(),
        project: name.to_owned(),
        env_files: vec![".env".into()],
        ..Options::default()
    };
    basalt_compose::import(text.unwrap_or(&own), &options, &Disk(folder))
}

/// A mapping or list that is being read.
enum Open {
    /// The path, and the key whose value is next.
    Map(String, Option<String>),
    /// The path, and the next index.
    List(String, usize),
}

/// Returns the places of all values in a YAML text: start, end, line, path.
pub fn scalars(text: &str) -> Vec<(usize, usize, usize, String)> {
    use saphyr_parser::{Event, Parser};
    let starts: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.expect("YAML");
        if matches!(event, Event::SequenceEnd | Event::MappingEnd) {
            open.pop();
            continue;
        }
        let path = match (&event, open.last_mut()) {
            (Event::Scalar(key, ..), Some(Open::Map(_, next @ None))) => {
                *next = Some(key.to_string());
                continue;
            }
            (Event::Scalar(..) | Event::Alias(_) | Event::SequenceStart(..) | Event::MappingStart(..), open) => {
                match open {
                    Some(Open::Map(path, next)) => {
                        let key = next.take().unwrap_or_default();
                        if path.is_empty() { key } else { format!("{path}.{key}") }
                    }
                    Some(Open::List(path, index)) => {
                        *index += 1;
                        format!("{path}[{}]", *index - 1)
                    }
                    None => String::new(),
                }
            }
            _ => continue,
        };
        match event {
            Event::Scalar(value, ..) if !value.is_empty() && &*value != "null" => {
                found.push((starts[span.start.index()], starts[span.end.index()], span.start.line(), path));
            }
            Event::SequenceStart(..) => open.push(Open::List(path, 0)),
            Event::MappingStart(..) => open.push(Open::Map(path, None)),
            _ => {}
        }
    }
    found
}

/// The files of this machine, with a stack that is not on it.
struct Beside {
    path: PathBuf,
    stack: String,
}

impl basalt_stackfile::Files for Beside {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == self.path { Ok(self.stack.clone().into_bytes()) } else { basalt_stackfile::Disk.read(path) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        basalt_stackfile::Disk.list(folder)
    }

    fn is_folder(&self, path: &Path) -> bool {
        basalt_stackfile::Disk.is_folder(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path == self.path || basalt_stackfile::Disk.exists(path)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        basalt_stackfile::Disk.absolute(path)
    }
}

/// Loads the stack of a project as if it lay beside it; returns its faults as text.
pub fn load(name: &str, imported: &Imported) -> String {
    let path = folder(name).join("stack.hcl");
    let files = Beside { path: path.clone(), stack: imported.stack.clone() };
    let environment = imported.required.iter().map(|variable| (variable.clone(), "given".to_owned())).collect();
    let inputs = basalt_stackfile::Inputs { vars: environment, ..basalt_stackfile::Inputs::default() };
    let loaded = basalt_stackfile::load_from(&files, &path, &inputs);
    basalt_stackfile::render(&loaded, false)
}
