//! Functions of strings.

use super::{ANY, Call, Function, row, texts};
use crate::fault::Eval;
use crate::template::LONGEST_TEXT;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    row("upper(string)", 1, 1, |c| Ok(Data::Text(c.text(0)?.to_uppercase()))),
    row("lower(string)", 1, 1, |c| Ok(Data::Text(c.text(0)?.to_lowercase()))),
    row("trimspace(string)", 1, 1, |c| Ok(Data::Text(c.text(0)?.trim().to_owned()))),
    row("trimprefix(string, prefix)", 2, 2, |c| {
        let (text, prefix) = (c.text(0)?, c.text(1)?);
        Ok(Data::Text(text.strip_prefix(prefix.as_str()).unwrap_or(&text).to_owned()))
    }),
    row("trimsuffix(string, suffix)", 2, 2, |c| {
        let (text, suffix) = (c.text(0)?, c.text(1)?);
        Ok(Data::Text(text.strip_suffix(suffix.as_str()).unwrap_or(&text).to_owned()))
    }),
    row("startswith(string, prefix)", 2, 2, |c| Ok(Data::Bool(c.text(0)?.starts_with(&c.text(1)?)))),
    row("endswith(string, suffix)", 2, 2, |c| Ok(Data::Bool(c.text(0)?.ends_with(&c.text(1)?)))),
    row("join(separator, list)", 2, 2, join),
    row("split(separator, string)", 2, 2, split),
    row("replace(string, old, new)", 3, 3, replace),
    row("format(template, values...)", 1, ANY, format),
    row("tostring(value)", 1, 1, |c| if c.args[0].is_null() { Ok(Data::Null) } else { c.text(0).map(Data::Text) }),
];

fn join(call: &Call) -> Eval<Data> {
    let separator = call.text(0)?;
    let items = call.list(1)?.iter().map(Value::to_text).collect::<Eval<Vec<_>>>()?;
    let gaps = items.len().saturating_sub(1);
    call.fits(separator.len().checked_mul(gaps).and_then(|n| n.checked_add(items.iter().map(String::len).sum())))?;
    Ok(Data::Text(items.join(&separator)))
}

fn split(call: &Call) -> Eval<Data> {
    let (separator, text) = (call.text(0)?, call.text(1)?);
    call.fits(Some(text.len()))?;
    Ok(match text.as_str() {
        "" => Data::List(Vec::new()),
        text if separator.is_empty() => texts(text.chars().map(String::from), call.at),
        text => texts(text.split(&separator).map(str::to_owned), call.at),
    })
}

fn replace(call: &Call) -> Eval<Data> {
    let (text, old, new) = (call.text(0)?, call.text(1)?, call.text(2)?);
    if old.is_empty() {
        return Err(call.fault("`replace` needs a text to look for"));
    }
    let times = text.matches(&old).count();
    call.fits(times.checked_mul(new.len()).and_then(|n| n.checked_add(text.len())))?;
    Ok(Data::Text(text.replace(&old, &new)))
}

/// Fills in `%s`, `%d`, `%q`, `%v`, `%t` and `%f`, with width, leading zeros and digits: `%05d`, `%-8s`, `%.2f`.
fn format(call: &Call) -> Eval<Data> {
    let template = call.text(0)?;
    let mut text = String::new();
    let mut args = call.args[1..].iter();
    let mut rest = template.as_str();
    while let Some(start) = rest.find('%') {
        text.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let verb_at = rest.find(|c: char| c.is_ascii_alphabetic());
        let Some((options, verb)) = verb_at.and_then(|i| Some((&rest[..i], rest[i..].chars().next()?))) else {
            return Err(
                call.fault("`%` without a letter such as `%s` or `%d` behind it: write `%%` for a percent sign")
            );
        };
        rest = &rest[options.len() + 1..];
        let value = args.next().ok_or_else(|| call.fault(format!("no value for `%{options}{verb}`")))?;
        let part = fill(call, verb, options, value)?;
        call.fits(text.len().checked_add(part.len()))?;
        text.push_str(&part);
    }
    if args.next().is_some() {
        return Err(call.fault("more values than places for them in the template"));
    }
    text.push_str(rest);
    if text.len() > LONGEST_TEXT {
        return Err(call.fault("text longer than 16 MiB"));
    }
    Ok(Data::Text(text))
}

/// Returns one value as a verb writes it.
fn fill(call: &Call, verb: char, options: &str, value: &Value) -> Eval<String> {
    /// The widest column: as wide as any table in a file is.
    const WIDEST: usize = 1000;
    let wrong = || call.fault(format!("`%{options}{verb}` is not known: use %s, %d, %f, %q, %t or %v"));
    let (left, options) = options.strip_prefix('-').map_or((false, options), |rest| (true, rest));
    let (zeros, options) = options.strip_prefix('0').map_or((false, options), |rest| (true, rest));
    let (width, digits) = options.split_once('.').map_or((options, None), |(width, digits)| (width, Some(digits)));
    let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n <= WIDEST).ok_or_else(wrong);
    let width = if width.is_empty() { 0 } else { number(width)? };
    let digits = digits.map(number).transpose()?;
    let text = match verb {
        's' | 'v' => value.to_text()?,
        't' => value.to_bool()?.to_string(),
        'q' => serde_json::Value::String(value.to_text()?).to_string(),
        'd' => {
            let whole = value.to_number()?.as_integer();
            whole.ok_or_else(|| value.wrong_type("a whole number"))?.to_string()
        }
        'f' => value.to_number()?.with_digits(digits.unwrap_or(6) as u32).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    if digits.is_some() && verb != 'f' {
        return Err(wrong());
    }
    let fill = width.saturating_sub(text.chars().count());
    Ok(match (left, zeros && matches!(verb, 'd' | 'f')) {
        (true, _) => text + &" ".repeat(fill),
        (false, true) => match text.strip_prefix('-') {
            Some(digits) => format!("-{}{digits}", "0".repeat(fill)),
            None => "0".repeat(fill) + &text,
        },
        (false, false) => " ".repeat(fill) + &text,
    })
}
