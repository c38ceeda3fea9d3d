//! Reads the attributes and blocks of one block, and finds what does not belong there.

use std::collections::BTreeMap;

use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault};
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::tree::{Attribute, Block, Expr};
use crate::value::{Data, Value};

/// What is being read: a block, or an object in a list of objects. Both have named attributes.
enum Form<'r> {
    Block(&'r Block),
    Object(BTreeMap<String, Value>),
}

/// Reads one block. Whatever was not asked for by the time of [`Reader::finish`] is a fault.
pub(crate) struct Reader<'r> {
    pub(crate) ev: &'r Evaluator<'r>,
    /// What is read, for messages: ``service `web` ``.
    pub(crate) what: String,
    /// Where it begins.
    pub(crate) at: At,
    form: Form<'r>,
    attributes: Vec<&'static str>,
    blocks: Vec<&'static str>,
    refused: BTreeMap<&'static str, String>,
    /// Whether there may be attributes of any name.
    open: bool,
}

impl<'r> Reader<'r> {
    /// Reads a block.
    pub(crate) fn block(ev: &'r Evaluator<'r>, block: &'r Block, what: impl Into<String>) -> Self {
        Self::new(ev, Form::Block(block), block.header, what.into())
    }

    /// Reads an object; reports it if the value is none.
    pub(crate) fn object(ev: &'r Evaluator<'r>, value: &Value, what: impl Into<String>) -> Option<Self> {
        match &value.data {
            Data::Map(map) => Some(Self::new(ev, Form::Object(map.clone()), value.at, what.into())),
            _ => {
                ev.cx.report(value.wrong_type("an object").help("write { name = value, … }"));
                None
            }
        }
    }

    fn new(ev: &'r Evaluator<'r>, form: Form<'r>, at: At, what: String) -> Self {
        Self { ev, what, at, form, attributes: Vec::new(), blocks: Vec::new(), refused: BTreeMap::new(), open: false }
    }

