//! Functions of lists and maps.

use std::collections::BTreeMap;

use super::{ANY, Call, Function, row, texts};
use crate::fault::Eval;
use crate::number::Number;
use crate::types::distinct;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    row("length(value)", 1, 1, length),
    row("concat(lists...)", 1, ANY, |c| {
        let mut items = Vec::new();
        for i in 0..c.args.len() {
            items.extend_from_slice(c.list(i)?);
        }
        Ok(Data::List(items))
    }),
    row("merge(maps...)", 1, ANY, |c| {
        let mut merged = BTreeMap::new();
        for arg in c.args.iter().filter(|arg| !arg.is_null()) {
            merged.extend(map(arg)?.clone());
        }
        Ok(Data::Map(merged))
    }),
    row("lookup(map, key, default)", 2, 3, lookup),
    row("contains(list, value)", 2, 2, |c| Ok(Data::Bool(c.list(0)?.iter().any(|item| item.equals(&c.args[1]))))),
    row("keys(map)", 1, 1, |c| Ok(texts(map(&c.args[0])?.keys().cloned(), c.at))),
    row("values(map)", 1, 1, |c| Ok(Data::List(map(&c.args[0])?.values().cloned().collect()))),
    row("tolist(list)", 1, 1, |c| Ok(Data::List(c.list(0)?.to_vec()))),
    row("toset(list)", 1, 1, |c| {
        c.ev.cx.spend(c.list(0)?.len().pow(2), c.at)?;
        Ok(Data::List(distinct(c.list(0)?.to_vec())))
    }),
    row("distinct(list)", 1, 1, |c| {
        c.ev.cx.spend(c.list(0)?.len().pow(2), c.at)?;
        Ok(Data::List(distinct(c.list(0)?.to_vec())))
    }),
    row("flatten(list)", 1, 1, |c| Ok(Data::List(flat(c.list(0)?)))),
    row("reverse(list)", 1, 1, |c| Ok(Data::List(c.list(0)?.iter().rev().cloned().collect()))),
    row("sort(list)", 1, 1, |c| {
        let mut items = c.list(0)?.iter().map(Value::to_text).collect::<Eval<Vec<_>>>()?;
        items.sort();
        Ok(texts(items, c.at))
    }),
    row("range(start, limit, step)", 1, 3, range),
    row("coalesce(values...)", 1, ANY, |c| {
        let empty = |value: &Value| value.is_null() || matches!(&value.data, Data::Text(text) if text.is_empty());
        let found = c.args.iter().find(|value| !empty(value));
        found.map(|value| value.data.clone()).ok_or_else(|| c.fault("all values are null or empty"))
    }),
];

/// Returns the map that a value holds.
fn map(value: &Value) -> Eval<&BTreeMap<String, Value>> {
    match &value.data {
        Data::Map(map) => Ok(map),
        _ => Err(value.wrong_type("a map").into()),
    }
}

fn length(call: &Call) -> Eval<Data> {
    let length = match &call.args[0].data {
        Data::List(items) => items.len(),
        Data::Map(map) => map.len(),
        Data::Text(text) => text.chars().count(),
        _ => return Err(call.args[0].wrong_type("a list, map or string").into()),
    };
    Ok(Data::Number(Number::from(length as i128)))
}

fn lookup(call: &Call) -> Eval<Data> {
    let key = call.text(1)?;
    match (map(&call.args[0])?.get(&key), call.args.get(2)) {
        (Some(value), _) | (None, Some(value)) => Ok(value.data.clone()),
        (None, None) => Err(call.fault(format!("there is no key `{key}`, and no default"))),
    }
}

/// Returns the items with lists among them taken apart, at any depth.
fn flat(items: &[Value]) -> Vec<Value> {
    let mut flattened = Vec::new();
    for item in items {
        match &item.data {
            Data::List(inner) => flattened.extend(flat(inner)),
            _ => flattened.push(item.clone()),
        }
    }
    flattened
}

fn range(call: &Call) -> Eval<Data> {
    /// The longest list: more than instances, ports or files that any stack declares.
    const LONGEST: usize = 100_000;
    let zero = Number::from(0);
    let (start, limit) = match call.args.len() {
        1 => (zero, call.number(0)?),
        _ => (call.number(0)?, call.number(1)?),
    };
    let one = Number::from(if start <= limit { 1 } else { -1 });
    let step = if call.args.len() == 3 { call.number(2)? } else { one };
    if step == zero || (step > zero) != (one > zero) && start != limit {
        return Err(call.fault("`range` never gets from its start to its limit with this step"));
    }
    let mut items = Vec::new();
    let mut next = start;
    while (step > zero && next < limit) || (step < zero && next > limit) {
        if items.len() == LONGEST {
            return Err(call.fault(format!("`range` makes more than {LONGEST} numbers")));
        }
        items.push(Value::new(Data::Number(next), call.at));
        next = next.add(step).ok_or_else(|| call.fault("number out of range"))?;
    }
    Ok(Data::List(items))
}
