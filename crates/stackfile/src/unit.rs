//! A stack, or a module of it: what its files declare, with variables, locals, modules and `for_each` evaluated, each
//! after what it refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use basalt_model::Name;

use crate::check::{self, Places};
use crate::decode::{self, Declared};
use crate::eval::{Evaluator, Scope};
use crate::expand::{self, FOR_EACH};
use crate::fault::{Eval, Fault};
use crate::globals::{self, AllGiven, Given, Globals, Group, shallow};
use crate::load::{Bodies, Loader};
use crate::module;
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context};
use crate::suggest::did_you_mean;
use crate::tree::{Attribute, Block};
use crate::value::{Data, Kind, Value};

/// The blocks of a stack, for suggestions.
const KNOWN: [&str; 8] = ["variable", "locals", "environment", "module", "output", "image", "service", "job"];

/// Blocks that later versions will know.
const NOT_YET: [&str; 5] = ["check", "data", "policy", "provider", "secret"];

/// What is charged for a module that is taken in, in bytes for each of its blocks.
pub(crate) const BLOCK: usize = 1024;

/// A stack or module with everything evaluated but its images, services and jobs.
pub(crate) struct Unit {
    pub(crate) bodies: Bodies,
    pub(crate) globals: Globals,
    folder: PathBuf,
    modules: Vec<Unit>,
    /// The values of its `output` blocks.
    pub(crate) outputs: BTreeMap<String, Output>,
}

/// The value of an `output` block.
pub(crate) struct Output {
    pub(crate) value: Value,
    pub(crate) description: Option<String>,
}

/// What a unit is made from.
pub(crate) struct Request<'r> {
    pub(crate) bodies: Bodies,
    pub(crate) folder: PathBuf,
    /// What the names of its images, services and jobs begin with.
    pub(crate) prefix: String,
    pub(crate) given: AllGiven,
    /// The folders or files of the modules around it, from the stack on.
    pub(crate) above: &'r [PathBuf],
}

