//! From a path to a stack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use basalt_model::{Name, Stack};
use hcl_edit::structure::{Block, Body};

use crate::check::{self, Places};
use crate::decode;
use crate::diagnostic::{Diagnostic, Severity};
use crate::eval::{Evaluator, Scope};
use crate::fault::Fault;
use crate::files::{Disk, Files};
use crate::globals::{self, Globals};
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context, Source};
use crate::suggest::did_you_mean;
use crate::value::Kind;

/// Values of variables from outside. Later ones win: the environment, files of variables in their order, the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// From `--var NAME=VALUE`. One that the stack does not declare is an error.
    pub vars: BTreeMap<String, String>,
    /// From `BASALT_VAR_NAME`, without that prefix. One that the stack does not declare is passed over.
    pub environment: BTreeMap<String, String>,
    /// Files of `name = value` lines, from `--var-file`.
    pub var_files: Vec<PathBuf>,
    /// The time that `timestamp()` returns, in seconds since 1970; without it, that is an error.
    pub now: Option<i64>,
}

/// A stack that was read, with everything there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The stack's name, if it can be told in spite of errors.
    pub name: Option<Name>,
    /// The stack; `None` only if there are errors.
    pub stack: Option<Stack>,
    /// Errors and warnings, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read; [`render`](crate::render()) shows lines of them.
    pub sources: Vec<Source>,
}

