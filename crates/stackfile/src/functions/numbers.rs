//! Functions of numbers and bools.

use super::{Call, Function, whole};
use crate::fault::Eval;
use crate::number::Number;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole("abs(number)", "The number without its sign.", ("abs(-1.5)", "1.5"), |c| {
        c.number(0)?.absolute().map(Data::Number).ok_or_else(|| out_of_range(c))
    }),
    whole(
        "alltrue(list)",
        "Whether all elements are true; true for an empty list.",
        ("alltrue([true, false])", "false"),
        |c| Ok(Data::Bool(bools(c)?.into_iter().all(|b| b))),
    ),
    whole(
        "anytrue(list)",
        "Whether any element is true; false for an empty list.",
        ("anytrue([true, false])", "true"),
        |c| Ok(Data::Bool(bools(c)?.into_iter().any(|b| b))),
    ),
    whole("ceil(number)", "The smallest whole number not below it.", ("ceil(1.2)", "2"), |c| {
        Ok(Data::Number(c.number(0)?.ceil()))
    }),
    whole("floor(number)", "The largest whole number not above it.", ("floor(-1.5)", "-2"), |c| {
        Ok(Data::Number(c.number(0)?.floor()))
    }),
    whole(
        "log(number, base)",
        "The logarithm of the number to the base, as a 64-bit floating-point number.",
        ("log(16, 2)", "4"),
        log,
    ),
    whole("max(number, numbers...)", "The largest of the numbers.", ("max([1, 3, 2]...)", "3"), |c| {
        extreme(c, Number::max)
    }),
    whole("min(number, numbers...)", "The smallest of the numbers.", ("min(1.5, -2)", "-2"), |c| {
        extreme(c, Number::min)
    }),
    whole(
        "parseint(string, base)",
        "The whole number that the string writes in the base, from 2 to 62.",
        (r#"parseint("ff", 16)"#, "255"),
        parseint,
    ),
    whole("pow(number, exponent)", "The number to the power of the exponent.", ("pow(2, 10)", "1024"), pow),
    whole("signum(number)", "-1, 0 or 1: the sign of the number.", ("signum(-13)", "-1"), |c| {
        Ok(Data::Number(Number::from(c.number(0)?.cmp(&Number::from(0)) as i128)))
    }),
    whole("sum(list)", "The sum of the numbers in a list that is not empty.", ("sum([1, 2.5, 3])", "6.5"), sum),
];

fn out_of_range(call: &Call) -> crate::fault::Faults {
    call.fault("the result is out of range: numbers have at most 38 digits, 36 of them behind the point")
}

/// Returns the elements of the list as bools; null is false.
fn bools(call: &Call) -> Eval<Vec<bool>> {
    let items = call.list(0)?;
    let read = |item: &Value| if item.is_null() { Ok(false) } else { item.to_bool() };
    call.arg(0, |_| crate::fault::all(items.iter().map(read)))
}

/// Returns the number that wins against all others.
fn extreme(call: &Call, wins: fn(Number, Number) -> Number) -> Eval<Data> {
    let mut best = call.number(0)?;
    for i in 1..call.args.len() {
        best = wins(best, call.number(i)?);
    }
    Ok(Data::Number(best))
}

/// Returns the nearest floating-point number.
fn float(number: Number) -> f64 {
    number.to_string().parse().unwrap_or(f64::NAN)
}

/// Returns the shortest decimal that means this floating-point number.
fn decimal(call: &Call, float: f64) -> Eval<Data> {
    let number = Number::parse(&format!("{float}")).or_else(|| Number::parse(&format!("{float:.30}")));
    number.filter(|_| float.is_finite()).map(Data::Number).ok_or_else(|| out_of_range(call))
}

fn log(call: &Call) -> Eval<Data> {
    let (number, base) = (float(call.number(0)?), float(call.number(1)?));
    if number <= 0.0 {
        return Err(call.wrong(0, "only a number above 0 has a logarithm"));
    }
    if base <= 0.0 || base == 1.0 {
        return Err(call.wrong(1, "a base is above 0, and not 1"));
    }
    // Exact where these two are: the quotient of two logarithms makes 2.9999999999999996 of `log(1000, 10)`.
    let result = match base {
        2.0 => number.log2(),
        10.0 => number.log10(),
        _ => number.ln() / base.ln(),
    };
    decimal(call, result)
}

fn pow(call: &Call) -> Eval<Data> {
    let (number, exponent) = (call.number(0)?, call.number(1)?);
    // Exact for whole exponents, as long as the digits fit.
    let exact = exponent.as_integer().and_then(|n| u32::try_from(n).ok()).and_then(|n| power(number, n));
    match exact {
        Some(result) => Ok(Data::Number(result)),
        None => decimal(call, float(number).powf(float(exponent))),
    }
}

/// Returns `base` to the power of `exponent` by squaring, if its digits fit.
fn power(base: Number, mut exponent: u32) -> Option<Number> {
    let (mut result, mut square) = (Number::from(1), base);
    loop {
        if exponent & 1 == 1 {
            result = result.multiply(square)?;
        }
        exponent >>= 1;
        if exponent == 0 {
            return Some(result);
        }
        square = square.multiply(square)?;
    }
}

fn parseint(call: &Call) -> Eval<Data> {
    let (text, base) = (call.text(0)?, call.integer(1)?);
    if !(2..=62).contains(&base) {
        return Err(call.wrong(1, "a base is between 2 and 62"));
    }
    let digit = |b: u8| {
        let value = match b {
            b'0'..=b'9' => i128::from(b - b'0'),
            b'a'..=b'z' => i128::from(b - b'a') + 10,
            b'A'..=b'Z' if base <= 36 => i128::from(b - b'A') + 10,
            b'A'..=b'Z' => i128::from(b - b'A') + 36,
            _ => return None,
        };
        (value < base).then_some(value)
    };
    let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |digits| (true, digits));
    let shown = call.unless_sensitive(0, format!(" {}", call.args[0].shown()));
    let wrong = || call.wrong(0, format!("the string{shown} is no whole number in base {base}"));
    if digits.is_empty() {
        return Err(wrong());
    }
    let mut number: i128 = 0;
    for b in digits.bytes() {
        let digit = digit(b).ok_or_else(wrong)?;
        number = number.checked_mul(base).and_then(|n| n.checked_add(digit)).ok_or_else(|| out_of_range(call))?;
    }
    Ok(Data::Number(Number::from(if negative { -number } else { number })))
}

fn sum(call: &Call) -> Eval<Data> {
    let items = call.list(0)?;
    if items.is_empty() {
        return Err(call.wrong(0, "an empty list has no sum"));
    }
    let numbers = call.arg(0, |_| crate::fault::all(items.iter().map(Value::to_number)))?;
    let sum = numbers.into_iter().try_fold(Number::from(0), Number::add);
    sum.map(Data::Number).ok_or_else(|| out_of_range(call))
}