/// The blocks of a unit that are evaluated before anything is decoded.
#[derive(Default)]
struct Blocks<'b> {
    variables: Vec<(u32, &'b Block)>,
    environments: Vec<(u32, &'b Block)>,
    outputs: Vec<(u32, &'b Block)>,
    items: BTreeMap<String, Item<'b>>,
}

/// Something that is evaluated after what it refers to.
struct Item<'b> {
    source: u32,
    at: At,
    name: String,
    needs: BTreeSet<(String, String)>,
    what: What<'b>,
}

enum What<'b> {
    Local(&'b Attribute),
    Module(&'b Block),
    Group(Kind, &'b Block),
}

impl Unit {
    /// Evaluates a stack or module.
    pub(crate) fn new(loader: &Loader, request: Request) -> Self {
        let cx = loader.cx;
        let Request { bodies, folder, prefix, mut given, above } = request;
        let root = above.len() <= 1;
        let to_stack = if root { ".".to_owned() } else { module::way(&folder, &loader.folder) };
        let mut globals =
            Globals { prefix, to_stack, environment: loader.environment.to_owned(), ..Globals::default() };
        let shared = Rc::clone(&bodies);
        let mut blocks = Blocks::default();
        for (source, body) in shared.iter() {
            for attribute in &body.attributes {
                stray_attribute(cx, attribute);
            }
            for block in &body.blocks {
                sort_block(cx, *source, block, &mut globals, &mut blocks);
            }
        }
        let environment = environment(cx, &blocks.environments, loader.environment, root);
        for (name, value) in environment {
            given.entry(name).or_insert(Given::Value(value));
        }
        globals.vars = globals::variables(cx, &blocks.variables, given, !root);
        globals::validate(cx, &blocks.variables, &globals);
        // Declared but not yet evaluated: a reference to what never will be is no second fault.
        for item in blocks.items.values() {
            let name = item.name.clone();
            match item.what {
                What::Local(_) => drop(globals.locals.insert(name, None)),
                What::Module(_) => drop(globals.modules.insert(name, None)),
                What::Group(kind, _) => drop(globals.groups.insert((kind, name), None)),
            }
        }
        let mut unit = Self { bodies, globals, folder, modules: Vec::new(), outputs: BTreeMap::new() };
        for key in order(cx, &blocks.items) {
            let item = &blocks.items[&key];
            unit.evaluate(loader, item, above);
        }
        unit.outputs = outputs(cx, &blocks.outputs, &unit.globals);
        unit
    }

    /// Evaluates one item, everything that it refers to being there.
    fn evaluate(&mut self, loader: &Loader, item: &Item, above: &[PathBuf]) {
        let cx = loader.cx;
        let ev = Evaluator::of_stack(cx, item.source, &self.globals);
        let name = item.name.clone();
        match item.what {
            What::Local(attribute) => {
                let value = ev.expr(&attribute.value, &Scope::default());
                let value = cx.keep(value.and_then(|value| shallow(value, &name)));
                self.globals.locals.insert(name, value);
            }
            What::Module(block) => {
                let (value, modules) = module::take(loader, &ev, block, &item.name, above);
                self.modules.extend(modules);
                self.globals.modules.insert(name, value);
            }
            What::Group(kind, block) => {
                let group = cx.keep(group(&ev, kind, block, &item.name));
                self.globals.groups.insert((kind, name), group);
            }
        }
    }

    /// Decodes its images, services and jobs, and those of its modules.
    pub(crate) fn decode(&self, cx: &Context, content: &mut decode::Content, places: &mut Places) {
        cx.within(&self.folder, || {
            for (source, body) in self.bodies.iter() {
                let ev = Evaluator::of_stack(cx, *source, &self.globals);
                for block in &body.blocks {
                    self.decode_block(&ev, block, content, places);
                }
            }
        });
        for module in &self.modules {
            module.decode(cx, content, places);
        }
    }

    fn decode_block(&self, ev: &Evaluator, block: &Block, content: &mut decode::Content, places: &mut Places) {
        let Some(kind) = kind(&block.ident) else { return };
        let [label] = block.labels.as_slice() else { return };
        let key = (kind, label.text.clone());
        // A second one of the name has been reported.
        if self.globals.blocks.get(&key) != Some(&label.at) {
            return;
        }
        let mut decode = |name: Name, block: &Block| {
            decode::block(ev, &Declared { kind, name, block }, content, places);
        };
        match self.globals.groups.get(&key) {
            Some(Some(group)) => {
                for (name, scope) in &group.members {
                    decode(name.clone(), &expand::expand(ev, block, Some(scope)));
                }
            }
            Some(None) => {}
            None => {
                let Ok(name) = full_name(kind, &format!("{}{}", self.globals.prefix, label.text), label.at) else {
                    return;
                };
                if block.has_dynamic() {
                    decode(name, &expand::expand(ev, block, None));
                } else {
                    decode(name, block);
                }
            }
        }
    }
}

/// Returns the kind of block that a word names, if blocks of it are decoded.
fn kind(word: &str) -> Option<Kind> {
    [Kind::Image, Kind::Service, Kind::Job].into_iter().find(|kind| kind.word() == word)
}

/// Reads the full name of an image, service or job.
fn full_name(kind: Kind, text: &str, at: At) -> Eval<Name> {
    if kind == Kind::Image { read::name(text, at) } else { read::host_name(text, at) }
}

/// Reports an attribute that does not belong into a file of a stack.
fn stray_attribute(cx: &Context, attribute: &Attribute) {
    let name = attribute.name.as_str();
    if name == "stack" {
        return;
    }
    let fault = Fault::at(attribute.name_at, format!("a stack has no attribute `{name}`"));
    let help = if KNOWN.contains(&name) {
        format!("write `{name} \"…\" {{ … }}`")
    } else {
        format!("a value to refer to belongs in a block: locals {{ {name} = … }}")
    };
    cx.report(match did_you_mean(name, KNOWN).filter(|help| help.starts_with("did")) {
        Some(near) if !KNOWN.contains(&name) => fault.help(near),
        _ => fault.help(help),
    });
}

/// Puts a block where it belongs, and records what is declared.
fn sort_block<'b>(cx: &Context, source: u32, block: &'b Block, globals: &mut Globals, blocks: &mut Blocks<'b>) {
    let ev = Evaluator::plain(cx, source);
    let word = block.ident.as_str();
    match word {
        "variable" => return blocks.variables.push((source, block)),
        "environment" => return blocks.environments.push((source, block)),
        "output" => return blocks.outputs.push((source, block)),
        "locals" => return locals(cx, source, block, blocks),
        "module" => {
            let Some((name, at)) = Reader::single_label(&ev, block) else { return };
            let item = Item { source, at, name, needs: block.references(), what: What::Module(block) };
            return add(cx, blocks, "module", item);
        }
        _ => {}
    }
    let Some(kind) = kind(word) else {
        if NOT_YET.contains(&word) {
            let fault = Fault::at(block.ident_at, format!("`{word}` blocks are not supported yet"));
            let secret = "secrets need no declaration: refer to `secret.NAME`".to_owned();
            return cx.report(fault.maybe_help((word == "secret").then_some(secret)));
        }
        let fault = Fault::at(block.ident_at, format!("a stack has no block `{word}`"));
        return cx.report(fault.label("not known here").maybe_help(did_you_mean(word, KNOWN)));
    };
    let Some((text, at)) = Reader::single_label(&ev, block) else { return };
    let for_each = block.body.attribute(FOR_EACH);
    let full = format!("{}{text}", globals.prefix);
    if for_each.is_none() && cx.keep(full_name(kind, &full, at)).is_none() {
        // Known all the same, so that references to it are not reported as well.
        globals.blocks.entry((kind, text)).or_insert(At { end: at.start, ..at });
        return;
    }
    if globals.blocks.contains_key(&(kind, text.clone())) || !declare(cx, kind, &full, at) {
        if let Some(first) = globals.blocks.get(&(kind, text.clone())) {
            taken(cx, kind, &full, at, *first);
        }
        return;
    }
    globals.blocks.insert((kind, text.clone()), at);
    if let Some(for_each) = for_each {
        let needs = for_each.value.references();
        let item = Item { source, at, name: text, needs, what: What::Group(kind, block) };
        add(cx, blocks, kind.word(), item);
    }
}

/// Takes a name for an image, service or job of the whole stack; reports it if it is taken.
fn declare(cx: &Context, kind: Kind, full: &str, at: At) -> bool {
    let mut declared = cx.declared.borrow_mut();
    // Services and jobs share one space of names, for their instances do.
    let sibling = match kind {
        Kind::Service => Kind::Job,
        Kind::Job => Kind::Service,
        other => other,
    };
    let first = declared.get(&(kind, full.to_owned())).or_else(|| declared.get(&(sibling, full.to_owned())));
    if let Some(first) = first {
        // One `module` or `for_each` may make two that share a place.
        if *first == at {
            let fault = Fault::at(at, format!("the name `{full}` is made twice")).label(format!("this {kind}"));
            cx.report(fault.help("give the modules or keys names that stay different when they are put together"));
        } else {
            taken(cx, kind, full, at, *first);
        }
        return false;
    }
    declared.insert((kind, full.to_owned()), at);
    true
}

fn taken(cx: &Context, kind: Kind, name: &str, at: At, first: At) {
    let fault = Fault::at(at, format!("the name `{name}` is taken")).label(format!("this {kind}"));
    let fault = fault.place(first, "the first of that name");
    cx.report(fault.help("services and jobs of a stack have different names, and so have images"));
}

/// Adds the attributes of a `locals` block.
fn locals<'b>(cx: &Context, source: u32, block: &'b Block, blocks: &mut Blocks<'b>) {
    for inner in &block.body.blocks {
        cx.report(Fault::at(inner.ident_at, "a `locals` block has no blocks inside").help("write `name = value`"));
    }
    for attribute in &block.body.attributes {
        let item = Item {
            source,
            at: attribute.name_at,
            name: attribute.name.clone(),
            needs: attribute.value.references(),
            what: What::Local(attribute),
        };
        add(cx, blocks, "local", item);
    }
}

/// Adds an item; reports a second of its name.
fn add<'b>(cx: &Context, blocks: &mut Blocks<'b>, root: &str, item: Item<'b>) {
    let key = format!("{root}.{}", item.name);
    match blocks.items.get(&key) {
        Some(first) => {
            let fault = Fault::at(item.at, format!("the {root} `{}` is declared twice", item.name));
            cx.report(fault.label("the second").place(first.at, "the first"));
        }
        None => drop(blocks.items.insert(key, item)),
    }
}

