//! `for_each` and `dynamic`: blocks that make blocks.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::eval::{Evaluator, Scope, pairs};
use crate::fault::{Eval, Fault};
use crate::read;
use crate::reader::Reader;
use crate::schema::DYNAMIC;
use crate::source::At;
use crate::tree::{Block, Body, Expr, Label};
use crate::value::{Data, Value};

/// The key by which a block is made once for each element.
pub(crate) const FOR_EACH: &str = "for_each";

/// Names bound in a block.
type Names = Rc<Scope<'static>>;

/// Returns the keys and values that a `for_each` goes through: those of a map, or the texts of a list as both.
pub(crate) fn elements(collection: &Value) -> Eval<Vec<(String, Value)>> {
    if collection.is_sensitive() {
        return Err(Fault::at(collection.at, "`for_each` would show a sensitive value, for its keys become names")
            .help("go through keys that are not sensitive, and look the values up")
            .into());
    }
    let list = matches!(collection.data, Data::List(_));
    pairs(collection).map_err(|_| collection.wrong_type("a list or map").into()).and_then(|pairs| {
        crate::fault::all(pairs.into_iter().map(|(key, value)| {
            let key = if list { value.to_text()? } else { key.to_text()? };
            Ok((key, value))
        }))
    })
}

/// Returns the names of a block in which `name` has a key and a value.
pub(crate) fn bind(outer: Option<&Names>, name: &str, key: &str, value: Value, at: At) -> Names {
    let entries = [("key".to_owned(), Value::text(key, at)), ("value".to_owned(), value)];
    let each = Value::new(Data::Map(entries.into_iter().collect()), at);
    let mut names: BTreeMap<String, Value> = outer.map(|outer| outer.names.clone()).unwrap_or_default();
    names.insert(name.to_owned(), each);
    Rc::new(Scope { parent: None, names })
}

/// Returns a block with these names bound in all of it, its `dynamic` blocks replaced by what they make, and without its
/// `for_each`.
pub(crate) fn expand(ev: &Evaluator, block: &Block, names: Option<&Names>) -> Block {
    let mut expanded = within(ev, block, names);
    expanded.body.attributes.retain(|attribute| attribute.name != FOR_EACH);
    expanded
}

fn within(ev: &Evaluator, block: &Block, names: Option<&Names>) -> Block {
    Block {
        ident: block.ident.clone(),
        labels: block.labels.clone(),
        body: body(ev, &block.body, names),
        scope: names.cloned(),
        ..*block
    }
}

fn body(ev: &Evaluator, body: &Body, names: Option<&Names>) -> Body {
    let mut blocks = Vec::with_capacity(body.blocks.len());
    for block in &body.blocks {
        if block.ident == DYNAMIC {
            let made = dynamic(ev, block, names);
            blocks.extend(ev.cx.keep(made).unwrap_or_default());
        } else {
            blocks.push(within(ev, block, names));
        }
    }
    Body { attributes: body.attributes.clone(), blocks }
}

/// Returns the blocks that a `dynamic` block makes.
fn dynamic(ev: &Evaluator, block: &Block, names: Option<&Names>) -> Eval<Vec<Block>> {
    let Some((kind, kind_at)) = Reader::single_label(ev, block) else { return Ok(Vec::new()) };
    let own = Block { scope: names.cloned(), ..block.clone() };
    let mut reader = Reader::block(ev, &own, format!("`dynamic \"{kind}\"`"));
    let collection = reader.required(FOR_EACH, "for_each = [ … ]", |value| Ok(value.clone()));
    let iterator = iterator(&mut reader).unwrap_or_else(|| kind.clone());
    let labels = reader.attribute("labels");
    let contents = reader.blocks(&["content"]);
    let content = match contents.as_slice() {
        [one] => Some(*one),
        _ => {
            let fault = Fault::at(block.header, format!("{} needs one `content` block", reader.what));
            reader.report(fault.help("write content { … } with what each of the blocks holds"));
            None
        }
    };
    reader.finish();
    let (Some(collection), Some(content)) = (collection, content) else { return Ok(Vec::new()) };
    let mut made = Vec::new();
    for (key, value) in elements(&collection)? {
        ev.cx.spend(value.size(), block.header)?;
        let scope = bind(names, &iterator, &key, value, collection.at);
        let texts = match labels {
            Some(labels) => {
                let value = ev.expr(&labels.value, &scope)?;
                if value.is_sensitive() {
                    return Err(Fault::at(value.at, "a label can't be sensitive, for labels are shown").into());
                }
                let label = |value: &Value| Ok(Label { text: value.to_text()?, at: value.at });
                read::list(&value, label)?
            }
            None => Vec::new(),
        };
        made.push(Block {
            ident: kind.clone(),
            ident_at: kind_at,
            labels: texts,
            header: block.header,
            body: body(ev, &content.body, Some(&scope)),
            shape: content.shape,
            scope: Some(scope),
        });
    }
    Ok(made)
}

/// Returns the name that `content` has for an element: a bare word, or a string.
fn iterator(reader: &mut Reader) -> Option<String> {
    match &*reader.attribute("iterator")?.value {
        Expr::Hcl(_, expr) if expr.as_variable().is_some() => expr.as_variable().map(|name| name.as_str().to_owned()),
        _ => reader.get("iterator", Value::to_text),
    }
}
