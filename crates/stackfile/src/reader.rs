//! Reads the attributes and blocks of one block, and finds what does not belong there.

use std::collections::BTreeMap;

use hcl_edit::expr::Expression;
use hcl_edit::structure::{Block, BlockLabel, Body};

use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault};
use crate::source::At;
use crate::suggest::did_you_mean;
use crate::value::{Data, Value};

/// What is being read: a block, or an object in a list of objects. Both have named attributes.
enum Shape<'r> {
    Block(&'r Body),
    Object(BTreeMap<String, Value>),
}

/// Reads one block. Whatever was not asked for by the time of [`Reader::finish`] is a fault.
pub(crate) struct Reader<'r> {
    pub(crate) ev: &'r Evaluator<'r>,
    /// What is read, for messages: ``service `web` ``.
    pub(crate) what: String,
    /// Where it begins.
    pub(crate) at: At,
    shape: Shape<'r>,
    attributes: Vec<&'static str>,
    blocks: Vec<&'static str>,
    refused: BTreeMap<&'static str, String>,
}

impl<'r> Reader<'r> {
    /// Reads a block.
    pub(crate) fn block(ev: &'r Evaluator<'r>, block: &'r Block, what: impl Into<String>) -> Self {
        let at = header(ev, block);
        Self::new(ev, Shape::Block(&block.body), at, what.into())
    }

    /// Reads an object; reports it if the value is none.
    pub(crate) fn object(ev: &'r Evaluator<'r>, value: &Value, what: impl Into<String>) -> Option<Self> {
        match &value.data {
            Data::Map(map) => Some(Self::new(ev, Shape::Object(map.clone()), value.at, what.into())),
            _ => {
                ev.cx.report(value.wrong_type("an object").help("write { name = value, … }"));
                None
            }
        }
    }

    fn new(ev: &'r Evaluator<'r>, shape: Shape<'r>, at: At, what: String) -> Self {
        Self { ev, what, at, shape, attributes: Vec::new(), blocks: Vec::new(), refused: BTreeMap::new() }
    }

    /// Returns whether an attribute is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.shape {
            Shape::Block(body) => body.has_attribute(name),
            Shape::Object(map) => map.contains_key(name),
        }
    }

    /// Returns where an attribute's value stands, or the block if it is not written.
    pub(crate) fn place(&self, name: &str) -> At {
        match &self.shape {
            Shape::Block(body) => body.get_attribute(name).map_or(self.at, |a| self.ev.at(&a.value, self.at)),
            Shape::Object(map) => map.get(name).map_or(self.at, |value| value.at),
        }
    }

    /// Returns the unevaluated expression of an attribute.
    pub(crate) fn expression(&mut self, name: &'static str) -> Option<(&'r Expression, At)> {
        self.attributes.push(name);
        match &self.shape {
            Shape::Block(body) => body.get_attribute(name).map(|a| (&a.value, self.ev.at(&a.key, self.at))),
            Shape::Object(_) => None,
        }
    }

    /// Returns the value of an attribute; `None` if it is not written, null, or has none (which is reported).
    pub(crate) fn value(&mut self, name: &'static str) -> Option<Value> {
        let value = if let Shape::Object(map) = &self.shape {
            self.attributes.push(name);
            map.get(name).cloned()
        } else {
            let (expr, at) = self.expression(name)?;
            self.ev.cx.keep(self.ev.eval(expr, &Scope::default(), at))
        };
        value.filter(|value| !value.is_null())
    }

    /// Returns an attribute as `read` reads it.
    pub(crate) fn get<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Eval<T>) -> Option<T> {
        let value = self.value(name)?;
        self.ev.cx.keep(read(&value))
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
        match &self.shape {
            Shape::Block(body) => body.blocks().filter(|b| kinds.contains(&b.ident.as_str())).collect(),
            Shape::Object(_) => Vec::new(),
        }
    }

    /// Returns the one block of a kind, without label; reports a second.
    pub(crate) fn only_block(&mut self, kind: &'static str) -> Option<Reader<'r>> {
        let block = self.only_labelled_block(kind)?;
        if let Some(label) = block.labels.first() {
            let fault = Fault::at(label_at(self.ev, label, self.at), format!("a `{kind}` block has no label"));
            self.report(fault.help(format!("write `{kind} {{ … }}`")));
        }
        Some(Reader::block(self.ev, block, format!("`{kind}` of {}", self.what)))
    }

    /// Returns the one block of a kind; reports a second.
    pub(crate) fn only_labelled_block(&mut self, kind: &'static str) -> Option<&'r Block> {
        let blocks = self.blocks(&[kind]);
        let first = *blocks.first()?;
        if let Some(second) = blocks.get(1) {
            let fault = Fault::at(header(self.ev, second), format!("{} has a second `{kind}` block", self.what));
            self.report(fault.label("the second").place(header(self.ev, first), "the first"));
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
        match &self.shape {
            Shape::Block(body) => {
                for attribute in body.attributes() {
                    let at = self.ev.at(&attribute.key, self.at);
                    self.check_name(attribute.key.as_str(), at, true);
                }
                for block in body.blocks() {
                    self.check_name(block.ident.as_str(), self.ev.at(&block.ident, self.at), false);
                }
            }
            Shape::Object(map) => {
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
        let at = header(ev, block);
        match block.labels.as_slice() {
            [label] => Some((label.as_str().to_owned(), label_at(ev, label, at))),
            [] => {
                let fault = Fault::at(at, format!("`{kind}` has no label"));
                ev.cx.report(fault.help(format!("write `{kind} \"…\" {{ … }}`")));
                None
            }
            [_, second, ..] => {
                ev.cx.report(Fault::at(label_at(ev, second, at), format!("`{kind}` has one label, not more")));
                None
            }
        }
    }
}

/// Returns the place of a block's first line: its kind and labels.
pub(crate) fn header(ev: &Evaluator, block: &Block) -> At {
    let first = ev.at(&block.ident, ev.at(block, At::new(ev.source, 0..0)));
    let last = block.labels.last().map_or(first, |label| label_at(ev, label, first));
    At { end: last.end, ..first }
}

fn label_at(ev: &Evaluator, label: &BlockLabel, around: At) -> At {
    match label {
        BlockLabel::Ident(ident) => ev.at(ident, around),
        BlockLabel::String(text) => ev.at(text, around),
    }
}
