//! Expressions to values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use basalt_model::Name;
use hcl_edit::expr::{Conditional, Expression, ForExpr, Object, ObjectKey, Traversal, TraversalOperator};

use crate::fault::{Eval, Fault, Faults, all, both};
use crate::functions;
use crate::globals::Globals;
use crate::number::Number;
use crate::operators;
use crate::source::{At, Context, STEP};
use crate::suggest::did_you_mean;
use crate::tree::{Expr, Node, NodeData};
use crate::value::{DEEPEST, Data, Kind, Value};

/// Names bound around an expression: by `for`, or given to a template.
#[derive(Debug, Default)]
pub(crate) struct Scope<'s> {
    pub(crate) parent: Option<&'s Scope<'s>>,
    pub(crate) names: BTreeMap<String, Value>,
}

impl<'s> Scope<'s> {
    /// Returns the value bound to a name.
    fn get(&self, name: &str) -> Option<&Value> {
        self.names.get(name).or_else(|| self.parent?.get(name))
    }

    /// Returns a scope within this one.
    pub(crate) fn with(&'s self, names: impl IntoIterator<Item = (String, Value)>) -> Scope<'s> {
        Scope { parent: Some(self), names: names.into_iter().collect() }
    }

    /// Returns all names, inner ones first.
    fn all_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        names.extend(self.parent.map(Scope::all_names).unwrap_or_default());
        names
    }
}

/// Evaluates expressions of one source.
#[derive(Clone, Copy)]
pub(crate) struct Evaluator<'c> {
    pub(crate) cx: &'c Context<'c>,
    pub(crate) source: u32,
    /// What `var.x`, `image.x` and so on mean; a template file sees none of it.
    pub(crate) globals: Option<&'c Globals>,
    /// Whether the source is a template file.
    pub(crate) template: bool,
    /// How the places of expressions relate to those of the source.
    pub(crate) origin: Origin<'c>,
}

/// How the places of expressions relate to those of the source.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'c> {
    /// They are the same.
    Same,
    /// They count from here.
    From(u32),
    /// All of a text is at one place: it stands there with escapes, or must not be shown.
    Within(At, &'c str),
}

impl<'c> Evaluator<'c> {
    /// Evaluates what may refer to nothing.
    pub(crate) fn plain(cx: &'c Context<'c>, source: u32) -> Self {
        Self { cx, source, globals: None, template: false, origin: Origin::Same }
    }

    /// Evaluates what may refer to everything in the stack.
    pub(crate) fn of_stack(cx: &'c Context<'c>, source: u32, globals: &'c Globals) -> Self {
        Self { cx, source, globals: Some(globals), template: false, origin: Origin::Same }
    }

    /// Evaluates a template file, which sees only what it is given.
    pub(crate) fn of_template(cx: &'c Context<'c>, source: u32) -> Self {
        Self { template: true, ..Self::plain(cx, source) }
    }

    /// Returns the place of a node, or of `around` if the parser kept none.
    pub(crate) fn at(&self, node: &impl hcl_edit::Span, around: At) -> At {
        let Some(range) = node.span() else { return around };
        match self.origin {
            Origin::Same => At::new(self.source, range),
            Origin::From(start) => At::new(self.source, range.start + start as usize..range.end + start as usize),
            Origin::Within(at, _) => at,
        }
    }

    /// Returns the text of a number, as written.
    fn number_text(&self, expr: &Expression, at: At) -> String {
        match self.origin {
            Origin::Within(_, text) => {
                let range = hcl_edit::Span::span(expr).unwrap_or_default();
                text.get(range).unwrap_or_default().to_owned()
            }
            _ => self.cx.text_at(at),
        }
    }

    /// Returns the value of an expression of a tree.
    pub(crate) fn expr(&self, expr: &Expr, scope: &Scope) -> Eval<Value> {
        match expr {
            Expr::Hcl(at, hcl) => self.shifted(expr).eval(hcl, scope, *at),
            Expr::Node(node) => self.node(node, scope),
        }
    }

