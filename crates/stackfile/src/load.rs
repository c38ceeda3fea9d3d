//! From a path to a stack.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use basalt_model::{Name, Stack};
use serde::Serialize;

use crate::check::{self, Places};
use crate::decode;
use crate::diagnostic::{Diagnostic, Severity};
use crate::eval::{Evaluator, Scope};
use crate::fault::Fault;
use crate::files::{Disk, Files};
use crate::functions;
use crate::globals::{self, AllGiven, Given};
use crate::read;
use crate::schema;
use crate::sealed::Sealed;
use crate::source::{At, Context, Source};
use crate::text::{Format, unmarked};
use crate::tree::Body;
use crate::unit::{Request, Unit};

/// The environment that is meant where none is named.
pub(crate) const DEFAULT_ENVIRONMENT: &str = "default";

/// Values of variables from outside. Later ones win: the default, the `environment` block, variables of the process, files
/// of variables in their order, the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// From `--var NAME=VALUE`. One that the stack does not declare is an error.
    pub vars: BTreeMap<String, String>,
    /// From `BASALT_VAR_NAME`, without that prefix. One that the stack does not declare is passed over.
    pub process: BTreeMap<String, String>,
    /// Files of `name = value` lines, from `--var-file`.
    pub var_files: Vec<PathBuf>,
    /// The time that `timestamp()` returns, in seconds since 1970; without it, that is an error.
    pub now: Option<i64>,
    /// The environment, from `--environment`; `None` is `default`.
    pub environment: Option<String>,
}

/// A stack that was read, with everything there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The stack's name, if it can be told in spite of errors.
    pub name: Option<Name>,
    /// The stack; `None` only if there are errors.
    pub stack: Option<Stack>,
    /// What it gives out.
    pub outputs: BTreeMap<String, OutputValue>,
    /// What its sensitive values are, by the name of the secret that the stack refers to in their place.
    pub sealed: BTreeMap<Name, Sealed>,
    /// Errors and warnings, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read; [`render`](crate::render()) shows lines of them.
    pub sources: Vec<Source>,
}

/// The value of an `output` block. Its JSON form is part of `--output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputValue {
    /// The value; `None` if it is sensitive. Numbers that a 64-bit floating-point number can't hold are rounded.
    pub value: Option<serde_json::Value>,
    /// The value as JSON with every number exact; `None` if it is sensitive.
    #[serde(skip)]
    pub exact: Option<String>,
    /// Whether it must not be shown.
    pub sensitive: bool,
    /// What it is for.
    pub description: Option<String>,
}

