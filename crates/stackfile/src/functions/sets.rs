//! Functions of sets: lists with each element once, sorted if they are strings, numbers or bools.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::collections::{distinct, identity};
use super::conversion::unify;
use super::{Call, Function, whole};
use crate::fault::Eval;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole(
        "setintersection(set, sets...)",
        "The elements that are in all sets.",
        (r#"setintersection(["a", "b"], ["b", "c"])"#, r#"["b"]"#),
        |c| combine(c, |is_in| is_in.iter().all(|b| *b)),
    ),
    whole(
        "setproduct(set, sets...)",
        "All combinations of an element of each set, as lists.",
        (r#"setproduct(["a", "b"], [1, 2])"#, r#"[["a",1],["a",2],["b",1],["b",2]]"#),
        product,
    ),
    whole(
        "setsubtract(set, other)",
        "The elements of the first set that are not in the second.",
        (r#"setsubtract(["a", "b", "c"], ["b"])"#, r#"["a","c"]"#),
        |c| combine(c, |is_in| is_in[0] && !is_in[1]),
    ),
    whole(
        "setunion(set, sets...)",
        "The elements that are in any set.",
        (r#"setunion(["a", "b"], ["b", "c"])"#, r#"["a","b","c"]"#),
        |c| combine(c, |_| true),
    ),
];

/// Returns the values as a set.
pub(super) fn set(values: Vec<Value>) -> Eval<Vec<Value>> {
    let mut items = distinct(unify(values)?);
    if items.iter().all(|item| matches!(item.data, Data::Text(_) | Data::Number(_) | Data::Bool(_))) {
        items.sort_by(order);
    }
    Ok(items)
}

/// Orders values of one simple type.
fn order(a: &Value, b: &Value) -> Ordering {
    match (&a.data, &b.data) {
        (Data::Text(a), Data::Text(b)) => a.cmp(b),
        (Data::Number(a), Data::Number(b)) => a.cmp(b),
        (Data::Bool(a), Data::Bool(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Returns the set of those elements for which `keep` holds, told in which of the sets they are.
fn combine(call: &Call, keep: fn(&[bool]) -> bool) -> Eval<Data> {
    let mut all = Vec::new();
    for i in 0..call.args.len() {
        all.extend(call.list(i)?.iter().map(|item| (i, item.clone())));
    }
    // Of different simple types all become strings, so that "1" and 1 are the same element.
    let (owners, values): (Vec<usize>, Vec<Value>) = all.into_iter().unzip();
    let values = unify(values)?;
    let mut members: Vec<BTreeSet<String>> = vec![BTreeSet::new(); call.args.len()];
    for (owner, value) in owners.iter().zip(&values) {
        members[*owner].insert(identity(value));
    }
    let kept = values.into_iter().filter(|value| {
        let key = identity(value);
        keep(&members.iter().map(|member| member.contains(&key)).collect::<Vec<_>>())
    });
    Ok(Data::List(set(kept.collect())?))
}

fn product(call: &Call) -> Eval<Data> {
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for i in 0..call.args.len() {
        let items = call.list(i)?;
        let mut longer = Vec::new();
        for row in &rows {
            for item in items {
                call.ev.cx.spend(row.iter().map(Value::size).sum::<usize>() + item.size(), call.at)?;
                longer.push(row.iter().chain([item]).cloned().collect());
            }
        }
        rows = longer;
    }
    Ok(Data::List(rows.into_iter().map(|row| call.value(Data::List(row))).collect()))
}