    /// Returns whether an attribute is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.form {
            Form::Block(block) => block.body.attribute(name).is_some(),
            Form::Object(map) => map.contains_key(name),
        }
    }

    /// Returns where an attribute's value stands, or the block if it is not written.
    pub(crate) fn place(&self, name: &str) -> At {
        match &self.form {
            Form::Block(block) => block.body.attribute(name).map_or(self.at, |a| a.value.at()),
            Form::Object(map) => map.get(name).map_or(self.at, |value| value.at),
        }
    }

    /// Returns an attribute that is not evaluated yet.
    pub(crate) fn attribute(&mut self, name: &'static str) -> Option<&'r Attribute> {
        self.attributes.push(name);
        match &self.form {
            Form::Block(block) => block.body.attribute(name),
            Form::Object(_) => None,
        }
    }

    /// Returns the attributes that were not asked for yet, and takes them as known.
    pub(crate) fn others(&mut self) -> Vec<&'r Attribute> {
        let Form::Block(block) = &self.form else { return Vec::new() };
        self.open = true;
        block.body.attributes.iter().filter(|a| !self.attributes.contains(&a.name.as_str())).collect()
    }

    /// Returns the value of an expression of this block.
    pub(crate) fn eval(&self, expr: &Expr) -> Eval<Value> {
        match &self.form {
            Form::Block(Block { scope: Some(scope), .. }) => self.ev.expr(expr, scope),
            _ => self.ev.expr(expr, &Scope::default()),
        }
    }

    /// Returns the value of an attribute, which may be sensitive; `None` if it is not written, null, or has none (which is
    /// reported).
    pub(crate) fn value(&mut self, name: &'static str) -> Option<Value> {
        let value = if let Form::Object(map) = &self.form {
            self.attributes.push(name);
            map.get(name).cloned()
        } else {
            let attribute = self.attribute(name)?;
            self.ev.cx.keep(self.eval(&attribute.value))
        };
        value.filter(|value| !value.is_null())
    }

    /// Returns an attribute as `read` reads it. What is sensitive is reported, for it would be shown.
    pub(crate) fn get<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Eval<T>) -> Option<T> {
        let value = self.value(name)?;
        self.ev.cx.keep(self.showable(name, &value).and_then(|()| read(&value)))
    }

    /// Refuses a value that must not be shown.
    fn showable(&self, name: &str, value: &Value) -> Eval<()> {
        if !value.is_sensitive() {
            return Ok(());
        }
        let fault = Fault::at(value.at, format!("`{name}` of {} would show a sensitive value", self.what));
        Err(fault
            .label("this is sensitive")
            .help("sensitive values belong in `env` or the `content` of a `config` of a service or job, which keep them secret")
            .into())
    }

    /// Returns an attribute that must be there; `example` shows how to write it.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        example: &str,
        read: impl FnOnce(&Value) -> Eval<T>,
    ) -> Option<T> {
        if !self.has(name) {
            self.attributes.push(name);
            self.report(Fault::at(self.at, format!("{} has no `{name}`", self.what)).help(format!("write {example}")));
            return None;
        }
        self.get(name, read)
    }

    /// Returns the blocks of some kinds, in the order in which they are written.
    pub(crate) fn blocks(&mut self, kinds: &[&'static str]) -> Vec<&'r Block> {
        self.blocks.extend(kinds);
        match &self.form {
            Form::Block(block) => block.body.blocks.iter().filter(|b| kinds.contains(&b.ident.as_str())).collect(),
            Form::Object(_) => Vec::new(),
        }
    }

    /// Returns the one block of a kind, without label; reports a second.
    pub(crate) fn only_block(&mut self, kind: &'static str) -> Option<Reader<'r>> {
        let block = self.only_labelled_block(kind)?;
        if let Some(label) = block.labels.first() {
            let fault = Fault::at(label.at, format!("a `{kind}` block has no label"));
            self.report(fault.help(format!("write `{kind} {{ … }}`")));
        }
        Some(Reader::block(self.ev, block, format!("`{kind}` of {}", self.what)))
    }

    /// Returns the one block of a kind; reports a second.
    pub(crate) fn only_labelled_block(&mut self, kind: &'static str) -> Option<&'r Block> {
        let blocks = self.blocks(&[kind]);
        let first = *blocks.first()?;
        if let Some(second) = blocks.get(1) {
            let fault = Fault::at(second.header, format!("{} has a second `{kind}` block", self.what));
            self.report(fault.label("the second").place(first.header, "the first"));
        }
        Some(first)
    }

    /// Says that an attribute or block is understood, and not built yet.
    pub(crate) fn not_yet(&mut self, name: &'static str) {
        self.refuse(name, format!("`{name}` is not supported yet"));
    }

    /// Says why an attribute or block does not belong here.
    pub(crate) fn refuse(&mut self, name: &'static str, why: impl Into<String>) {
        self.refused.insert(name, why.into());
    }

    /// Records a fault.
    pub(crate) fn report(&self, fault: Fault) {
        self.ev.cx.report(fault);
    }

    /// Reports whatever was not asked for.
    pub(crate) fn finish(self) {
        match &self.form {
            Form::Block(block) => {
                #[cfg(test)]
                crate::schema::asked(block.shape, &self.attributes, &self.blocks);
                for attribute in block.body.attributes.iter().filter(|_| !self.open) {
                    self.check_name(&attribute.name, attribute.name_at, true);
                }
                for inner in &block.body.blocks {
                    self.check_name(&inner.ident, inner.ident_at, false);
                }
            }
            Form::Object(map) => {
                for (name, value) in map {
                    self.check_name(name, value.at, true);
                }
            }
        }
    }

    /// Reports a name that was not asked for.
    fn check_name(&self, name: &str, at: At, attribute: bool) {
        let (known, others) =
            if attribute { (&self.attributes, &self.blocks) } else { (&self.blocks, &self.attributes) };
        if known.contains(&name) {
            return;
        }
        if let Some(why) = self.refused.get(name) {
            return self.report(Fault::at(at, why.clone()).label(format!("in {}", self.what)));
        }
        let kind = if attribute { "attribute" } else { "block" };
        if others.contains(&name) {
            let help = if attribute { format!("write `{name} {{ … }}`") } else { format!("write `{name} = …`") };
            let other = if attribute { "a block" } else { "an attribute" };
            return self.report(Fault::at(at, format!("`{name}` is {other} of {}", self.what)).help(help));
        }
        let fault = Fault::at(at, format!("{} has no {kind} `{name}`", self.what)).label("not known here");
        self.report(fault.maybe_help(did_you_mean(name, known.iter().chain(others).copied())));
    }

    /// Returns the one label of a block; reports it if there is none, or a second.
    pub(crate) fn single_label(ev: &Evaluator, block: &Block) -> Option<(String, At)> {
        let kind = block.ident.as_str();
        match block.labels.as_slice() {
            [label] => Some((label.text.clone(), label.at)),
            [] => {
                let fault = Fault::at(block.header, format!("`{kind}` has no label"));
                ev.cx.report(fault.help(format!("write `{kind} \"…\" {{ … }}`")));
                None
            }
            [_, second, ..] => {
                ev.cx.report(Fault::at(second.at, format!("`{kind}` has one label, not more")));
                None
            }
        }
    }
}
