//! Variables and locals: what `var.x` and `local.x` mean.

use std::collections::{BTreeMap, BTreeSet};

use hcl_edit::expr::{Expression, Traversal, TraversalOperator};
use hcl_edit::structure::{Attribute, Block};
use hcl_edit::visit::{Visit, visit_traversal};

use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault};
use crate::load::Inputs;
use crate::read;
use crate::reader::Reader;
use crate::source::{At, Context};
use crate::suggest::did_you_mean;
use crate::types::Type;
use crate::value::{DEEPEST, Data, Kind, Value};

/// What expressions of a stack may refer to. A variable or local without a value has been reported.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    pub(crate) vars: BTreeMap<String, Option<Value>>,
    pub(crate) locals: BTreeMap<String, Option<Value>>,
    /// Where each image, service and job is declared.
    pub(crate) blocks: BTreeMap<(Kind, String), At>,
}

impl Globals {
    /// Returns whether references may begin with this word.
    pub(crate) fn is_root(word: &str) -> bool {
        word == "var" || word == "local" || Kind::ALL.into_iter().any(|kind| kind.word() == word)
    }
}

/// A value given from outside for a variable.
enum Given {
    /// As written on a command line.
    Text { text: String, origin: String },
    /// From a file of variables.
    Value(Value),
}

/// Evaluates the `variable` blocks.
pub(crate) fn variables(cx: &Context, blocks: &[(u32, &Block)], inputs: &Inputs) -> BTreeMap<String, Option<Value>> {
    let mut given = given(cx, inputs);
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
        let value = variable(&ev, block, &name, name_at, given.remove(&name));
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
fn variable(ev: &Evaluator, block: &Block, name: &str, name_at: At, given: Option<Given>) -> Option<Value> {
    let mut reader = Reader::block(ev, block, format!("variable `{name}`"));
    let of = reader.expression("type").map(|(expr, at)| Type::parse(ev, expr, at));
    let default = reader.value("default");
    reader.get("description", read::text);
    let sensitive = reader.get("sensitive", read::boolean).unwrap_or(false);
    reader.not_yet("validation");
    let has_default = reader.has("default");
    reader.finish();
    let of = match of {
        Some(of) => Some(ev.cx.keep(of)?),
        None => None,
    };
    let value = match given {
        Some(Given::Value(value)) => Ok(value),
        Some(Given::Text { text, origin }) => parse_given(ev.cx, &text, &origin, of.as_ref(), default.as_ref()),
        None if has_default => Ok(default?),
        None => {
            return ev.cx.keep(Err(Fault::at(name_at, format!("the variable `{name}` has no value"))
                .label("neither given nor with a default")
                .help(format!("give `--var {name}=…`, set BASALT_VAR_{name}, or write a `default`"))
                .into()));
        }
    };
    let value = value.and_then(|value| of.unwrap_or(Type::Any).convert(value.marked(sensitive)));
    ev.cx.keep(value.and_then(|value| shallow(value, name)))
}

/// Returns the value of a text from the command line: as is where a string is wanted, else as an expression.
fn parse_given(cx: &Context, text: &str, origin: &str, of: Option<&Type>, default: Option<&Value>) -> Eval<Value> {
    let source = cx.add_source(origin.to_owned(), text.to_owned());
    let at = At::new(source, 0..text.len());
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
        Ok(expr) => Evaluator::plain(cx, source).eval(&expr, &Scope::default(), at),
        Err(error) => Err(Fault::at(at, format!("not a value: {}", error.message())).into()),
    }
}

/// Returns all values given from outside: the command line wins over files of variables, these over the environment.
fn given(cx: &Context, inputs: &Inputs) -> BTreeMap<String, Given> {
    let mut given = BTreeMap::new();
    for (name, text) in &inputs.environment {
        let origin = format!("BASALT_VAR_{name}");
        given.insert(name.clone(), Given::Text { text: text.clone(), origin });
    }
    for path in &inputs.var_files {
        let name = path.display().to_string();
        let text = match cx.read_text(path) {
            Ok(text) => text,
            Err(why) => {
                cx.report(Fault::nowhere(why).help("name a file of lines such as `greeting = \"hello\"`"));
                continue;
            }
        };
        let source = cx.add_source(name, text.clone());
        let Some(body) = crate::load::parse(cx, source, &text) else { continue };
        let ev = Evaluator::plain(cx, source);
        for attribute in body.attributes() {
            let at = ev.at(attribute, At::new(source, 0..0));
            if let Some(value) = cx.keep(ev.eval(&attribute.value, &Scope::default(), at)) {
                given.insert(attribute.key.as_str().to_owned(), Given::Value(value));
            }
        }
        for block in body.blocks() {
            let at = ev.at(&block.ident, At::new(source, 0..0));
            cx.report(Fault::at(at, "a file of variables has no blocks").help("write `name = value`"));
        }
    }
    for (name, text) in &inputs.vars {
        let origin = format!("--var {name}");
        given.insert(name.clone(), Given::Text { text: text.clone(), origin });
    }
    given
}