impl Loaded {
    /// Returns whether the stack can't be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Loads the stack at `path` on this machine: a file of HCL, YAML or JSON, or a folder whose files are taken together.
pub fn load(path: &Path, inputs: &Inputs) -> Loaded {
    load_from(&Disk, path, inputs)
}

/// Loads the stack at `path` of `files`.
pub fn load_from(files: &dyn Files, path: &Path, inputs: &Inputs) -> Loaded {
    let is_folder = files.is_folder(path);
    let absolute = files.absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = if is_folder { absolute.clone() } else { absolute.parent().unwrap_or(&absolute).to_owned() };
    let mut cx = Context::new(files, folder.clone());
    cx.now = inputs.now;
    let paths = if is_folder { stack_files(&cx, path) } else { vec![path.to_owned()] };
    let bodies = parse_all(&cx, &paths, is_folder);
    let stem = if is_folder { absolute.file_name() } else { absolute.file_stem() };
    // `shop.basalt.yaml` is named for what is before the first dot.
    let stem = stem.unwrap_or_default().to_string_lossy().into_owned();
    let stem = stem.strip_suffix(".basalt").unwrap_or(&stem).to_owned();
    finish(cx, bodies, &stem, &folder, &absolute, inputs, &path.display().to_string())
}

/// Loads the stack that a text is, of whatever kind it looks like; relative paths in it start at `folder`.
pub fn load_text(files: &dyn Files, text: &str, folder: &Path, inputs: &Inputs) -> Loaded {
    const NAME: &str = "<standard input>";
    let folder = files.absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut cx = Context::new(files, folder.clone());
    cx.now = inputs.now;
    let text = unmarked(text);
    let source = cx.add_source(NAME.to_owned(), text.to_owned());
    let body = Format::of_text(text).parse(&cx, source, text, &schema::STACK);
    let bodies = body.map(|body| vec![(source, body)]);
    let stem = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    finish(cx, bodies, &stem, &folder, &folder.join(NAME), inputs, NAME)
}

/// Reads an HCL text and evaluates nothing: what is said about it is about its form alone.
pub fn parse_hcl(files: &dyn Files, name: &str, text: &str) -> Loaded {
    let cx = Context::new(files, PathBuf::new());
    let text = unmarked(text);
    let source = cx.add_source(name.to_owned(), text.to_owned());
    Format::Hcl.parse(&cx, source, text, &schema::STACK);
    let (diagnostics, sources) = cx.finish();
    let (outputs, sealed) = (BTreeMap::new(), BTreeMap::new());
    Loaded { name: None, stack: None, outputs, sealed, diagnostics, sources }
}

/// Evaluates and decodes what was parsed.
fn finish(
    cx: Context,
    bodies: Option<Vec<(u32, Body)>>,
    stem: &str,
    folder: &Path,
    path: &Path,
    inputs: &Inputs,
    shown: &str,
) -> Loaded {
    let (name, stack, outputs, sealed) = match bodies {
        Some(bodies) => {
            let environment = inputs.environment.as_deref().unwrap_or(DEFAULT_ENVIRONMENT);
            let loader = Loader { cx: &cx, folder: folder.to_owned(), environment, parsed: RefCell::default() };
            evaluate(&loader, bodies, stem, path, inputs)
        }
        None => Default::default(),
    };
    let (mut diagnostics, sources) = cx.finish();
    let errors = diagnostics.iter().any(|d| d.severity == Severity::Error);
    if stack.is_none() && !errors {
        // A value is only missing if something was reported; should that ever not be so, it must not pass for success.
        let message = format!("`{shown}` can't be read as a stack");
        let severity = Severity::Error;
        diagnostics.push(Diagnostic { severity, message, span: None, label: None, places: Vec::new(), help: None });
    }
    Loaded { name, stack: stack.filter(|_| !errors), outputs, sealed, diagnostics, sources }
}

/// Returns the stack files of a folder, sorted; reports it if there are none.
fn stack_files(cx: &Context, folder: &Path) -> Vec<PathBuf> {
    let mut paths = match cx.files.list(folder) {
        Ok(paths) => paths,
        Err(error) => {
            cx.report(Fault::nowhere(format!("`{}` can't be listed: {error}", folder.display())));
            return Vec::new();
        }
    };
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    paths.retain(|path| Format::of_suffix(path).is_some() && !hidden(path));
    paths.sort();
    if paths.is_empty() {
        no_stack_file(cx, folder);
    }
    paths
}

fn no_stack_file(cx: &Context, folder: &Path) {
    let fault = Fault::nowhere(format!("`{}` has no stack file", folder.display()));
    cx.report(fault.help("a stack is a `.hcl`, `.yaml` or `.json` file, or a folder of them"));
}

/// Reads and parses the files; `None` if one could not be. Of a folder, YAML and JSON files that have no key of a stack
/// belong to something else, and are passed over.
fn parse_all(cx: &Context, paths: &[PathBuf], folder: bool) -> Option<Vec<(u32, Body)>> {
    let mut bodies = Vec::new();
    let mut whole = !paths.is_empty();
    for path in paths {
        let text = match cx.read_text(path) {
            Ok(text) => text,
            Err(why) => {
                cx.report(Fault::nowhere(why).help("name a `.hcl`, `.yaml` or `.json` file, or a folder of them"));
                whole = false;
                continue;
            }
        };
        let text = unmarked(&text);
        let format = Format::of(path, text);
        let source = cx.add_source(path.display().to_string(), text.to_owned());
        match format.parse(cx, source, text, &schema::STACK) {
            Some(body) if folder && format != Format::Hcl && !is_stack(&body) => {}
            Some(body) => bodies.push((source, body)),
            // A file that is missing would make references to its blocks look wrong.
            None => whole = false,
        }
    }
    if whole && bodies.is_empty() {
        no_stack_file(cx, paths.first().and_then(|path| path.parent()).unwrap_or(Path::new(".")));
        return None;
    }
    whole.then_some(bodies)
}

/// Returns whether a YAML or JSON file has a key that stacks have.
fn is_stack(body: &Body) -> bool {
    !body.blocks.is_empty() || body.attribute("stack").is_some()
}

/// The parsed files of a stack or module.
pub(crate) type Bodies = Rc<Vec<(u32, Body)>>;

/// What the evaluation of a stack and its modules shares.
pub(crate) struct Loader<'l> {
    pub(crate) cx: &'l Context<'l>,
    /// The stack's folder.
    pub(crate) folder: PathBuf,
    pub(crate) environment: &'l str,
    /// The modules that were read, by path; each is read once.
    parsed: RefCell<BTreeMap<PathBuf, Option<(Bodies, PathBuf)>>>,
}

