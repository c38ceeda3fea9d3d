//! `format` and `formatlist`: verbs in a template, each filled with a value.

use super::{Call, Function, whole};
use crate::fault::Eval;
use crate::number::Number;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole(
        "format(template, values...)",
        "The template with each verb replaced by a value: `%s` string, `%d` whole number, `%f` `%e` `%g` number, `%t` bool, \
         `%q` quoted string, `%v` any, `%#v` as JSON, `%b` `%o` `%x` `%X` other bases, `%%` a percent sign; with width, \
         digits, `-`, `+`, `0` and the number of the value: `%[2]s`, `%05d`, `%-8s`, `%.2f`.",
        (r#"format("%s-%03d (%.1f%%)", "web", 7, 99.5)"#, r#""web-007 (99.5%)""#),
        |c| {
            let values: Vec<&Value> = c.args[1..].iter().collect();
            c.made(fill(c, &c.text(0)?, &values)?)
        },
    ),
    whole(
        "formatlist(template, values...)",
        "The template filled once for each element of the lists among the values; values that are no lists stay the same.",
        (r#"formatlist("%s:%d", ["a", "b"], 80)"#, r#"["a:80","b:80"]"#),
        formatlist,
    ),
];

fn formatlist(call: &Call) -> Eval<Data> {
    let template = call.text(0)?;
    let values = &call.args[1..];
    let mut length: Option<(usize, usize)> = None;
    for (i, value) in values.iter().enumerate() {
        let Data::List(items) = &value.data else { continue };
        match length {
            Some((_, first)) if first != items.len() => {
                let reason = format!("lists of different length: {first} and {}", items.len());
                return Err(call.wrong(i + 1, reason));
            }
            _ => length = Some((i, items.len())),
        }
    }
    let length = length.map_or(1, |(_, length)| length);
    let mut lines = Vec::with_capacity(length.min(1024));
    for i in 0..length {
        let row: Vec<&Value> = values
            .iter()
            .map(|value| match &value.data {
                Data::List(items) => &items[i],
                _ => value,
            })
            .collect();
        let line = fill(call, &template, &row)?;
        call.fits(Some(line.len()))?;
        lines.push(Value::text(line, call.at));
    }
    Ok(Data::List(lines))
}

/// A verb of a template, such as `%-8.2f`.
#[derive(Default)]
struct Verb {
    left: bool,
    plus: bool,
    space: bool,
    zeros: bool,
    json: bool,
    width: usize,
    digits: Option<usize>,
    letter: char,
}

/// Returns the template with its verbs replaced.
fn fill(call: &Call, template: &str, values: &[&Value]) -> Eval<String> {
    let mut text = String::new();
    let mut next = 0;
    let mut all_used = 0;
    let mut rest = template;
    while let Some(start) = rest.find('%') {
        text.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| {
            call.wrong(0, "`%` without a letter such as `%s` or `%d` behind it: write `%%` for a percent sign")
        })?;
        let (written, after) = rest.split_at(end + 1);
        rest = after;
        let (verb, position) = verb(call, written)?;
        let i = position.unwrap_or(next);
        next = i + 1;
        all_used = all_used.max(next);
        let value = values.get(i).ok_or_else(|| call.fault(format!("no value for `%{written}`")))?;
        let part = verb.write(call, written, value)?;
        call.fits(text.len().checked_add(part.len()))?;
        text.push_str(&part);
    }
    if all_used < values.len() {
        return Err(call.fault("more values than places for them in the template"));
    }
    text.push_str(rest);
    Ok(text)
}

/// Returns the verb and, from `[2]`, which value it takes, counted from 0.
fn verb(call: &Call, written: &str) -> Eval<(Verb, Option<usize>)> {
    /// The widest column: as wide as any table in a file is.
    const WIDEST: usize = 1000;
    let unknown = || {
        if call.args[0].is_sensitive() {
            return call.unsaid().into();
        }
        let shown = written.escape_debug();
        call.wrong(0, format!("`%{shown}` is not known: use %s, %d, %f, %e, %g, %q, %t, %v, %b, %o, %x or %X"))
    };
    let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n <= WIDEST).ok_or_else(unknown);
    let Some(letter) = written.chars().last() else { return Err(unknown()) };
    let mut verb = Verb { letter, ..Verb::default() };
    let mut rest = &written[..written.len() - 1];
    loop {
        let flag = match rest.chars().next() {
            Some('-') => &mut verb.left,
            Some('+') => &mut verb.plus,
            Some(' ') => &mut verb.space,
            Some('0') => &mut verb.zeros,
            Some('#') => &mut verb.json,
            _ => break,
        };
        *flag = true;
        rest = &rest[1..];
    }
    let mut position = None;
    if let Some((before, index)) = rest.strip_suffix(']').and_then(|inner| inner.split_once('[')) {
        position = Some(number(index)?.checked_sub(1).ok_or_else(unknown)?);
        rest = before;
    }
    let (width, digits) = rest.split_once('.').map_or((rest, None), |(width, digits)| (width, Some(digits)));
    verb.width = if width.is_empty() { 0 } else { number(width)? };
    verb.digits = digits.map(|digits| if digits.is_empty() { Ok(0) } else { number(digits) }).transpose()?;
    Ok((verb, position))
}

