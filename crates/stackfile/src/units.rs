//! Durations, sizes, shares and the other small notations.

use basalt_model::{Bytes, CpuMillis, Millis, Share, Weight};

use crate::fault::{Eval, Fault};
use crate::number::Number;
use crate::value::{Data, Value};

/// The longest duration: a year. Whatever is longer is a mistyped unit.
const LONGEST: i128 = 365 * 24 * 3_600_000;

/// The most processor time in thousandths of a core: more cores than any machine has today.
const MOST_CPU: i128 = 4096 * 1000;

/// Reads a duration: `"500ms"`, `"30s"`, `"1.5h"`, or several parts: `"1h30m"`.
pub(crate) fn duration(value: &Value) -> Eval<Millis> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    const HELP: &str = "write a number and `ms`, `s`, `m`, `h` or `d`: \"500ms\", \"30s\", \"10m\", \"1h30m\"";
    let Data::Text(text) = &value.data else { return Err(value.wrong_type("a duration").help(HELP).into()) };
    let wrong = || bad(value, "is not a duration").help(HELP);
    let mut rest = text.as_str();
    let mut total: i128 = 0;
    while !rest.is_empty() || total == 0 {
        let (number, after) = split_number(rest).ok_or_else(wrong)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.times(factor).ok_or_else(|| bad(value, "is finer than a millisecond").help(HELP))?;
        total = total.saturating_add(part);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    if total > LONGEST {
        return Err(bad(value, "is longer than a year").into());
    }
    Ok(Millis(total as u64))
}

/// Reads a size: `"128MiB"` (powers of 1024), `"1GB"` (powers of 1000), `"512"` or `512` (bytes).
pub(crate) fn size(value: &Value) -> Eval<Bytes> {
    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("B", 1),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    const HELP: &str = "write a number and a unit: \"128MiB\", \"2GiB\" (powers of 1024) or \"1GB\" (powers of 1000)";
    let text = number_or_text(value, "a size", HELP)?;
    let wrong = || bad(value, "is not a size").help(HELP);
    let (number, unit) = split_number(&text).ok_or_else(wrong)?;
    let unit = unit.trim();
    let (_, factor) = UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(|| {
        let near = UNITS.iter().find(|(name, _)| name.len() == 3 && name[..1].eq_ignore_ascii_case(unit));
        match near {
            Some((name, _)) => bad(value, "is not a size").help(format!("write `{name}` instead of `{unit}`")),
            None => wrong(),
        }
    })?;
    let bytes = number.times(factor).ok_or_else(|| bad(value, "is not a whole number of bytes"))?;
    u64::try_from(bytes).map(Bytes).map_err(|_| bad(value, "is out of range").into())
}

/// Reads processor time: `"500m"` (thousandths of a core), `2`, `"1.5"` (cores).
pub(crate) fn cpu(value: &Value) -> Eval<CpuMillis> {
    const HELP: &str = "write cores, `2` or \"1.5\", or thousandths of a core, \"500m\"";
    let text = number_or_text(value, "processor time", HELP)?;
    let wrong = || bad(value, "is not processor time").help(HELP);
    let (number, unit) = split_number(&text).ok_or_else(wrong)?;
    let millis = match unit {
        "" => number.times(1000),
        "m" => number.as_integer(),
        _ => return Err(wrong().into()),
    };
    let millis = millis.ok_or_else(|| bad(value, "is finer than a thousandth of a core").help(HELP))?;
    if !(1..=MOST_CPU).contains(&millis) {
        return Err(bad(value, "is out of range").help("processor time is between `1m` and 4096 cores").into());
    }
    Ok(CpuMillis(millis as u32))
}

/// Reads a share of the instances: `2` or `"25%"`.
pub(crate) fn share(value: &Value) -> Eval<Share> {
    const HELP: &str = "write a number of instances, `2`, or a part of them, \"25%\"";
    let text = number_or_text(value, "a number or percentage", HELP)?;
    let wrong = || bad(value, "is not a number or percentage").help(HELP);
    let (number, unit) = split_number(&text).ok_or_else(wrong)?;
    let whole = number.as_integer().ok_or_else(wrong)?;
    match unit {
        "" if whole <= 10_000 => Ok(Share::Count(whole as u32)),
        "%" if whole <= 100 => Ok(Share::Percent(whole as u32)),
        "" => Err(bad(value, "is out of range").help("a service has at most 10000 instances").into()),
        "%" => Err(bad(value, "is out of range").help("a percentage is between 0% and 100%").into()),
        _ => Err(wrong().into()),
    }
}

/// Reads a share of the traffic in percent: `5`, `0.25`, `"5%"`.
pub(crate) fn weight(value: &Value) -> Eval<Weight> {
    const HELP: &str = "a weight is a percentage of the traffic between 0 and 100, in steps of 0.01";
    let text = number_or_text(value, "a weight", HELP)?;
    let wrong = || bad(value, "is not a weight").help(HELP);
    let number = Number::parse(text.strip_suffix('%').unwrap_or(&text)).ok_or_else(wrong)?;
    let hundredths = number.times(100).ok_or_else(wrong)?;
    if !(0..=i128::from(Weight::ALL.0)).contains(&hundredths) {
        return Err(bad(value, "is out of range").help(HELP).into());
    }
    Ok(Weight(hundredths as u32))
}

