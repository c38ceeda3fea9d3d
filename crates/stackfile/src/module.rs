//! Modules: folders of this machine that a stack takes in, once or for each element.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use crate::eval::{Evaluator, Scope};
use crate::expand::{self, FOR_EACH};
use crate::fault::Fault;
use crate::globals::{AllGiven, Given};
use crate::load::Loader;
use crate::read;
use crate::reader::Reader;
use crate::tree::{Attribute, Block};
use crate::unit::{BLOCK, Request, Unit};
use crate::value::{Data, Value};

/// The most modules within each other: more than any stack needs, few enough that no `for_each` in each multiplies beyond bounds.
const DEEPEST_MODULE: usize = 8;

/// Takes a module in, once or for each element. Returns its outputs.
pub(crate) fn take(
    loader: &Loader,
    ev: &Evaluator,
    block: &Block,
    label: &str,
    above: &[PathBuf],
) -> (Option<Value>, Vec<Unit>) {
    let cx = loader.cx;
    let at = block.header;
    let mut reader = Reader::block(ev, block, format!("module `{label}`"));
    let path = reader.required("source", "source = \"./folder\"", |value| {
        let text = read::text(value)?;
        if text.starts_with("./") || text.starts_with("../") || text.starts_with('/') {
            return Ok((cx.resolve(&text), value.at));
        }
        let fault = Fault::at(value.at, format!("{} is not a path", value.shown()));
        Err(fault.help("modules are folders or files of this machine: begin with `./`, `../` or `/`").into())
    });
    reader.refuse("version", "a module from this machine has no `version`");
    reader.refuse("providers", "a module has no `providers`");
    let for_each = reader.attribute(FOR_EACH);
    let inputs: Vec<&Attribute> =
        reader.others().into_iter().filter(|a| a.name != "version" && a.name != "providers").collect();
    reader.finish();
    let Some((path, path_at)) = path else { return (None, Vec::new()) };
    let path = tidy(&path);
    if above.contains(&path) {
        let names: Vec<String> = above.iter().chain([&path]).map(|path| format!("`{}`", path.display())).collect();
        let fault = Fault::at(path_at, format!("modules contain each other in a circle: {}", names.join(" → ")));
        cx.report(fault.help("one of them has to do without the others"));
        return (None, Vec::new());
    }
    if above.len() > DEEPEST_MODULE {
        // Links may lead in circles by ever longer paths.
        let fault = Fault::at(path_at, format!("more than {DEEPEST_MODULE} modules within each other"));
        cx.report(fault.help("look for a link that leads back to a folder above it"));
        return (None, Vec::new());
    }
    let Some((bodies, folder)) = loader.module(&path, path_at) else { return (None, Vec::new()) };
    let blocks: usize = bodies.iter().map(|(_, body)| body.blocks.len() + 1).sum();
    let above: Vec<PathBuf> = above.iter().cloned().chain([path]).collect();
    let once = |key: Option<&str>, scope: &Scope| -> Option<(Value, Unit)> {
        cx.keep(cx.spend(blocks * BLOCK, at))?;
        let mut given = AllGiven::new();
        let mut whole = true;
        for input in &inputs {
            match cx.keep(ev.expr(&input.value, scope)) {
                Some(value) => drop(given.insert(input.name.clone(), Given::Value(value))),
                None => whole = false,
            }
        }
        let outer = ev.globals.map(|globals| globals.prefix.as_str()).unwrap_or_default();
        let prefix = match key {
            Some(key) => format!("{outer}{label}-{key}-"),
            None => format!("{outer}{label}-"),
        };
        // An input that has no value would be reported again as missing.
        let request = Request { bodies: Rc::clone(&bodies), folder: folder.clone(), prefix, given, above: &above };
        let unit = whole.then(|| cx.within(&folder, || Unit::new(loader, request)))?;
        let outputs = unit.outputs.iter().map(|(name, output)| (name.clone(), output.value.clone()));
        Some((Value::new(Data::Map(outputs.collect()), at), unit))
    };
    let Some(for_each) = for_each else {
        return match once(None, &Scope::default()) {
            Some((value, unit)) => (Some(value), vec![unit]),
            None => (None, Vec::new()),
        };
    };
    let elements = ev.expr(&for_each.value, &Scope::default()).and_then(|collection| expand::elements(&collection));
    let Some(elements) = cx.keep(elements) else { return (None, Vec::new()) };
    let mut values = BTreeMap::new();
    let mut units = Vec::new();
    for (key, value) in elements {
        let scope = expand::bind(None, "each", &key, value, for_each.value.at());
        let Some((value, unit)) = once(Some(&key), &scope) else { return (None, units) };
        values.insert(key, value);
        units.push(unit);
    }
    (Some(Value::new(Data::Map(values), at)), units)
}

/// Returns an absolute path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(tidy.pop()),
            Component::CurDir => {}
            other => tidy.push(other),
        }
    }
    tidy
}

/// Returns the relative way from one folder to another.
pub(crate) fn way(from: &Path, to: &Path) -> String {
    let (from, to) = (tidy(from), tidy(to));
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(shared)).collect();
    if way.as_os_str().is_empty() { ".".to_owned() } else { way.to_string_lossy().into_owned() }
}