impl Verb {
    /// Returns one value as the verb writes it.
    fn write(&self, call: &Call, written: &str, value: &Value) -> Eval<String> {
        let named = |mut faults: crate::fault::Faults| {
            if call.args[0].is_sensitive() {
                return faults;
            }
            for fault in &mut faults.0 {
                fault.message = format!("`{}`: `%{written}`: {}", call.function.name(), fault.message);
            }
            faults
        };
        let text = self.text(call, value).map_err(named)?;
        let fill = self.width.saturating_sub(text.chars().count());
        let numeric = !matches!(self.letter, 's' | 'q' | 'v' | 't');
        Ok(match (self.left, self.zeros && numeric) {
            (true, _) => text + &" ".repeat(fill),
            (false, true) => match text.strip_prefix(['-', '+', ' ']) {
                Some(digits) => format!("{}{}{digits}", &text[..1], "0".repeat(fill)),
                None => "0".repeat(fill) + &text,
            },
            (false, false) => " ".repeat(fill) + &text,
        })
    }

    fn text(&self, call: &Call, value: &Value) -> Eval<String> {
        let number = || value.to_number();
        let cut = |text: String| match self.digits {
            Some(digits) => text.chars().take(digits).collect(),
            None => text,
        };
        Ok(match self.letter {
            'v' if self.json => super::encoding::json(value)?,
            'v' => match &value.data {
                Data::Null => "null".to_owned(),
                Data::List(_) | Data::Map(_) => super::encoding::json(value)?,
                _ => cut(value.to_text()?),
            },
            's' => cut(value.to_text()?),
            'q' => super::encoding::quoted(&cut(value.to_text()?)),
            't' => value.to_bool()?.to_string(),
            'd' => self.signed(self.whole(value)?.to_string()),
            'b' => self.based(value, |n| format!("{n:b}"))?,
            'o' => self.based(value, |n| format!("{n:o}"))?,
            'x' => self.based(value, |n| format!("{n:x}"))?,
            'X' => self.based(value, |n| format!("{n:X}"))?,
            'f' => {
                let digits = u32::try_from(self.digits.unwrap_or(6)).unwrap_or(u32::MAX);
                let text = number()?.with_digits(digits).ok_or_else(|| call.fault("too many digits"))?;
                self.signed(text)
            }
            'e' | 'E' | 'g' | 'G' => self.signed(self.scientific(number()?)),
            _ if call.args[0].is_sensitive() => return Err(call.unsaid().into()),
            letter => {
                let known = "use %s, %d, %f, %e, %g, %q, %t, %v, %b, %o, %x or %X";
                return Err(call.wrong(0, format!("`%{letter}` is not known: {known}")));
            }
        })
    }

    fn whole(&self, value: &Value) -> Eval<i128> {
        value.to_number()?.as_integer().ok_or_else(|| value.wrong_type("a whole number").into())
    }

    fn based(&self, value: &Value, write: impl Fn(u128) -> String) -> Eval<String> {
        let number = self.whole(value)?;
        let sign = if number < 0 { "-" } else { "" };
        Ok(self.signed(format!("{sign}{}", write(number.unsigned_abs()))))
    }

    /// Puts a plus or a space before what has no sign, if asked for.
    fn signed(&self, text: String) -> String {
        match (text.starts_with('-'), self.plus, self.space) {
            (false, true, _) => format!("+{text}"),
            (false, false, true) => format!(" {text}"),
            _ => text,
        }
    }

    /// Returns the number with an exponent of at least two digits; `%g` only where that is shorter.
    fn scientific(&self, number: Number) -> String {
        let float: f64 = number.to_string().parse().unwrap_or_default();
        let exponent = |text: String| {
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        };
        let text = match (self.letter, self.digits) {
            ('e' | 'E', digits) => exponent(format!("{float:.*e}", digits.unwrap_or(6))),
            (_, digits) => {
                let shortest = match digits {
                    Some(digits) => format!("{float:.*e}", digits.max(1) - 1),
                    None => format!("{float:e}"),
                };
                let power: i32 = shortest.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
                // As printf's `%g`: the exponent is written when it is below -4, or not below the digits (6 if not given).
                let most = digits.map_or(6, |digits| digits.max(1) as i32);
                if power < -4 || power >= most {
                    exponent(shortest)
                } else {
                    let rounded: f64 = shortest.parse().unwrap_or(float);
                    format!("{rounded}")
                }
            }
        };
        if self.letter.is_ascii_uppercase() { text.to_uppercase() } else { text }
    }
}
