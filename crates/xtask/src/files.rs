//! Source files: none too long, and none with unsafe code outside the one crate that needs it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::workspace::Workspace;

/// Lines of a file without its tests above which it holds more than one idea.
const LONGEST: usize = 800;

/// The crate that makes namespaces and mounts through system calls that no safe library offers.
const MAY_BE_UNSAFE: &str = "basalt-container";

/// Returns a sentence for each file that is too long, and each library or program that does not forbid unsafe code.
///
/// # Errors
/// If a file can't be read.
pub fn breaches(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut breaches = Vec::new();
    for path in sources(&workspace.workspace_root.join("crates"))? {
        let lines = lines_without_tests(&read(&path)?);
        if lines > LONGEST {
            let shown = path.strip_prefix(&workspace.workspace_root).unwrap_or(&path).display();
            breaches.push(format!("{shown} has {lines} lines without tests, more than {LONGEST}; help: split it"));
        }
    }
    for member in workspace.members().filter(|member| member.name != MAY_BE_UNSAFE) {
        let shipped = |kind: &String| kind == "lib" || kind == "bin";
        for target in member.targets.iter().filter(|target| target.kind.iter().any(shipped)) {
            if !read(&target.src_path)?.contains("#![forbid(unsafe_code)]") {
                let shown = target.src_path.strip_prefix(&workspace.workspace_root).unwrap_or(&target.src_path);
                breaches.push(format!("{} does not say `#![forbid(unsafe_code)]`", shown.display()));
            }
        }
    }
    Ok(breaches)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Returns all Rust files below `folder` that are not tests, sorted.
fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} can't be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            if name != "tests" && name != "target" {
                found.extend(sources(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Counts lines outside `#[cfg(test)]` modules that stand at the left margin, where rustfmt puts a file's own tests.
fn lines_without_tests(text: &str) -> usize {
    let mut count = 0;
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let starts_module = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(starts_module) {
            lines.by_ref().find(|line| *line == "}");
        } else {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let check = |text: &str, expected: usize| assert_eq!(lines_without_tests(text), expected, "{text:?}");
        check("", 0);
        check("a\nb\n", 2);
        check("a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n", 2);
        check("a\n#[cfg(test)]\nmod tests;\n", 3);
        check("a\n#[cfg(test)]\nfn helper() {\n}\n", 4);
        check("#[cfg(test)]\nmod tests {\n    fn x() {\n    }\n", 0);
    }
}
