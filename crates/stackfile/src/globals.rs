//! What `var.x`, `local.x`, `module.x` and the names of blocks mean, and how variables get their values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use basalt_model::Name;
use hcl_edit::expr::Expression;

use crate::eval::{Evaluator, Origin, Scope};
use crate::fault::{Eval, Fault, Faults};
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context};
use crate::suggest::did_you_mean;
use crate::tree::{Block, Expr, NodeData};
use crate::types::Type;
use crate::value::{DEEPEST, Data, Kind, Value};

/// What expressions of a stack or module may refer to. What has no value has been reported.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    pub(crate) vars: BTreeMap<String, Option<Value>>,
    pub(crate) locals: BTreeMap<String, Option<Value>>,
    /// The outputs of modules, by name, or by key and name.
    pub(crate) modules: BTreeMap<String, Option<Value>>,
    /// Where each image, service and job is declared.
    pub(crate) blocks: BTreeMap<(Kind, String), At>,
    /// The images, services and jobs that are made by `for_each`.
    pub(crate) groups: BTreeMap<(Kind, String), Option<Group>>,
    /// What the names of images, services and jobs of a module begin with.
    pub(crate) prefix: String,
    /// The environment's name.
    pub(crate) environment: String,
    /// The way from the module's folder to that of the stack.
    pub(crate) to_stack: String,
}

/// What a `for_each` makes of one block.
#[derive(Debug)]
pub(crate) struct Group {
    /// The blocks by key, as references.
    pub(crate) references: Value,
    /// Name of each, and what `each` means in it.
    pub(crate) members: Vec<(Name, Rc<Scope<'static>>)>,
}

impl Globals {
    /// The words that references begin with.
    pub(crate) const ROOTS: [&str; 9] =
        ["var", "local", "module", "image", "service", "job", "secret", "path", "basalt"];

    /// Returns whether references may begin with this word.
    pub(crate) fn is_root(word: &str) -> bool {
        Self::ROOTS.contains(&word)
    }

    /// Returns the value of `root.name`, where the root is no kind of block.
    pub(crate) fn get(&self, root: &str, name: &str, at: At) -> Eval<Cow<'_, Value>> {
        let (values, what) = match root {
            "var" => (&self.vars, "variable"),
            "local" => (&self.locals, "local"),
            "module" => (&self.modules, "module"),
            _ => {
                let known: &[(&str, &str)] = match root {
                    "path" => &[("module", "."), ("stack", &self.to_stack)],
                    _ => &[("environment", &self.environment)],
                };
                return match known.iter().find(|(known, _)| *known == name) {
                    Some((_, text)) => Ok(Cow::Owned(Value::text(*text, at))),
                    None => Err(Fault::at(at, format!("there is no `{root}.{name}`"))
                        .maybe_help(did_you_mean(name, known.iter().map(|(known, _)| *known)))
                        .into()),
                };
            }
        };
        match values.get(name) {
            Some(Some(value)) => Ok(Cow::Borrowed(value)),
            Some(None) => Err(Faults::default()),
            None => Err(Fault::at(at, format!("there is no {what} `{name}`"))
                .label("not declared")
                .maybe_help(did_you_mean(name, values.keys().map(String::as_str)))
                .into()),
        }
    }
}

/// A value given from outside for a variable.
#[derive(Debug)]
pub(crate) enum Given {
    /// As written on a command line.
    Text { text: String, origin: String },
    /// From a file of variables, an `environment` block, or the stack that takes a module in.
    Value(Value),
}

/// Where the variables of a stack or module get their values.
pub(crate) type AllGiven = BTreeMap<String, Given>;

/// Evaluates the `variable` blocks.
pub(crate) fn variables(
    cx: &Context,
    blocks: &[(u32, &Block)],
    mut given: AllGiven,
    module: bool,
) -> BTreeMap<String, Option<Value>> {
    let mut declared: BTreeMap<String, At> = BTreeMap::new();
    let mut vars = BTreeMap::new();
    for (source, block) in blocks {
        let ev = Evaluator::plain(cx, *source);
        let Some((name, name_at)) = Reader::single_label(&ev, block) else { continue };
        if let Some(first) = declared.insert(name.clone(), name_at) {
            let fault = Fault::at(name_at, format!("the variable `{name}` is declared twice"));
            cx.report(fault.label("the second").place(first, "the first"));
            continue;
        }
        let value = variable(&ev, block, &name, name_at, given.remove(&name), module);
        vars.insert(name, value);
    }
    for (name, given) in given {
        let help = did_you_mean(&name, vars.keys().map(String::as_str));
        let help = help.unwrap_or_else(|| format!("declare it: variable \"{name}\" {{ }}"));
        match given {
            // The process environment is shared with other stacks.
            Given::Text { origin, .. } if origin.starts_with("BASALT_VAR_") => {}
            Given::Text { origin, .. } => {
                cx.report(Fault::nowhere(format!("{origin}: there is no variable `{name}`")).help(help));
            }
            Given::Value(value) => cx.report(Fault::at(value.at, format!("there is no variable `{name}`")).help(help)),
        }
    }
    vars
}