    /// Returns an evaluator that knows the places in an expression.
    pub(crate) fn shifted(&self, expr: &Expr) -> Self {
        let Expr::Hcl(at, hcl) = expr else { return *self };
        let start = hcl_edit::Span::span(&**hcl).map_or(0, |span| span.start);
        match (self.origin, at.start.saturating_sub(start as u32)) {
            (Origin::Same, shift) if shift > 0 => Self { origin: Origin::From(shift), ..*self },
            _ => *self,
        }
    }

    /// Returns the value of a node of a YAML or JSON file.
    fn node(&self, node: &Node, scope: &Scope) -> Eval<Value> {
        let at = node.at;
        self.cx.spend(STEP, at)?;
        let data = match &node.data {
            NodeData::Null => Data::Null,
            NodeData::Bool(b) => Data::Bool(*b),
            NodeData::Number(number) => Data::Number(*number),
            NodeData::Text(text) => Data::Text(text.clone()),
            NodeData::Template(text) => {
                let origin = text.start.map_or(Origin::Within(at, &text.text), Origin::From);
                let ev = Evaluator { origin, ..*self };
                let value = ev.text_template(&text.template, scope, at)?;
                return Ok(Value { at, ..value });
            }
            NodeData::List(items) => Data::List(all(items.iter().map(|item| self.node(item, scope)))?),
            NodeData::Map(entries) => {
                let entries = entries.iter().map(|entry| Ok((entry.key.clone(), self.node(&entry.value, scope)?)));
                Data::Map(all(entries)?.into_iter().collect())
            }
        };
        Ok(Value::new(data, at))
    }

    /// Returns the value of an expression that stands within `around`.
    pub(crate) fn eval(&self, expr: &Expression, scope: &Scope, around: At) -> Eval<Value> {
        let at = self.at(expr, around);
        self.cx.spend(STEP, at)?;
        let value = match expr {
            Expression::Null(_) => Value::new(Data::Null, at),
            Expression::Bool(b) => Value::new(Data::Bool(*b.value()), at),
            Expression::Number(_) => {
                // The parser rounds to a double: the text is exact.
                let number = Number::parse(&self.number_text(expr, at));
                Value::new(Data::Number(number.ok_or_else(|| out_of_range(at))?), at)
            }
            Expression::String(text) => Value::text(text.value(), at),
            Expression::Array(items) => {
                let items = all(items.iter().map(|item| self.eval(item, scope, at)))?;
                Value::new(Data::List(items), at)
            }
            Expression::Object(object) => Value::new(Data::Map(self.object(object, scope, at)?), at),
            Expression::StringTemplate(template) => self.template(template, scope, at)?,
            Expression::HeredocTemplate(heredoc) => {
                let (text, sensitive) = self.render(&heredoc.template, scope, at)?;
                Value::text(text, at).marked(sensitive)
            }
            Expression::Parenthesis(inner) => self.eval(inner.inner(), scope, at)?,
            Expression::Variable(name) => self.walk(self.name(name.as_str(), scope, at)?, &[], scope, at)?,
            Expression::Conditional(conditional) => self.conditional(conditional, scope, at)?,
            Expression::FuncCall(call) => functions::call(self, call, scope, at)?,
            Expression::Traversal(traversal) => self.traversal(traversal, scope, at)?,
            Expression::UnaryOp(op) => {
                let operand = self.eval(&op.expr, scope, at)?;
                operators::unary(*op.operator.value(), &operand, at)?
            }
            Expression::BinaryOp(op) => {
                let operator = *op.operator.value();
                let left = self.eval(&op.lhs_expr, scope, at);
                match left.as_ref().ok().and_then(|left| operators::decided_by_left(operator, left)) {
                    Some(decided) => Value::new(Data::Bool(decided), at).marked(left.is_ok_and(|l| l.is_sensitive())),
                    None => {
                        let (left, right) = both(left, self.eval(&op.rhs_expr, scope, at))?;
                        operators::binary(operator, &left, &right, at)?
                    }
                }
            }
            Expression::ForExpr(for_expr) => self.for_expr(for_expr, scope, at)?,
        };
        Ok(Value { at, ..value })
    }

