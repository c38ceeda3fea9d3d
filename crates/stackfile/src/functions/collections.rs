//! Functions of lists and maps.

use std::collections::{BTreeMap, BTreeSet};

use unicode_segmentation::UnicodeSegmentation;

use super::conversion::unify;
use super::{Call, Function, parts, texts, whole};
use crate::fault::Eval;
use crate::number::Number;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    parts(
        "chunklist(list, size)",
        "The list in pieces of at most so many elements; a size of 0 means one piece.",
        (r#"chunklist(["a", "b", "c"], 2)"#, r#"[["a","b"],["c"]]"#),
        chunklist,
    ),
    parts(
        "coalesce(values...)",
        "The first value that is neither null nor an empty string.",
        (r#"coalesce(null, "", "a", "b")"#, r#""a""#),
        |c| {
            let empty = |value: &Value| value.is_null() || matches!(&value.data, Data::Text(text) if text.is_empty());
            let found = c.args.iter().find(|value| !empty(value));
            found.cloned().ok_or_else(|| c.fault("all values are null or empty"))
        },
    ),
    parts(
        "coalescelist(lists...)",
        "The first list that is not empty.",
        (r#"coalescelist([], ["a"], ["b"])"#, r#"["a"]"#),
        |c| {
            for (i, arg) in c.args.iter().enumerate() {
                if !arg.is_null() && !c.list(i)?.is_empty() {
                    return Ok(arg.clone());
                }
            }
            Err(c.fault("all lists are empty"))
        },
    ),
    whole(
        "compact(list)",
        "The list of strings without those that are null or empty.",
        (r#"compact(["a", "", null, "b"])"#, r#"["a","b"]"#),
        |c| {
            let items = c.list(0)?.iter().filter(|item| !item.is_null());
            let items = c.arg(0, |_| crate::fault::all(items.map(Value::to_text)))?;
            Ok(texts(items.into_iter().filter(|text| !text.is_empty()), c.at))
        },
    ),
    parts("concat(lists...)", "The elements of all lists in one.", ("concat([1], [], [2, 3])", "[1,2,3]"), |c| {
        let mut items = Vec::new();
        for i in 0..c.args.len() {
            items.extend_from_slice(c.list(i)?);
        }
        Ok(c.value(Data::List(items)))
    }),
    whole(
        "contains(list, value)",
        "Whether an element equals the value.",
        (r#"contains(["a", "b"], "b")"#, "true"),
        |c| Ok(Data::Bool(c.list(0)?.iter().any(|item| item.equals(&c.args[1])))),
    ),
    whole(
        "distinct(list)",
        "The list with each element once, in the order of first appearance.",
        ("distinct([2, 1, 2])", "[2,1]"),
        |c| Ok(Data::List(distinct(c.list(0)?.to_vec()))),
    ),
    parts(
        "element(list, index)",
        "The element at the index, which starts again at the end of the list; -1 is the last one.",
        (r#"element(["a", "b", "c"], 4)"#, r#""b""#),
        |c| {
            let (items, index) = (c.list(0)?, c.integer(1)?);
            let length = i128::try_from(items.len()).unwrap_or(i128::MAX);
            if length == 0 {
                return Err(c.wrong(0, "an empty list has no elements"));
            }
            Ok(items[index.rem_euclid(length) as usize].clone())
        },
    ),
    parts(
        "flatten(list)",
        "The list with lists among its elements taken apart, at any depth.",
        ("flatten([1, [2, [3]], []])", "[1,2,3]"),
        |c| {
            let mut flattened = Vec::new();
            flat(c.list(0)?, false, &mut flattened);
            Ok(c.value(Data::List(flattened)))
        },
    ),
    whole(
        "index(list, value)",
        "The index of the first element that equals the value. None is an error.",
        (r#"index(["a", "b"], "b")"#, "1"),
        |c| {
            let found = c.list(0)?.iter().position(|item| item.equals(&c.args[1]));
            let shown = c.args[1].shown();
            found.map(number).ok_or_else(|| c.fault(format!("the list has no element {shown}")))
        },
    ),
    parts("keys(map)", "The keys of the map, sorted.", ("keys({ b = 1, a = 2 })", r#"["a","b"]"#), |c| {
        Ok(c.value(texts(c.map(0)?.keys().cloned(), c.at)))
    }),
    parts(
        "length(value)",
        "The number of elements of a list or map, or of characters of a string.",
        (r#"length("añb")"#, "3"),
        |c| {
            let length = match &c.args[0].data {
                Data::List(items) => items.len(),
                Data::Map(map) => map.len(),
                Data::Text(text) => text.graphemes(true).count(),
                _ => return c.arg(0, |value| Err(value.wrong_type("a list, map or string").into())),
            };
            Ok(c.value(number(length)))
        },
    ),
    parts(
        "lookup(map, key, default?)",
        "The value at the key, or the default if there is none.",
        (r#"lookup({ a = 1 }, "b", 0)"#, "0"),
        |c| {
            let key = c.text(1)?;
            let found = c.map(0)?.get(&key).or(c.args.get(2));
            let shown = c.args[1].shown();
            found.cloned().ok_or_else(|| c.wrong(1, format!("the map has no key {shown}, and there is no default")))
        },
    ),
    whole(
        "matchkeys(values, keys, search)",
        "Those values whose key, at the same index, is in the search list.",
        (r#"matchkeys(["i-1", "i-2"], ["eu", "us"], ["us"])"#, r#"["i-2"]"#),
        |c| {
            let (values, keys) = (c.list(0)?, c.list(1)?);
            if values.len() != keys.len() {
                return Err(c.wrong(1, format!("{} keys for {} values", keys.len(), values.len())));
            }
            // Of different simple types all become strings, so that "1" and 1 are the same key.
            let mut keys = unify(keys.iter().chain(c.list(2)?).cloned().collect())?;
            let search: BTreeSet<String> = keys.drain(values.len()..).map(|key| identity(&key)).collect();
            let found = values.iter().zip(&keys).filter(|(_, key)| search.contains(&identity(key)));
            Ok(Data::List(found.map(|(value, _)| value.clone()).collect()))
        },
    ),
    parts(
        "merge(maps...)",
        "One map of all; the value of a later one wins. Null is passed over.",
        ("merge({ a = 1, b = 1 }, { b = 2 })", r#"{"a":1,"b":2}"#),
        |c| {
            let mut merged = BTreeMap::new();
            for i in (0..c.args.len()).filter(|i| !c.args[*i].is_null()) {
                merged.extend(c.map(i)?.clone());
            }
            Ok(c.value(Data::Map(merged)))
        },
    ),
    parts(
        "one(list)",
        "The only element; null for an empty list. More than one is an error.",
        (r#"one(["a"])"#, r#""a""#),
        |c| match c.list(0)? {
            [] => Ok(c.value(Data::Null)),
            [only] => Ok(only.clone()),
            items => Err(c.wrong(0, format!("expected at most one element, found {}", items.len()))),
        },
    ),
    whole(
        "range(start, limit?, step?)",
        "The numbers from the start up to before the limit. With one argument: from 0 up to before it.",
        ("range(1, 4)", "[1,2,3]"),
        range,
    ),
    parts("reverse(list)", "The elements in reverse order.", ("reverse([1, 2, 3])", "[3,2,1]"), |c| {
        Ok(c.value(Data::List(c.list(0)?.iter().rev().cloned().collect())))
    }),
    parts(
        "slice(list, start, end)",
        "The elements from index `start` up to before `end`.",
        (r#"slice(["a", "b", "c"], 1, 3)"#, r#"["b","c"]"#),
        |c| {
            let (items, start, end) = (c.list(0)?, c.size(1)?, c.size(2)?);
            let wrong = |i, reason| Err(c.wrong(i, reason));
            if start > end {
                return wrong(1, format!("{start} is behind the end, {end}"));
            }
            match items.get(start..end) {
                Some(items) => Ok(c.value(Data::List(items.to_vec()))),
                None => wrong(2, format!("{end} is behind the end of the list, which has {} elements", items.len())),
            }
        },
    ),
    whole(
        "sort(list)",
        "The strings in the order of their Unicode code points.",
        (r#"sort(["b", "a", "B"])"#, r#"["B","a","b"]"#),
        |c| {
            let mut items = c.texts(0)?;
            items.sort();
            Ok(texts(items, c.at))
        },
    ),
    whole(
        "transpose(map)",
        "A map from each string in the lists to the sorted keys of the lists it is in.",
        (r#"transpose({ a = ["1", "2"], b = ["2"] })"#, r#"{"1":["a"],"2":["a","b"]}"#),
        transpose,
    ),
    parts(
        "values(map)",
        "The values of the map, in the order of their keys.",
        ("values({ b = 1, a = 2 })", "[2,1]"),
        |c| Ok(c.value(Data::List(c.map(0)?.values().cloned().collect()))),
    ),
    parts(
        "zipmap(keys, values)",
        "A map of the keys to the values at the same index.",
        (r#"zipmap(["a", "b"], [1, 2])"#, r#"{"a":1,"b":2}"#),
        |c| {
            let (keys, values) = (c.texts(0)?, c.list(1)?);
            if keys.len() != values.len() {
                return Err(c.wrong(1, format!("{} values for {} keys", values.len(), keys.len())));
            }
            let map = keys.into_iter().zip(values.iter().cloned()).collect();
            Ok(c.value(Data::Map(map)).marked(c.args[0].is_sensitive()))
        },
    ),
];

/// Returns a count.
fn number(count: usize) -> Data {
    Data::Number(Number::from(i128::try_from(count).unwrap_or(i128::MAX)))
}

/// Returns a text that two values have in common exactly if they are equal.
pub(super) fn identity(value: &Value) -> String {
    fn write(value: &Value, text: &mut String) {
        match &value.data {
            Data::List(items) => {
                text.push('[');
                for item in items {
                    write(item, text);
                    text.push(',');
                }
                text.push(']');
            }
            Data::Map(map) => {
                text.push('{');
                for (key, value) in map {
                    text.push_str(&super::encoding::quoted(key));
                    text.push(':');
                    write(value, text);
                    text.push(',');
                }
                text.push('}');
            }
            Data::Text(plain) => text.push_str(&super::encoding::quoted(plain)),
            Data::Reference(kind, name) => text.push_str(&format!("<{kind}.{name}>")),
            Data::Number(number) => text.push_str(&number.to_string()),
            Data::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
            Data::Null => text.push_str("null"),
        }
    }
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// Returns the list with each value once, in the order of first appearance.
pub(super) fn distinct(items: Vec<Value>) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|item| seen.insert(identity(item))).collect()
}

fn chunklist(call: &Call) -> Eval<Value> {
    let (items, size) = (call.list(0)?, call.size(1)?);
    let size = if size == 0 { items.len().max(1) } else { size };
    let chunks = items.chunks(size).map(|chunk| call.value(Data::List(chunk.to_vec())));
    Ok(call.value(Data::List(chunks.collect())))
}

/// Adds the items, with lists among them taken apart at any depth.
fn flat(items: &[Value], sensitive: bool, flattened: &mut Vec<Value>) {
    for item in items {
        match &item.data {
            Data::List(inner) => flat(inner, sensitive || item.sensitive, flattened),
            _ => flattened.push(item.clone().marked(sensitive)),
        }
    }
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
        return Err(call.fault("never gets from its start to its limit with this step"));
    }
    let mut items = Vec::new();
    let mut next = start;
    while (step > zero && next < limit) || (step < zero && next > limit) {
        if items.len() == LONGEST {
            return Err(call.fault(format!("makes more than {LONGEST} numbers")));
        }
        items.push(Value::new(Data::Number(next), call.at));
        next = next.add(step).ok_or_else(|| call.fault("number out of range"))?;
    }
    Ok(Data::List(items))
}

fn transpose(call: &Call) -> Eval<Data> {
    let mut transposed: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, list) in call.map(0)? {
        let items = match &list.data {
            Data::List(items) => items,
            _ => return call.arg(0, |_| Err(list.wrong_type("a list of strings").into())),
        };
        for item in items {
            let text = call.arg(0, |_| item.to_text())?;
            transposed.entry(text).or_default().push(Value::text(key, call.at));
        }
    }
    let lists = transposed.into_iter().map(|(key, keys)| (key, call.value(Data::List(keys))));
    Ok(Data::Map(lists.collect()))
}