/// Returns the keys of items in an order in which each stands behind those it needs, and reports circles.
fn order(cx: &Context, items: &BTreeMap<String, Item>) -> Vec<String> {
    let edges = items.iter().map(|(key, item)| {
        let needs = item.needs.iter().map(|(root, name)| format!("{root}.{name}"));
        (key.clone(), needs.filter(|need| items.contains_key(need)).collect())
    });
    let (order, circles) = check::sort(edges.collect());
    for circle in circles {
        let all_locals = circle.iter().all(|key| key.starts_with("local."));
        let what = if all_locals { "locals" } else { "values" };
        let message = format!("{what} refer to each other in a circle: {}", circle.join(" → "));
        let mut fault = Fault::at(items[&circle[0]].at, message)
            .label("the circle begins here")
            .help("give one of them a value that does not need the others");
        for key in &circle[1..circle.len() - 1] {
            fault = fault.place(items[key].at, "goes on here");
        }
        cx.report(fault);
    }
    order
}

/// Returns the values that the block of the environment gives to variables.
fn environment(cx: &Context, blocks: &[(u32, &Block)], wanted: &str, root: bool) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    let mut declared: BTreeMap<String, At> = BTreeMap::new();
    for (source, block) in blocks.iter().filter(|_| root) {
        let ev = Evaluator::plain(cx, *source);
        let Some((text, at)) = Reader::single_label(&ev, block) else { continue };
        if let Some(first) = declared.insert(text.clone(), at) {
            let fault = Fault::at(at, format!("the environment `{text}` is declared twice"));
            cx.report(fault.label("the second").place(first, "the first"));
            continue;
        }
        cx.keep(read::name(&text, at));
        let mut reader = Reader::block(&ev, block, format!("environment `{text}`"));
        reader.get("description", read::text);
        let variables = reader.get("variables", |value| match &value.data {
            Data::Map(map) => Ok(map.clone()),
            _ => Err(value.wrong_type("a map").help("write { name = value }").into()),
        });
        reader.finish();
        if text == wanted {
            values = variables.unwrap_or_default();
        }
    }
    // The name that is used where none is given needs no block.
    if !declared.is_empty() && !declared.contains_key(wanted) && wanted != crate::load::DEFAULT_ENVIRONMENT {
        let fault = Fault::nowhere(format!("there is no environment `{wanted}`"));
        let known = did_you_mean(wanted, declared.keys().map(String::as_str));
        cx.report(fault.help(format!("declare it: environment \"{wanted}\" {{ }}")).maybe_help(known));
    }
    values
}

