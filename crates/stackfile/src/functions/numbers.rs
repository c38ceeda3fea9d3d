//! Functions of numbers and bools.

use super::{ANY, Call, Function, row};
use crate::fault::Eval;
use crate::number::Number;
use crate::value::Data;

pub(super) const TABLE: &[Function] = &[
    row("max(numbers...)", 1, ANY, |c| extreme(c, Number::max)),
    row("min(numbers...)", 1, ANY, |c| extreme(c, Number::min)),
    row("abs(number)", 1, 1, |c| {
        c.number(0)?.absolute().map(Data::Number).ok_or_else(|| c.fault("number out of range"))
    }),
    row("floor(number)", 1, 1, |c| Ok(Data::Number(c.number(0)?.floor()))),
    row("ceil(number)", 1, 1, |c| Ok(Data::Number(c.number(0)?.ceil()))),
    row("tonumber(value)", 1, 1, |c| if c.args[0].is_null() { Ok(Data::Null) } else { c.number(0).map(Data::Number) }),
    row(
        "tobool(value)",
        1,
        1,
        |c| if c.args[0].is_null() { Ok(Data::Null) } else { c.args[0].to_bool().map(Data::Bool) },
    ),
];

/// Returns the number that wins against all others.
fn extreme(call: &Call, wins: fn(Number, Number) -> Number) -> Eval<Data> {
    let mut best = call.number(0)?;
    for i in 1..call.args.len() {
        best = wins(best, call.number(i)?);
    }
    Ok(Data::Number(best))
}
