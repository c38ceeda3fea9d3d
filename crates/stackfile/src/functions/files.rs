//! Functions that read files of the stack.

use std::collections::BTreeMap;

use super::{Call, Function, row};
use crate::eval::{Evaluator, Scope};
use crate::fault::{Eval, Fault};
use crate::source::At;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    row("file(path)", 1, 1, |c| read(c).map(Data::Text)),
    row("fileexists(path)", 1, 1, |c| Ok(Data::Bool(c.ev.cx.files.exists(&c.ev.cx.resolve(&c.text(0)?))))),
    row("templatefile(path, map)", 2, 2, templatefile),
];

/// Returns the text of the file in the first place.
fn read(call: &Call) -> Eval<String> {
    let path = call.ev.cx.resolve(&call.text(0)?);
    let text = call.ev.cx.read_text(&path).map_err(|why| {
        Fault::at(call.args[0].at, why).help("paths that are not absolute begin at the stack's folder")
    })?;
    call.fits(Some(text.len()))?;
    Ok(text)
}

fn templatefile(call: &Call) -> Eval<Data> {
    if call.ev.template {
        // A template that renders itself would never end.
        return Err(call.fault("`templatefile` can't be called in a template"));
    }
    let Data::Map(values) = &call.args[1].data else {
        return Err(call.args[1].wrong_type("a map").help("write { name = value }").into());
    };
    let mark = call.args[1].sensitive;
    let names: BTreeMap<String, Value> = values.iter().map(|(k, v)| (k.clone(), v.clone().marked(mark))).collect();
    let text = read(call)?;
    let name = call.ev.cx.resolve(&call.text(0)?).display().to_string();
    let source = call.ev.cx.add_source(name, text.clone());
    let template = hcl_edit::parser::parse_template(&text).map_err(|error| {
        let start = error.location().offset().min(text.len());
        let start = (0..=start).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        Fault::at(At::new(source, start..start), format!("not a valid template: {}", error.message()))
            .help("write `$${` and `%%{` where these signs themselves are meant")
            .place(call.at, "rendered here")
    })?;
    let ev = Evaluator { cx: call.ev.cx, source, globals: None, template: true };
    let scope = Scope { parent: None, names };
    let whole = At::new(source, 0..text.len());
    let (text, _) = ev.render(&template, &scope, whole).map_err(|mut faults| {
        for fault in &mut faults.0 {
            fault.places.push((call.at, "rendered here".to_owned()));
        }
        faults
    })?;
    Ok(Data::Text(text))
}