/// Evaluates one `variable` block.
fn variable(
    ev: &Evaluator,
    block: &Block,
    name: &str,
    name_at: At,
    given: Option<Given>,
    module: bool,
) -> Option<Value> {
    let mut reader = Reader::block(ev, block, format!("variable `{name}`"));
    let of = reader.attribute("type").map(|attribute| read_type(ev, &attribute.value));
    let default = reader.value("default");
    let has_default = reader.has("default");
    reader.get("description", read::text);
    let sensitive = reader.get("sensitive", read::boolean).unwrap_or(false);
    let nullable = reader.get("nullable", read::boolean).unwrap_or(true);
    reader.blocks(&["validation"]);
    reader.finish();
    let of = match of {
        Some(of) => Some(ev.cx.keep(of)?),
        None => None,
    };
    let default_null = has_default && default.is_none();
    let null = || Value::new(Data::Null, name_at);
    let value = match given {
        Some(Given::Value(value)) => Ok(value),
        Some(Given::Text { text, origin }) => {
            parse_given(ev.cx, text, origin, of.as_ref(), default.as_ref(), sensitive.then_some(name_at))
        }
        // A default that is wrong has been reported.
        None if default_null && !matches!(block.body.attribute("default").map(|a| is_null(&a.value)), Some(true)) => {
            return None;
        }
        None if has_default => Ok(default.clone().unwrap_or_else(null)),
        None => {
            let help = if module {
                format!("give it in the `module` block: {name} = …")
            } else {
                format!("give `--var {name}=…`, set BASALT_VAR_{name}, or write a `default`")
            };
            return ev.cx.keep(Err(Fault::at(name_at, format!("the variable `{name}` has no value"))
                .label("neither given nor with a default")
                .help(help)
                .into()));
        }
    };
    let value = value.and_then(|value| {
        let value = match default {
            Some(default) if value.is_null() && !nullable => default,
            _ => value,
        };
        if value.is_null() && !nullable {
            return Err(Fault::at(value.at, format!("the variable `{name}` can't be null")).into());
        }
        // The text that a sensitive value stands in is never shown.
        let value = if sensitive { value.moved(name_at) } else { value };
        of.unwrap_or(Type::Any).convert(value.marked(sensitive))
    });
    ev.cx.keep(value.and_then(|value| shallow(value, name)))
}

/// Returns whether an expression is `null` itself.
fn is_null(expr: &Expr) -> bool {
    match expr {
        Expr::Hcl(_, expr) => matches!(&**expr, Expression::Null(_)),
        Expr::Node(node) => matches!(node.data, NodeData::Null),
    }
}

/// Reads a type: an expression, or a text that holds one.
fn read_type(ev: &Evaluator, expr: &Expr) -> Eval<Type> {
    let at = expr.at();
    let text = match expr {
        Expr::Hcl(_, hcl) => match &**hcl {
            Expression::String(text) => text.value().clone(),
            hcl => return Type::parse(&ev.shifted(expr), hcl, at),
        },
        Expr::Node(node) => match &node.data {
            NodeData::Text(text) => text.clone(),
            // `${list(string)}` is the type itself.
            NodeData::Template(template) => match (template.template.get(0), template.template.len()) {
                (Some(hcl_edit::template::Element::Interpolation(only)), 1) => {
                    let ev = Evaluator { origin: Origin::Within(at, &template.text), ..*ev };
                    return Type::parse(&ev, &only.expr, at);
                }
                _ => return Err(Fault::at(at, "not a type").help("write for example \"list(string)\"").into()),
            },
            _ => return Err(Fault::at(at, "not a type").help("write for example \"list(string)\"").into()),
        },
    };
    let parsed: Expression =
        text.parse().map_err(|_| Fault::at(at, "not a type").help("write for example \"list(string)\""))?;
    Type::parse(&Evaluator { origin: Origin::Within(at, &text), ..*ev }, &parsed, at)
}