impl Loaded {
    /// Returns whether the stack can't be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Loads the stack at `path` on this machine: a file, or a folder whose `*.hcl` files are taken together.
pub fn load(path: &Path, inputs: &Inputs) -> Loaded {
    load_from(&Disk, path, inputs)
}

/// Loads the stack at `path` of `files`.
pub fn load_from(files: &dyn Files, path: &Path, inputs: &Inputs) -> Loaded {
    let is_folder = files.is_folder(path);
    let absolute = files.absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = if is_folder { absolute.clone() } else { absolute.parent().unwrap_or(&absolute).to_owned() };
    let mut cx = Context::new(files, folder);
    cx.now = inputs.now;
    let paths = if is_folder { stack_files(&cx, path) } else { vec![path.to_owned()] };
    let parsed = parse_all(&cx, &paths);
    let (name, stack) = match parsed {
        Some(bodies) => {
            let stem = if is_folder { absolute.file_name() } else { absolute.file_stem() };
            stack(&cx, &bodies, &stem.unwrap_or_default().to_string_lossy(), inputs)
        }
        None => (None, None),
    };
    let (mut diagnostics, sources) = cx.finish();
    let errors = diagnostics.iter().any(|d| d.severity == Severity::Error);
    if stack.is_none() && !errors {
        // A value is only missing if something was reported; should that ever not be so, it must not pass for success.
        let message = format!("`{}` can't be read as a stack", path.display());
        let severity = Severity::Error;
        diagnostics.push(Diagnostic { severity, message, span: None, label: None, places: Vec::new(), help: None });
    }
    Loaded { name, stack: stack.filter(|_| !errors), diagnostics, sources }
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
    paths.retain(|path| path.extension().is_some_and(|e| e == "hcl") && !hidden(path));
    paths.sort();
    if paths.is_empty() {
        let fault = Fault::nowhere(format!("`{}` has no stack file", folder.display()));
        cx.report(fault.help("a stack is a `.hcl` file, or a folder of them"));
    }
    paths
}

/// Reads and parses the files; `None` if one could not be.
fn parse_all(cx: &Context, paths: &[PathBuf]) -> Option<Vec<(u32, Body)>> {
    let mut bodies = Vec::new();
    for path in paths {
        match cx.read_text(path) {
            Ok(text) => {
                let source = cx.add_source(path.display().to_string(), text.clone());
                bodies.extend(parse(cx, source, &text).map(|body| (source, body)));
            }
            Err(why) => cx.report(Fault::nowhere(why).help("name a `.hcl` file, or a folder of them")),
        }
    }
    // A file that is missing would make references to its blocks look wrong.
    (!paths.is_empty() && bodies.len() == paths.len()).then_some(bodies)
}

/// Parses one source; reports it if it is not HCL.
pub(crate) fn parse(cx: &Context, source: u32, text: &str) -> Option<Body> {
    match hcl_edit::parser::parse_body(text) {
        Ok(body) => Some(body),
        Err(error) => {
            let start = error.location().offset().min(text.len());
            let start = (0..=start).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            let length = text[start..].chars().next().map_or(0, char::len_utf8);
            let at = At::new(source, start..start + length);
            let help = match error.message() {
                m if m.contains("block body") || m.contains("newline") => {
                    "a one-line block holds one attribute; otherwise each attribute and block has a line of its own"
                }
                m if m.contains("redefined") => "an attribute stands once in a block: keep one of them",
                m if m.contains("escape") => "a backslash is written `\\\\`",
                _ => "look for a quote, comma or bracket that is missing before this place",
            };
            cx.report(Fault::at(at, format!("not valid HCL: {}", error.message())).label("here").help(help));
            None
        }
    }
}

/// Blocks that later versions will know.
const NOT_YET: [&str; 8] = ["check", "data", "environment", "module", "output", "policy", "provider", "secret"];

/// The blocks of a stack, each with its source.
#[derive(Default)]
struct Blocks<'b> {
    variables: Vec<(u32, &'b Block)>,
    locals: Vec<(u32, &'b Block)>,
    declared: Vec<decode::Declared<'b>>,
}

/// Turns the syntax trees into a stack.
fn stack(cx: &Context, bodies: &[(u32, Body)], stem: &str, inputs: &Inputs) -> (Option<Name>, Option<Stack>) {
    let mut globals = Globals::default();
    let mut blocks = Blocks::default();
    for (source, body) in bodies {
        sort_blocks(cx, *source, body, &mut globals, &mut blocks);
    }
    globals.vars = globals::variables(cx, &blocks.variables, inputs);
    globals::locals(cx, &blocks.locals, &mut globals);
    let name = stack_name(cx, bodies, stem, &globals);
    let mut places = Places::default();
    let mut stack = decode::Content::default();
    for declared in &blocks.declared {
        let ev = Evaluator::of_stack(cx, declared.source, &globals);
        decode::block(&ev, declared, &mut stack, &mut places);
    }
    let decode::Content { images, services, jobs } = stack;
    let Some(name) = name else { return (None, None) };
    let stack = Stack { name: name.clone(), images, services, jobs };
    check::check(cx, &stack, &places);
    (Some(name), Some(stack))
}

/// Puts each block of a file where it belongs, and records what is declared.
fn sort_blocks<'b>(cx: &Context, source: u32, body: &'b Body, globals: &mut Globals, blocks: &mut Blocks<'b>) {
    const KNOWN: [&str; 5] = ["variable", "locals", "image", "service", "job"];
    let ev = Evaluator::plain(cx, source);
    let start = At::new(source, 0..0);
    for attribute in body.attributes() {
        let name = attribute.key.as_str();
        if name != "stack" {
            let fault = Fault::at(ev.at(&attribute.key, start), format!("a stack has no attribute `{name}`"));
            let help = if KNOWN.contains(&name) {
                format!("write `{name} \"…\" {{ … }}`")
            } else {
                format!("a value to refer to belongs in a block: locals {{ {name} = … }}")
            };
            cx.report(fault.help(help));
        }
    }
    for block in body.blocks() {
        let word = block.ident.as_str();
        let at = ev.at(&block.ident, start);
        let kind = match word {
            "variable" => {
                blocks.variables.push((source, block));
                continue;
            }
            "locals" => {
                blocks.locals.push((source, block));
                continue;
            }
            "image" => Kind::Image,
            "service" => Kind::Service,
            "job" => Kind::Job,
            _ if NOT_YET.contains(&word) => {
                let fault = Fault::at(at, format!("`{word}` blocks are not supported yet"));
                cx.report(if word == "secret" {
                    fault.help("secrets need no declaration: refer to `secret.NAME`")
                } else {
                    fault
                });
                continue;
            }
            _ => {
                let fault = Fault::at(at, format!("a stack has no block `{word}`"));
                cx.report(fault.label("not known here").maybe_help(did_you_mean(word, KNOWN)));
                continue;
            }
        };
        let Some((text, label_at)) = Reader::single_label(&ev, block) else { continue };
        let first = globals.blocks.get(&(kind, text.clone())).copied();
        // Services and jobs share one space of names, for their instances do.
        let sibling = match kind {
            Kind::Service => globals.blocks.get(&(Kind::Job, text.clone())).copied(),
            Kind::Job => globals.blocks.get(&(Kind::Service, text.clone())).copied(),
            _ => None,
        };
        if let Some(first) = first.or(sibling) {
            let fault = Fault::at(label_at, format!("the name `{text}` is taken")).label(format!("this {kind}"));
            let fault = fault.place(first, "the first of that name");
            cx.report(fault.help("services and jobs of a stack have different names, and so have images"));
        } else {
            globals.blocks.insert((kind, text.clone()), label_at);
        }
        let name = match kind {
            Kind::Image => read::name(&text, label_at),
            _ => read::host_name(&text, label_at),
        };
        if let Some(name) = cx.keep(name) {
            blocks.declared.push(decode::Declared { kind, name, source, block });
        }
    }
}

/// Returns the name of the stack: what it says itself, else the name of its file or folder.
fn stack_name(cx: &Context, bodies: &[(u32, Body)], stem: &str, globals: &Globals) -> Option<Name> {
    let mut said: Option<(Option<Name>, At)> = None;
    for (source, body) in bodies {
        let Some(attribute) = body.get_attribute("stack") else { continue };
        let ev = Evaluator::of_stack(cx, *source, globals);
        let at = ev.at(&attribute.key, At::new(*source, 0..0));
        if let Some((_, first)) = &said {
            let fault = Fault::at(at, "the stack is named twice").label("the second");
            cx.report(fault.place(*first, "the first").help("keep one of them"));
            continue;
        }
        let name = ev.eval(&attribute.value, &Scope::default(), at);
        let name = name.and_then(|value| read::name(&value.to_text()?, value.at));
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