/// Evaluates the `output` blocks.
fn outputs(cx: &Context, blocks: &[(u32, &Block)], globals: &Globals) -> BTreeMap<String, Output> {
    let mut outputs = BTreeMap::new();
    let mut declared: BTreeMap<String, At> = BTreeMap::new();
    for (source, block) in blocks {
        let ev = Evaluator::of_stack(cx, *source, globals);
        let Some((name, at)) = Reader::single_label(&ev, block) else { continue };
        if let Some(first) = declared.insert(name.clone(), at) {
            let fault = Fault::at(at, format!("the output `{name}` is declared twice"));
            cx.report(fault.label("the second").place(first, "the first"));
            continue;
        }
        let mut reader = Reader::block(&ev, block, format!("output `{name}`"));
        if !reader.has("value") {
            let fault = Fault::at(reader.at, format!("{} has no `value`", reader.what));
            reader.report(fault.help("write value = …"));
        }
        let value = reader.value("value");
        let description = reader.get("description", read::text);
        let sensitive = reader.get("sensitive", read::boolean).unwrap_or(false);
        if let Some(value) = value {
            if value.is_sensitive() && !sensitive && globals.prefix.is_empty() {
                let fault = Fault::at(value.at, format!("{} would show a sensitive value", reader.what));
                reader.report(fault.label("this is sensitive").help("write sensitive = true, and it is not shown"));
            }
            outputs.insert(name, Output { value: value.marked(sensitive), description });
        }
        reader.finish();
    }
    outputs
}

/// Evaluates the `for_each` of an image, service or job.
fn group(ev: &Evaluator, kind: Kind, block: &Block, label: &str) -> Eval<Group> {
    let mut reader = Reader::block(ev, block, format!("{kind} `{label}`"));
    let prefix = ev.globals.map(|globals| globals.prefix.as_str()).unwrap_or_default();
    let mut members = Vec::new();
    let mut references = BTreeMap::new();
    let Some(collection) = reader.value(FOR_EACH) else {
        return Err(crate::fault::Faults::default());
    };
    let at = block.labels.first().map_or(block.header, |label| label.at);
    for (key, value) in expand::elements(&collection)? {
        let value_at = value.at;
        ev.cx.spend(value.size() + BLOCK, value_at)?;
        let full = format!("{prefix}{label}-{key}");
        let name = full_name(kind, &full, value_at)?;
        let reference = Value::new(Data::Reference(kind, full.clone()), at);
        if references.insert(key.clone(), reference).is_none() && declare(ev.cx, kind, &full, value_at) {
            members.push((name, expand::bind(None, "each", &key, value, value_at)));
        }
    }
    Ok(Group { references: Value::new(Data::Map(references), at), members })
}