    /// Returns the value of a bare name.
    fn name<'v>(&'v self, name: &str, scope: &'v Scope, at: At) -> Eval<Cow<'v, Value>> {
        if let Some(value) = scope.get(name) {
            return Ok(Cow::Borrowed(value));
        }
        let kind = Globals::ROOTS.into_iter().find(|word| *word == name);
        let fault = Fault::at(at, format!("unknown name `{name}`")).label("not known here");
        Err(match (self.globals, kind) {
            (Some(_), Some(word)) => {
                Fault::at(at, format!("`{word}` alone is no value")).help(format!("write `{word}.NAME`")).into()
            }
            (None, Some(_)) if self.template => fault
                .help("a template sees only what it is given: add it to the map in the second place of `templatefile`")
                .into(),
            (None, Some(_)) => fault.help("the value of a variable refers to nothing: use `locals` for that").into(),
            _ => {
                let near = scope.all_names();
                let help = if near.is_empty() { None } else { did_you_mean(name, near) };
                let quoted = format!("a string needs quotes: \"{name}\"; a variable is written `var.{name}`");
                fault.help(quoted).maybe_help(help).into()
            }
        })
    }

    /// Returns the value of `a.b[c]`.
    fn traversal(&self, traversal: &Traversal, scope: &Scope, at: At) -> Eval<Value> {
        let operators: Vec<&TraversalOperator> = traversal.operators.iter().map(|op| op.value()).collect();
        if operators.len() > DEEPEST {
            return Err(Fault::at(at, format!("more than {DEEPEST} steps into a value")).into());
        }
        if let Expression::Variable(root) = &traversal.expr {
            let root = root.as_str();
            if scope.get(root).is_none()
                && let Some(globals) = self.globals
                && Globals::is_root(root)
            {
                let name = match operators.first() {
                    Some(TraversalOperator::GetAttr(name)) => name.as_str().to_owned(),
                    Some(TraversalOperator::Index(Expression::String(name))) => name.value().clone(),
                    // A computed name would hide what depends on what.
                    _ => return Err(Fault::at(at, format!("`{root}` needs a plain name: `{root}.NAME`")).into()),
                };
                let value = self.global(globals, root, &name, at)?;
                return self.walk(value, &operators[1..], scope, at);
            }
            let value = self.name(root, scope, at)?;
            return self.walk(value, &operators, scope, at);
        }
        let value = self.eval(&traversal.expr, scope, at)?;
        self.walk(Cow::Owned(value), &operators, scope, at)
    }