/// Checks the values of variables by their `validation` blocks.
pub(crate) fn validate(cx: &Context, blocks: &[(u32, &Block)], globals: &Globals) {
    for (source, block) in blocks {
        let ev = Evaluator::of_stack(cx, *source, globals);
        let Some(name) = block.labels.first().map(|label| label.text.clone()) else { continue };
        for inner in block.body.blocks.iter().filter(|inner| inner.ident == "validation") {
            let mut reader = Reader::block(&ev, inner, format!("`validation` of variable `{name}`"));
            let condition = reader.attribute("condition");
            if condition.is_none() {
                let fault = Fault::at(inner.header, format!("{} has no `condition`", reader.what));
                reader.report(fault.help(format!("write condition = var.{name} != \"\"")));
            }
            let message = reader.required("error_message", "error_message = \"…\"", read::text);
            // The condition of a variable without a value would only say so again.
            let value = globals.vars.get(&name).and_then(Option::as_ref);
            if let (Some(condition), Some(message), Some(value)) = (condition, message, value) {
                let holds = reader.eval(&condition.value).and_then(|holds| holds.to_bool());
                if cx.keep(holds) == Some(false) {
                    let fault = Fault::at(value.at, format!("the variable `{name}` can't have this value: {message}"));
                    cx.report(fault.place(condition.value.at(), "this does not hold"));
                }
            }
            reader.finish();
        }
    }
}

/// Returns the value of a text from the command line: as is where a string is wanted, else as an expression. With
/// `hidden`, the text must not be shown, and its place is that.
fn parse_given(
    cx: &Context,
    text: String,
    origin: String,
    of: Option<&Type>,
    default: Option<&Value>,
    hidden: Option<At>,
) -> Eval<Value> {
    let (source, at) = match hidden {
        Some(at) => (at.source, at),
        None => {
            let source = cx.add_source(origin, text.clone());
            (source, At::new(source, 0..text.len()))
        }
    };
    let wants_text = match (of, default) {
        (Some(of), _) => *of == Type::String,
        (None, Some(default)) => matches!(default.data, Data::Text(_)),
        (None, None) => true,
    };
    if wants_text || matches!(of, Some(Type::Number | Type::Bool)) {
        // The text is converted with everything else.
        return Ok(Value::text(text, at));
    }
    match text.parse::<Expression>() {
        Ok(expr) => {
            let origin = if hidden.is_some() { Origin::Within(at, &text) } else { Origin::Same };
            Evaluator { origin, ..Evaluator::plain(cx, source) }.eval(&expr, &Scope::default(), at)
        }
        Err(error) => Err(Fault::at(at, format!("not a value: {}", error.message())).into()),
    }
}

/// Adds the values of a file of variables.
pub(crate) fn from_file(cx: &Context, path: &Path, given: &mut AllGiven) {
    const HELP: &str = "name a file of lines such as `greeting = \"hello\"`, or a YAML or JSON file of the same";
    let text = match cx.read_text(path) {
        Ok(text) => text,
        Err(why) => return cx.report(Fault::nowhere(why).help(HELP)),
    };
    let text = crate::text::unmarked(&text);
    let format = crate::text::Format::of(path, text);
    let source = cx.add_private_source(path.display().to_string(), text.to_owned());
    let Some(body) = format.parse(cx, source, text, &crate::schema::OPEN) else { return };
    let ev = Evaluator::plain(cx, source);
    for attribute in &body.attributes {
        match ev.expr(&attribute.value, &Scope::default()) {
            Ok(value) => _ = given.insert(attribute.name.clone(), Given::Value(value)),
            // Why is not said: a text without quotes may be a secret.
            Err(_) => cx.report(
                Fault::at(attribute.value.at(), format!("`{}` has no value that can be read", attribute.name))
                    .help("texts stand in quotes, and names of other things mean nothing here"),
            ),
        }
    }
    for block in &body.blocks {
        cx.report(Fault::at(block.ident_at, "a file of variables has no blocks").help("write `name = value`"));
    }
}

/// Refuses a value of too many levels.
pub(crate) fn shallow(value: Value, name: &str) -> Eval<Value> {
    if value.depth() <= DEEPEST {
        return Ok(value);
    }
    Err(Fault::at(value.at, format!("`{name}` has more than {DEEPEST} levels of lists and maps")).into())
}