/// Evaluates the attributes of all `locals` blocks, each after those that it refers to.
pub(crate) fn locals(cx: &Context, blocks: &[(u32, &Block)], globals: &mut Globals) {
    let mut waiting: BTreeMap<String, Local> = BTreeMap::new();
    for (source, block) in blocks {
        let ev = Evaluator::plain(cx, *source);
        for inner in block.body.blocks() {
            let at = ev.at(&inner.ident, At::new(*source, 0..0));
            cx.report(Fault::at(at, "a `locals` block has no blocks inside").help("write `name = value`"));
        }
        for attribute in block.body.attributes() {
            let name = attribute.key.as_str().to_owned();
            let at = ev.at(&attribute.key, At::new(*source, 0..0));
            let local = Local { source: *source, attribute, at, needs: needs(&attribute.value) };
            if let Some(first) = waiting.get(&name) {
                let fault = Fault::at(at, format!("the local `{name}` is declared twice"));
                cx.report(fault.label("the second").place(first.at, "the first"));
                continue;
            }
            waiting.insert(name, local);
        }
    }
    // Declared but not yet evaluated: a reference to one that never will be is no second fault.
    globals.locals = waiting.keys().map(|name| (name.clone(), None)).collect();
    for name in order(cx, &waiting) {
        let local = &waiting[&name];
        let ev = Evaluator::of_stack(cx, local.source, globals);
        let value = ev.eval(&local.attribute.value, &Scope::default(), local.at);
        let value = cx.keep(value.and_then(|value| shallow(value, &name)));
        globals.locals.insert(name, value);
    }
}

/// A local that is not evaluated yet.
struct Local<'b> {
    source: u32,
    attribute: &'b Attribute,
    at: At,
    needs: BTreeSet<String>,
}

/// Returns the names in an order in which each stands behind those it needs, and reports circles.
fn order(cx: &Context, locals: &BTreeMap<String, Local>) -> Vec<String> {
    let edges = locals.iter().map(|(name, local)| {
        let needs = local.needs.iter().filter(|need| locals.contains_key(*need)).cloned().collect();
        (name.clone(), needs)
    });
    let (order, circles) = crate::check::sort(edges.collect());
    for circle in circles {
        let path: Vec<String> = circle.iter().map(|name| format!("local.{name}")).collect();
        let mut fault =
            Fault::at(locals[&circle[0]].at, format!("locals refer to each other in a circle: {}", path.join(" → ")))
                .label("the circle begins here")
                .help("give one of them a value that does not need the others");
        for name in &circle[1..circle.len() - 1] {
            fault = fault.place(locals[name].at, "goes on here");
        }
        cx.report(fault);
    }
    order
}

/// Returns the locals that an expression refers to.
fn needs(expr: &Expression) -> BTreeSet<String> {
    struct Needs(BTreeSet<String>);
    impl Visit for Needs {
        fn visit_traversal(&mut self, node: &Traversal) {
            if node.expr.as_variable().is_some_and(|root| root.as_str() == "local") {
                let name = match node.operators.first().map(|op| op.value()) {
                    Some(TraversalOperator::GetAttr(name)) => Some(name.as_str()),
                    Some(TraversalOperator::Index(Expression::String(name))) => Some(name.value().as_str()),
                    _ => None,
                };
                self.0.extend(name.map(str::to_owned));
            }
            visit_traversal(self, node);
        }
    }
    let mut needs = Needs(BTreeSet::new());
    needs.visit_expr(expr);
    needs.0
}

/// Refuses a value of too many levels.
fn shallow(value: Value, name: &str) -> Eval<Value> {
    if value.depth() <= DEEPEST {
        return Ok(value);
    }
    Err(Fault::at(value.at, format!("`{name}` has more than {DEEPEST} levels of lists and maps")).into())
}