    /// Returns the value of `root.name`.
    fn global<'v>(&self, globals: &'v Globals, root: &str, name: &str, at: At) -> Eval<Cow<'v, Value>> {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.word() == root) else {
            return globals.get(root, name, at);
        };
        if kind == Kind::Secret {
            let valid = name.parse::<Name>().map_err(|error| Fault::at(at, error.to_string()))?;
            return Ok(Cow::Owned(Value::new(Data::Reference(kind, valid.to_string()), at)));
        }
        let key = (kind, name.to_owned());
        match globals.groups.get(&key) {
            Some(Some(group)) => return Ok(Cow::Borrowed(&group.references)),
            Some(None) => return Err(Faults::default()),
            None => {}
        }
        if globals.blocks.contains_key(&key) {
            let full = format!("{}{name}", globals.prefix);
            return Ok(Cow::Owned(Value::new(Data::Reference(kind, full), at)));
        }
        let fault = Fault::at(at, format!("there is no {kind} `{name}`")).label("not declared");
        let other = Kind::ALL.into_iter().find(|other| globals.blocks.contains_key(&(*other, name.to_owned())));
        Err(match other {
            Some(other) => fault.help(format!("`{other}.{name}` is declared")).into(),
            None => {
                let names = globals.blocks.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.as_str());
                fault
                    .help(format!("declare it: {kind} \"{name}\" {{ … }}"))
                    .maybe_help(did_you_mean(name, names))
                    .into()
            }
        })
    }

    /// Follows attributes, indexes and splats.
    fn walk(&self, value: Cow<Value>, ops: &[&TraversalOperator], scope: &Scope, at: At) -> Eval<Value> {
        let Some((first, rest)) = ops.split_first() else {
            if let Cow::Borrowed(value) = &value {
                self.cx.spend(value.size(), at)?;
            }
            return Ok(value.into_owned());
        };
        let splat = match first {
            TraversalOperator::GetAttr(name) => {
                let child = child(value, &Value::text(name.as_str(), self.at(name, at)), at)?;
                return self.walk(child, rest, scope, at);
            }
            TraversalOperator::Index(index) => {
                let child = child(value, &self.eval(index, scope, at)?, at)?;
                return self.walk(child, rest, scope, at);
            }
            TraversalOperator::LegacyIndex(index) => {
                let index = Data::Number(Number::from(i128::from(*index.value())));
                return self.walk(child(value, &Value::new(index, at), at)?, rest, scope, at);
            }
            // `x.*.a[0]` takes `a` of each and the first of all; `x[*].a[0]` takes the first `a` of each.
            TraversalOperator::AttrSplat(_) => {
                rest.iter().take_while(|op| matches!(op, TraversalOperator::GetAttr(_))).count()
            }
            TraversalOperator::FullSplat(_) => rest.len(),
        };
        let (each, after) = rest.split_at(splat);
        let items: Vec<Cow<Value>> = match &value.data {
            Data::List(items) => items.iter().map(Cow::Borrowed).collect(),
            Data::Null => Vec::new(),
            _ => vec![Cow::Borrowed(&*value)],
        };
        let items = all(items.into_iter().map(|item| self.walk(item, each, scope, at)))?;
        let list = Value::new(Data::List(items), at).marked(value.sensitive);
        self.walk(Cow::Owned(list), after, scope, at)
    }

    /// Returns the entries of `{ a = 1, (b) = 2 }`.
    fn object(&self, object: &Object, scope: &Scope, at: At) -> Eval<BTreeMap<String, Value>> {
        let entries = all(object.iter().map(|(key, value)| {
            let key_at = self.at(key, at);
            let key = match key {
                ObjectKey::Ident(name) => Ok(name.as_str().to_owned()),
                ObjectKey::Expression(expr) => self.eval(expr, scope, at).and_then(|key| match key.is_sensitive() {
                    true => Err(Fault::at(key_at, "a key can't be sensitive, for keys are shown").into()),
                    false => key.to_text(),
                }),
            };
            let (key, value) = both(key, self.eval(value.expr(), scope, at))?;
            Ok((key, key_at, value))
        }))?;
        let mut map = BTreeMap::new();
        for (key, key_at, value) in entries {
            if map.contains_key(&key) {
                return Err(Fault::at(key_at, format!("the key `{key}` stands here twice")).label("the second").into());
            }
            map.insert(key, value);
        }
        Ok(map)
    }

    /// Returns the value of `cond ? a : b`; only the chosen side is evaluated.
    fn conditional(&self, conditional: &Conditional, scope: &Scope, at: At) -> Eval<Value> {
        let condition = self.eval(&conditional.cond_expr, scope, at)?;
        let chosen = if condition.to_bool()? { &conditional.true_expr } else { &conditional.false_expr };
        Ok(self.eval(chosen, scope, at)?.marked(condition.is_sensitive()))
    }

    /// Returns the value of `[for k, v in c : v]` or `{for k, v in c : k => v}`.
    fn for_expr(&self, for_expr: &ForExpr, scope: &Scope, at: At) -> Eval<Value> {
        let intro = &for_expr.intro;
        let collection = self.eval(&intro.collection_expr, scope, at)?;
        let key_name = intro.key_var.as_ref().map(|name| name.as_str().to_owned());
        let mut sensitive = collection.is_sensitive();
        let mut list = Vec::new();
        let mut map: BTreeMap<String, Value> = BTreeMap::new();
        for (key, value) in pairs(&collection)? {
            self.cx.spend(value.size(), at)?;
            let value_name = intro.value_var.as_str().to_owned();
            let names = key_name.clone().map(|name| (name, key)).into_iter().chain([(value_name, value)]);
            let inner = scope.with(names);
            if let Some(condition) = &for_expr.cond {
                let condition = self.eval(&condition.expr, &inner, at)?;
                sensitive |= condition.is_sensitive();
                if !condition.to_bool()? {
                    continue;
                }
            }
            let value = self.eval(&for_expr.value_expr, &inner, at)?;
            let Some(key_expr) = &for_expr.key_expr else {
                list.push(value);
                continue;
            };
            let key_value = self.eval(key_expr, &inner, at)?;
            sensitive |= key_value.is_sensitive();
            let key = key_value.to_text()?;
            match map.get_mut(&key).map(|entry| &mut entry.data) {
                Some(Data::List(group)) if for_expr.grouping => group.push(value),
                None if for_expr.grouping => {
                    map.insert(key, Value::new(Data::List(vec![value]), at));
                }
                None => {
                    map.insert(key, value);
                }
                Some(_) => {
                    return Err(Fault::at(at, format!("the key {} is made twice", key_value.shown()))
                        .label("by this `for`")
                        .help("put `...` behind the value to gather all values of a key in a list")
                        .into());
                }
            }
        }
        let data = if for_expr.key_expr.is_some() { Data::Map(map) } else { Data::List(list) };
        Ok(Value::new(data, at).marked(sensitive))
    }
}