impl Loader<'_> {
    /// Returns the files of a module and its folder; reports it if it can't be read.
    pub(crate) fn module(&self, path: &Path, at: At) -> Option<(Bodies, PathBuf)> {
        if let Some(parsed) = self.parsed.borrow().get(path) {
            return parsed.clone();
        }
        let cx = self.cx;
        let is_folder = cx.files.is_folder(path);
        if !cx.files.exists(path) {
            let fault = Fault::at(at, format!("there is no folder or file `{}`", path.display()));
            cx.report(fault.help("paths that are not absolute begin at the folder of the file they stand in"));
        }
        let parsed = cx.files.exists(path).then(|| {
            let paths = if is_folder { stack_files(cx, path) } else { vec![path.to_owned()] };
            let folder = if is_folder { path } else { path.parent().unwrap_or(path) };
            parse_all(cx, &paths, is_folder).map(|bodies| (Rc::new(bodies), folder.to_owned()))
        });
        let parsed = parsed.flatten();
        self.parsed.borrow_mut().insert(path.to_owned(), parsed.clone());
        parsed
    }
}

type Evaluated = (Option<Name>, Option<Stack>, BTreeMap<String, OutputValue>, BTreeMap<Name, Sealed>);

/// Turns the trees into a stack.
fn evaluate(loader: &Loader, bodies: Vec<(u32, Body)>, stem: &str, path: &Path, inputs: &Inputs) -> Evaluated {
    let cx = loader.cx;
    if let Err(error) = loader.environment.parse::<Name>() {
        cx.report(Fault::nowhere(format!("the environment's name: {error}")));
    }
    let request = Request {
        bodies: Rc::new(bodies),
        folder: loader.folder.clone(),
        prefix: String::new(),
        given: given(cx, inputs),
        above: &[path.to_owned()],
    };
    let unit = Unit::new(loader, request);
    let name = stack_name(cx, &unit, stem);
    let mut places = Places::default();
    let mut content = decode::Content::default();
    unit.decode(cx, &mut content, &mut places);
    let outputs = unit.outputs.iter().filter_map(|(name, output)| {
        let sensitive = output.value.is_sensitive();
        let exact = if sensitive { None } else { Some(cx.keep(functions::plain_json(&output.value.clone().named()))?) };
        let value = exact.as_ref().map(|text| serde_json::from_str(text).unwrap_or_default());
        Some((name.clone(), OutputValue { value, exact, sensitive, description: output.description.clone() }))
    });
    let outputs = outputs.collect();
    let decode::Content { images, services, jobs, sealed } = content;
    let Some(name) = name else { return (None, None, outputs, BTreeMap::new()) };
    let stack = Stack { name: name.clone(), images, services, jobs };
    check::check(cx, &stack, &places);
    (Some(name), Some(stack), outputs, sealed)
}

/// Returns all values given from outside: the command line wins over files of variables, these over the process.
fn given(cx: &Context, inputs: &Inputs) -> AllGiven {
    let mut given = AllGiven::new();
    for (name, text) in &inputs.process {
        let origin = format!("BASALT_VAR_{name}");
        given.insert(name.clone(), Given::Text { text: text.clone(), origin });
    }
    for path in &inputs.var_files {
        globals::from_file(cx, path, &mut given);
    }
    for (name, text) in &inputs.vars {
        let origin = format!("--var {name}");
        given.insert(name.clone(), Given::Text { text: text.clone(), origin });
    }
    given
}

/// Returns the name of the stack: what it says itself, else the name of its file or folder.
fn stack_name(cx: &Context, unit: &Unit, stem: &str) -> Option<Name> {
    let mut said: Option<(Option<Name>, At)> = None;
    for (source, body) in unit.bodies.iter() {
        let Some(attribute) = body.attribute("stack") else { continue };
        let ev = Evaluator::of_stack(cx, *source, &unit.globals);
        let at = attribute.name_at;
        if let Some((_, first)) = &said {
            let fault = Fault::at(at, "the stack is named twice").label("the second");
            cx.report(fault.place(*first, "the first").help("keep one of them"));
            continue;
        }
        let name = ev.expr(&attribute.value, &Scope::default());
        let name = name.and_then(|value| match value.is_sensitive() {
            true => Err(Fault::at(value.at, "the stack's name can't be sensitive, for it is shown").into()),
            false => read::name(&value.to_text()?, value.at),
        });
        said = Some((cx.keep(name), at));
    }
    match said {
        Some((name, _)) => name,
        None => stem
            .parse()
            .map_err(|_| {
                let better =
                    Some(read::better_name(stem)).filter(|b| !b.is_empty()).unwrap_or_else(|| "shop".to_owned());
                let fault =
                    Fault::nowhere(format!("`{stem}`, the name of the file or folder, can't be the name of the stack"));
                cx.report(fault.help(format!("name the stack in it: stack = \"{better}\"")));
            })
            .ok(),
    }
}