/// Reads permission bits: `"0644"`.
pub(crate) fn mode(value: &Value) -> Eval<u32> {
    const HELP: &str = "write permission bits as octal digits in quotes: \"0644\", \"0755\"";
    let Data::Text(text) = &value.data else { return Err(value.wrong_type("permission bits").help(HELP).into()) };
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
    let mode = mode.ok_or_else(|| bad(value, "is not permission bits").help(HELP))?;
    if mode & 0o7000 != 0 {
        let fault = bad(value, "has set-user, set-group or sticky bits");
        return Err(fault.help("instances gain no privileges from files: use three digits such as \"0755\"").into());
    }
    Ok(mode)
}

/// Returns the number that a text begins with, and what is behind it.
fn split_number(text: &str) -> Option<(Number, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    Some((Number::parse(number)?, rest))
}

/// Returns the text of a number or string.
fn number_or_text(value: &Value, expected: &str, help: &str) -> Eval<String> {
    match &value.data {
        Data::Text(text) => Ok(text.clone()),
        Data::Number(number) => Ok(number.to_string()),
        _ => Err(value.wrong_type(expected).help(help).into()),
    }
}

/// Returns the fault that a value says something impossible.
fn bad(value: &Value, what: &str) -> Fault {
    Fault::at(value.at, format!("{} {what}", value.shown()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::At;

    const HERE: At = At { source: 0, start: 0, end: 0 };

    fn check<T: PartialEq + std::fmt::Debug>(read: fn(&Value) -> Eval<T>, text: &str, expected: Option<T>) {
        assert_eq!(read(&Value::text(text, HERE)).ok(), expected, "{text}");
    }

    fn check_number<T: PartialEq + std::fmt::Debug>(read: fn(&Value) -> Eval<T>, text: &str, expected: Option<T>) {
        let number = Number::parse(text).unwrap();
        assert_eq!(read(&Value::new(Data::Number(number), HERE)).ok(), expected, "{text}");
    }

    #[test]
    fn durations() {
        check(duration, "500ms", Some(Millis(500)));
        check(duration, "30s", Some(Millis::seconds(30)));
        check(duration, "1.5s", Some(Millis(1500)));
        check(duration, "10m", Some(Millis::seconds(600)));
        check(duration, "1h", Some(Millis::seconds(3600)));
        check(duration, "1h30m", Some(Millis::seconds(5400)));
        check(duration, "1d", Some(Millis::seconds(86_400)));
        check(duration, "0s", Some(Millis(0)));
        for bad in
            ["", "5", "s", "5 s", "-5s", "5S", "5sec", "0.1ms", "1h30", "400d", "99999999999999999999999h", "0s0s0"]
        {
            check(duration, bad, None);
        }
        check_number(duration, "5", None);
    }

    #[test]
    fn sizes() {
        check(size, "128MiB", Some(Bytes(128 << 20)));
        check(size, "1GB", Some(Bytes(1_000_000_000)));
        check(size, "1.5KiB", Some(Bytes(1536)));
        check(size, "64kb", Some(Bytes(64_000)));
        check(size, "2 TiB", Some(Bytes(2 << 40)));
        check(size, "512", Some(Bytes(512)));
        check_number(size, "512", Some(Bytes(512)));
        for bad in ["", "MiB", "1M", "1XB", "0.3B", "99999999999TiB", "-1B"] {
            check(size, bad, None);
        }
    }

    #[test]
    fn processor_time() {
        check(cpu, "500m", Some(CpuMillis(500)));
        check(cpu, "1.5", Some(CpuMillis(1500)));
        check_number(cpu, "2", Some(CpuMillis(2000)));
        check_number(cpu, "0.25", Some(CpuMillis(250)));
        for bad in ["", "0", "0m", "1.5m", "1u", "5000", "-1", "99999999999999999999999999999999999999"] {
            check(cpu, bad, None);
        }
    }

    #[test]
    fn shares() {
        check(share, "25%", Some(Share::Percent(25)));
        check(share, "2", Some(Share::Count(2)));
        check_number(share, "2", Some(Share::Count(2)));
        for bad in ["", "%", "101%", "10001", "1.5", "2x", "-1"] {
            check(share, bad, None);
        }
    }

    #[test]
    fn weights() {
        check_number(weight, "5", Some(Weight::percent(5)));
        check_number(weight, "0.25", Some(Weight(25)));
        check(weight, "50%", Some(Weight::percent(50)));
        check_number(weight, "100", Some(Weight::ALL));
        for bad in ["", "%", "101", "0.001", "-1", "x"] {
            check(weight, bad, None);
        }
    }

    #[test]
    fn modes() {
        check(mode, "0644", Some(0o644));
        check(mode, "755", Some(0o755));
        for bad in ["", "64", "0888", "4755", "+755", "07777"] {
            check(mode, bad, None);
        }
        check_number(mode, "644", None);
    }
}