/// Returns the keys (or indexes) and values of a list or map.
pub(crate) fn pairs(collection: &Value) -> Eval<Vec<(Value, Value)>> {
    let mark = collection.sensitive;
    match &collection.data {
        Data::List(items) => Ok(items
            .iter()
            .enumerate()
            .map(|(i, v)| (Value::new(Data::Number(Number::from(i as i128)), v.at), v.clone().marked(mark)))
            .collect()),
        Data::Map(map) => Ok(map.iter().map(|(k, v)| (Value::text(k, v.at), v.clone().marked(mark))).collect()),
        _ => Err(collection.wrong_type("a list or map").into()),
    }
}

/// Returns the fault of a number that is too large or has too many digits.
pub(crate) fn out_of_range(at: At) -> Fault {
    Fault::at(at, "number out of range").help("numbers have at most 38 digits, 36 of them behind the point")
}

/// Returns what `value` holds at `key`, without a copy where there need be none.
fn child<'v>(value: Cow<'v, Value>, key: &Value, at: At) -> Eval<Cow<'v, Value>> {
    let marked = |child: Cow<'v, Value>, mark: bool| {
        if mark && !child.sensitive { Cow::Owned(child.into_owned().marked(true)) } else { child }
    };
    match value {
        Cow::Borrowed(value) => Ok(marked(find(value, key, at)?, value.sensitive)),
        Cow::Owned(value) => Ok(marked(Cow::Owned(find(&value, key, at)?.into_owned()), value.sensitive)),
    }
}

/// Returns what `value` holds at `key`.
fn find<'v>(value: &'v Value, key: &Value, at: At) -> Eval<Cow<'v, Value>> {
    match &value.data {
        Data::Map(map) => {
            let name = key.to_text()?;
            let found = map.get(&name).ok_or_else(|| {
                let fault = Fault::at(
                    key.at,
                    if key.is_sensitive() {
                        "there is no such key here".to_owned()
                    } else {
                        format!("there is no key {} here", key.shown())
                    },
                );
                let names = map.keys().map(String::as_str);
                if value.is_sensitive() || key.is_sensitive() {
                    fault
                } else {
                    fault.maybe_help(did_you_mean(&name, names))
                }
            })?;
            Ok(Cow::Borrowed(found))
        }
        Data::List(items) => {
            let number = key.to_number()?;
            let index = number.as_integer().and_then(|i| usize::try_from(i).ok());
            let found = index.and_then(|i| items.get(i)).ok_or_else(|| {
                let help = match items.len().checked_sub(1) {
                    Some(last) => format!("the list has elements 0 to {last}"),
                    None => "the list is empty".to_owned(),
                };
                Fault::at(key.at, format!("there is no element {}", key.shown())).help(help)
            })?;
            Ok(Cow::Borrowed(found))
        }
        Data::Reference(_, name) if key.to_text().is_ok_and(|key| key == "name") => {
            Ok(Cow::Owned(Value::text(name, at)))
        }
        Data::Reference(..) => {
            let fault = Fault::at(key.at, format!("{} has only a `name`", value.shown()));
            Err(fault.help("everything else about it is known only once it runs").into())
        }
        _ => {
            let fault = Fault::at(at, format!("{} has nothing inside", value.type_name()));
            Err(fault.label("expected a list or map").into())
        }
    }
}
