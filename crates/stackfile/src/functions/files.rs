//! Functions of paths and of files. Paths that are not absolute begin at the stack's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::encoding::encode_base64;
use super::{Call, Function, texts, whole};
use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault};
use crate::source::At;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole(
        "abspath(path)",
        "The path made absolute, without `.` and `..`.",
        (r#"abspath("a/../b")"#, r#""/s/b""#),
        |c| Ok(Data::Text(clean(&c.ev.cx.resolve(&c.text(0)?)).display().to_string())),
    ),
    whole("basename(path)", "The last part of the path.", (r#"basename("a/b.txt")"#, r#""b.txt""#), |c| {
        let path = c.text(0)?;
        let trimmed = path.trim_end_matches('/');
        Ok(Data::Text(match (path.as_str(), trimmed) {
            ("", _) => ".".to_owned(),
            (_, "") => "/".to_owned(),
            (_, trimmed) => trimmed.rsplit('/').next().unwrap_or_default().to_owned(),
        }))
    }),
    whole("dirname(path)", "The path without its last part.", (r#"dirname("a/b.txt")"#, r#""a""#), |c| {
        let path = c.text(0)?;
        let folder = path.rsplit_once('/').map(|(folder, _)| if folder.is_empty() { "/" } else { folder });
        let folder = clean(Path::new(folder.unwrap_or(".")));
        Ok(Data::Text(if folder.as_os_str().is_empty() { ".".to_owned() } else { folder.display().to_string() }))
    }),
    whole("file(path)", "The text of a file, which must be UTF-8.", (r#"file("hello.txt")"#, r#""hello\n""#), |c| {
        read(c).map(Data::Text)
    }),
    whole("filebase64(path)", "The bytes of a file in base64.", (r#"filebase64("hello.txt")"#, r#""aGVsbG8K""#), |c| {
        encode_base64(c, &bytes(c)?)
    }),
    whole("fileexists(path)", "Whether there is a file.", (r#"fileexists("no.txt")"#, "false"), |c| {
        Ok(Data::Bool(c.ev.cx.files.exists(&c.ev.cx.resolve(&c.text(0)?))))
    }),
    whole(
        "fileset(folder, pattern)",
        "The files in the folder that match the pattern, sorted, relative to the folder: `*` and `?` within a name, `**` any \
         folders, `[a-z]` one of some characters, `{a,b}` one of some texts.",
        (r#"fileset(".", "*.{txt,tpl}")"#, r#"["hello.txt","list.tpl"]"#),
        fileset,
    ),
    whole(
        "pathexpand(path)",
        "The path with `~` at its begin replaced by the home directory.",
        (r#"pathexpand("/etc/hosts")"#, r#""/etc/hosts""#),
        |c| {
            let path = c.text(0)?;
            let Some(rest) = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
                return Ok(Data::Text(path));
            };
            let home = c.ev.cx.files.home().ok_or_else(|| c.wrong(0, "the home directory is not known"))?;
            Ok(Data::Text(format!("{}{rest}", home.display())))
        },
    ),
    whole(
        "templatefile(path, values)",
        "The text of a file with `${…}` and `%{…}` in it evaluated; it sees the values alone.",
        (r#"templatefile("list.tpl", { hosts = { a = 1 } })"#, r#""a=1\nend""#),
        |c| {
            let text = read(c)?;
            let name = c.ev.cx.resolve(&c.text(0)?).display().to_string();
            render(c, name, text)
        },
    ),
    whole(
        "templatestring(template, values)",
        "The template with `${…}` and `%{…}` in it evaluated; it sees the values alone.",
        (r#"templatestring("Hello $${name}!", { name = "you" })"#, r#""Hello you!""#),
        |c| {
            let text = c.text(0)?;
            // Faults show lines and names of what they are in.
            let sensitive = c.args[0].is_sensitive();
            let rendered = render(c, "template".to_owned(), text);
            rendered.map_err(|faults| if sensitive { c.unsaid().into() } else { faults })
        },
    ),
];

/// Returns the path without `.` and `..`, by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir if clean.file_name().is_some_and(|name| name != "..") => {
                clean.pop();
            }
            std::path::Component::ParentDir if clean.has_root() => {}
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// Returns the text of the file in the first place.
fn read(call: &Call) -> Eval<String> {
    let path = call.ev.cx.resolve(&call.text(0)?);
    let text = call.ev.cx.read_text(&path).map_err(|why| unreadable(call, &why))?;
    call.fits(Some(text.len()))?;
    Ok(text)
}

/// Returns the bytes of the file in the first place.
pub(super) fn bytes(call: &Call) -> Eval<Vec<u8>> {
    let path = call.ev.cx.resolve(&call.text(0)?);
    let bytes = call.ev.cx.files.read(&path);
    let bytes = bytes.map_err(|error| unreadable(call, &format!("`{}` can't be read: {error}", path.display())))?;
    call.fits(Some(bytes.len()))?;
    Ok(bytes)
}

fn unreadable(call: &Call, why: &str) -> Fault {
    call.wrong_fault(0, why).help("paths that are not absolute begin at the stack's folder")
}

/// Returns the text of a template, given the map in the second place.
fn render(call: &Call, name: String, text: String) -> Eval<Data> {
    if call.ev.template {
        // A template that renders itself would never end.
        return Err(call.fault("can't be called in a template"));
    }
    let values = call.map(1)?;
    let mark = call.args[1].sensitive;
    let names: BTreeMap<String, Value> = values.iter().map(|(k, v)| (k.clone(), v.clone().marked(mark))).collect();
    let cx = call.ev.cx;
    let sensitive = call.args[0].is_sensitive();
    let source = if sensitive { cx.add_private_source(name, text.clone()) } else { cx.add_source(name, text.clone()) };
    let template = hcl_edit::parser::parse_template(&text).map_err(|error| {
        let start = error.location().offset().min(text.len());
        let start = (0..=start).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        Fault::at(At::new(source, start..start), format!("not a valid template: {}", error.message()))
            .help("write `$${` and `%%{` where these signs themselves are meant")
            .place(call.at, "rendered here")
    })?;
    let ev = Evaluator::of_template(cx, source);
    let scope = Scope { parent: None, names };
    let whole = At::new(source, 0..text.len());
    let (text, _) = ev.render(&template, &scope, whole).map_err(|mut faults| {
        for fault in &mut faults.0 {
            fault.places.push((call.at, "rendered here".to_owned()));
        }
        faults
    })?;
    Ok(Data::Text(text))
}

fn fileset(call: &Call) -> Eval<Data> {
    /// The deepest folder that is searched: links may lead in circles.
    const DEEPEST: usize = 32;
    let folder = clean(&call.ev.cx.resolve(&call.text(0)?));
    let pattern = call.text(1)?;
    let form = glob(pattern.strip_prefix("./").unwrap_or(&pattern));
    let form = form.ok_or_else(|| call.wrong(1, "not a pattern: a bracket or brace is not closed"))?;
    let deep = if pattern.contains("**") { DEEPEST } else { pattern.matches('/').count() };
    let mut found = Vec::new();
    let mut waiting = vec![(folder.clone(), 0)];
    while let Some((next, depth)) = waiting.pop() {
        // A folder that is not there has no files.
        let Ok(paths) = call.ev.cx.files.list(&next) else { continue };
        for path in paths {
            let Some(name) = path.strip_prefix(&folder).ok().and_then(Path::to_str) else { continue };
            call.ev.cx.spend(name.len() + 16, call.at)?;
            if call.ev.cx.files.is_folder(&path) {
                if depth < deep {
                    waiting.push((path, depth + 1));
                }
            } else if form.is_match(name) {
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    Ok(texts(found, call.at))
}

/// Returns the regular expression of a pattern; `None` if a bracket or brace is not closed.
fn glob(pattern: &str) -> Option<Regex> {
    let mut form = String::from("^");
    let mut braces = 0;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            form.push_str("(?:[^/]+/)*");
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("**") {
            form.push_str(".*");
            rest = after;
            continue;
        }
        let mut after = &rest[first.len_utf8()..];
        match first {
            '*' => form.push_str("[^/]*"),
            '?' => form.push_str("[^/]"),
            '{' => {
                braces += 1;
                form.push_str("(?:");
            }
            ',' if braces > 0 => form.push('|'),
            '}' if braces > 0 => {
                braces -= 1;
                form.push(')');
            }
            '[' => {
                let end = after.find(']').filter(|end| *end > 0)?;
                let class = after[..end].replace('\\', "\\\\").replace('[', "\\[").replace("&&", "&\\&");
                form.push_str(&match class.strip_prefix('!') {
                    Some(others) => format!("[^{others}]"),
                    None => format!("[{class}]"),
                });
                after = &after[end + 1..];
            }
            '\\' => {
                let literal = after.chars().next()?;
                form.push_str(&regex::escape(&literal.to_string()));
                after = &after[literal.len_utf8()..];
            }
            other => form.push_str(&regex::escape(&other.to_string())),
        }
        rest = after;
    }
    form.push('$');
    Regex::new(&form).ok().filter(|_| braces == 0)
}
