//! Values to Rust values: text, numbers in a range, lists, paths, names.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use basalt_model::Name;

use crate::fault::{Eval, Fault, all};
use crate::source::At;
use crate::value::{Data, Kind, Value};

/// The longest path in an image, in bytes (PATH_MAX of Linux, less its final zero byte).
const LONGEST_PATH: usize = 4095;

/// Reads a string; numbers and bools are written out.
pub(crate) fn text(value: &Value) -> Eval<String> {
    let text = value.to_text()?;
    if text.contains('\0') {
        return Err(Fault::at(value.at, "a zero byte can't be passed to a program").into());
    }
    Ok(text)
}

/// Reads what a file holds.
pub(crate) fn content(value: &Value) -> Eval<String> {
    value.to_text()
}

/// Reads a bool.
pub(crate) fn boolean(value: &Value) -> Eval<bool> {
    value.to_bool()
}

/// Returns a reader of whole numbers in a range.
pub(crate) fn integer(range: RangeInclusive<u32>) -> impl Fn(&Value) -> Eval<u32> {
    move |value| {
        let number = value.to_number()?.as_integer().ok_or_else(|| value.wrong_type("a whole number"))?;
        u32::try_from(number).ok().filter(|n| range.contains(n)).ok_or_else(|| {
            let fault = Fault::at(value.at, format!("{} is out of range", value.shown()));
            fault.help(format!("a number from {} to {} belongs here", range.start(), range.end())).into()
        })
    }
}

/// Reads a list, each item with `read`.
pub(crate) fn list<T>(value: &Value, read: impl Fn(&Value) -> Eval<T>) -> Eval<Vec<T>> {
    match &value.data {
        Data::List(items) => all(items.iter().map(read)),
        Data::Text(_) | Data::Reference(..) => {
            let fault = value.wrong_type("a list");
            Err(fault.help("write it in square brackets: [ … ]").into())
        }
        _ => Err(value.wrong_type("a list").into()),
    }
}

/// Reads a list of strings.
pub(crate) fn texts(value: &Value) -> Eval<Vec<String>> {
    list(value, text)
}

/// Reads a program and its arguments.
pub(crate) fn command(value: &Value) -> Eval<Vec<String>> {
    if let Data::Text(_) = value.data {
        let fault = value.wrong_type("a list of strings");
        return Err(fault.help("no shell runs it: write [\"/bin/program\", \"argument\"]").into());
    }
    let command = texts(value)?;
    match command.first() {
        Some(program) if !program.is_empty() => Ok(command),
        _ => Err(Fault::at(value.at, "no program in the command").help("the first item names the program").into()),
    }
}

/// Reads a map of strings; entries that are `null` are left out.
pub(crate) fn text_map(value: &Value) -> Eval<BTreeMap<String, String>> {
    let Data::Map(map) = &value.data else {
        return Err(value.wrong_type("a map").help("write { NAME = \"value\" }").into());
    };
    let entries = map.iter().filter(|(_, value)| !value.is_null());
    Ok(all(entries.map(|(key, value)| Ok((key.clone(), text(value)?))))?.into_iter().collect())
}

/// Reads environment variables.
pub(crate) fn environment(value: &Value) -> Eval<BTreeMap<String, String>> {
    let map = text_map(value)?;
    map.keys().try_for_each(|key| variable_name(key, value.at))?;
    Ok(map)
}

/// Checks the name of an environment variable.
pub(crate) fn variable_name(key: &str, at: At) -> Eval<()> {
    if !key.is_empty() && !key.contains(['=', '\0']) {
        return Ok(());
    }
    let message = format!("`{}` can't be the name of an environment variable", key.escape_debug());
    Err(Fault::at(at, message).help("it must not be empty or hold `=`").into())
}

/// Returns a reader of a reference to a block or secret.
pub(crate) fn reference(kind: Kind) -> impl Fn(&Value) -> Eval<Name> {
    move |value| match &value.data {
        Data::Reference(found, text) if *found == kind => name(text, value.at),
        Data::Text(text) => {
            let fault = value.wrong_type(&format!("a {kind}"));
            let name = text.rsplit('.').next().unwrap_or(text);
            Err(fault.help(format!("write `{kind}.{name}` without quotes")).into())
        }
        _ => Err(value.wrong_type(&format!("a {kind}")).help(format!("write `{kind}.NAME`")).into()),
    }
}

/// Reads the name of anything.
pub(crate) fn name(text: &str, at: At) -> Eval<Name> {
    text.parse().map_err(|error: basalt_model::InvalidName| {
        let better = better_name(text);
        let fault = Fault::at(at, error.to_string());
        if better.is_empty() { fault.into() } else { fault.help(format!("for example \"{better}\"")).into() }
    })
}

/// Reads the name of a service or job, which becomes part of a host name and so has no underscores.
pub(crate) fn host_name(text: &str, at: At) -> Eval<Name> {
    let name = name(text, at)?;
    if text.contains('_') {
        let fault = Fault::at(at, format!("`{text}` becomes part of a host name, which has no underscores"));
        return Err(fault.help(format!("for example \"{}\"", better_name(text))).into());
    }
    Ok(name)
}

/// Returns the nearest valid name, or an empty text.
pub(crate) fn better_name(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let mut name: String = letters.take(40).collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    name.trim_matches('-').to_owned()
}

/// Reads an absolute path in an image: doubled and trailing slashes are dropped.
pub(crate) fn path(text: &str, at: At) -> Eval<String> {
    let shown = text.escape_debug();
    if !text.starts_with('/') {
        let fault = Fault::at(at, format!("`{shown}` is not an absolute path"));
        return Err(fault.help(format!("write \"/{}\"", text.trim_start_matches("./"))).into());
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        let fault = Fault::at(at, format!("`{shown}` has `.` or `..` in it"));
        return Err(fault.help("write the path that is meant").into());
    }
    if text.contains('\0') || text.len() > LONGEST_PATH {
        return Err(Fault::at(at, "not a path: it has a zero byte or more than 4095 bytes").into());
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    Ok(format!("/{}", parts.join("/")))
}

/// Reads the absolute path of a file or mount: anything but the root, `/proc` and `/sys`.
pub(crate) fn inner_path(text: &str, at: At) -> Eval<String> {
    let path = path(text, at)?;
    let within = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match ["/proc", "/sys"].into_iter().find(|root| within(root)) {
        _ if path == "/" => Err(Fault::at(at, "`/` is the root itself").help("name a place below it").into()),
        Some(root) => Err(Fault::at(at, format!("`{root}` belongs to the kernel")).help("name another place").into()),
        None => Ok(path),
    }
}
