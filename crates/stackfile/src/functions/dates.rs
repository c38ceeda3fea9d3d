//! Functions of times, which are texts by RFC 3339. There is no clock: the time is given when the stack is loaded.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use regex::Regex;

use super::{Call, Function, whole};
use crate::fault::Eval;
use crate::number::Number;
use crate::value::Data;

pub(super) const FORMATDATE: Function = whole(
    "formatdate(format, time)",
    "The time in another form: `YYYY` `YY` year; `MMMM` `MMM` `MM` `M` month; `DD` `D` day; `EEEE` `EEE` weekday; `hh` `h` hour; \
     `HH` `H` `AA` `aa` of twelve; `mm` `m` minute; `ss` `s` second; `ZZZZZ` `ZZZZ` `ZZZ` `Z` offset; `'text'` as it is.",
    (r#"formatdate("D MMM YYYY 'at' hh:mm ZZZ", "2026-01-02T03:04:05Z")"#, r#""2 Jan 2026 at 03:04 UTC""#),
    formatdate,
);

pub(super) const TIMEADD: Function = whole(
    "timeadd(time, duration)",
    "The time later by a duration such as `\"10m\"`, `\"1h30m\"` or `\"-24h\"`.",
    (r#"timeadd("2026-01-02T03:04:05Z", "1h10m")"#, r#""2026-01-02T04:14:05Z""#),
    timeadd,
);

pub(super) const TIMECMP: Function = whole(
    "timecmp(a, b)",
    "-1, 0 or 1: whether time `a` is before, at or after time `b`.",
    (r#"timecmp("2026-01-02T03:00:00Z", "2026-01-02T03:00:00-01:00")"#, "-1"),
    |c| Ok(Data::Number(Number::from(time(c, 0)?.0.cmp(&time(c, 1)?.0) as i128))),
);

pub(super) const TIMESTAMP: Function = whole(
    "timestamp()",
    "The time that SOURCE_DATE_EPOCH gives, in UTC. None is an error: with a clock, the same stack would never give the same \
     release.",
    ("timestamp()", r#""2026-01-02T03:04:05Z""#),
    now,
);

pub(super) const PLANTIMESTAMP: Function = whole(
    "plantimestamp()",
    "The same as `timestamp()`.",
    (r#"formatdate("YYYY", plantimestamp())"#, r#""2026""#),
    now,
);

fn now(call: &Call) -> Eval<Data> {
    let now = call.ev.cx.now.and_then(|now| Timestamp::from_second(now).ok()).ok_or_else(|| {
        crate::fault::Fault::at(call.at, format!("`{}`: no time is given", call.function.name()))
            .help("set SOURCE_DATE_EPOCH to seconds since 1970; with a clock, the same stack would never give the same release")
    })?;
    Ok(Data::Text(rfc3339(now, Offset::UTC)))
}

/// Returns the time in a place of the arguments, with its offset.
fn time(call: &Call, i: usize) -> Eval<(Timestamp, Offset)> {
    let text = call.text(i)?;
    parse(&text).ok_or_else(|| {
        let fault = call.wrong_fault(i, format!("{} is no time by RFC 3339", call.args[i].shown()));
        fault.help("write for example \"2026-01-02T03:04:05Z\"").into()
    })
}

/// Reads a time (RFC 3339 §5.6).
fn parse(text: &str) -> Option<(Timestamp, Offset)> {
    static FORM: OnceLock<Option<Regex>> = OnceLock::new();
    const PATTERN: &str =
        r"^(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:[Zz]|([+-])(\d\d):(\d\d))$";
    let form = FORM.get_or_init(|| Regex::new(PATTERN).ok()).as_ref()?;
    let found = form.captures(text)?;
    let part = |i: usize| found.get(i).and_then(|part| part.as_str().parse::<i32>().ok());
    let small = |i: usize| part(i).and_then(|n| i8::try_from(n).ok());
    let nanos = found.get(7).map_or(Some(0), |digits| format!("{:0<9}", digits.as_str()).parse().ok())?;
    let year = part(1).and_then(|n| i16::try_from(n).ok())?;
    let local = DateTime::new(year, small(2)?, small(3)?, small(4)?, small(5)?, small(6)?, nanos).ok()?;
    let offset = match found.get(8) {
        None => 0,
        Some(sign) => {
            let (hours, minutes) = (part(9)?, part(10)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign.as_str() == "-" { -1 } else { 1 }
        }
    };
    let offset = Offset::from_seconds(offset).ok()?;
    Some((offset.to_timestamp(local).ok()?, offset))
}

/// Writes a time without parts of seconds.
fn rfc3339(time: Timestamp, offset: Offset) -> String {
    let t = offset.to_datetime(time);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second(),
        zone(offset, ":", "Z")
    )
}

/// Writes an offset as `+01:00`; `utc` if it is none.
fn zone(offset: Offset, between: &str, utc: &str) -> String {
    let minutes = offset.seconds() / 60;
    if minutes == 0 {
        return utc.to_owned();
    }
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{between}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn timeadd(call: &Call) -> Eval<Data> {
    let (time, offset) = time(call, 0)?;
    let nanos = nanoseconds(&call.text(1)?).ok_or_else(|| {
        let fault = call.wrong_fault(1, format!("{} is no duration", call.args[1].shown()));
        fault.help("write a number and `h`, `m`, `s`, `ms`, `us` or `ns`, or several: \"1h30m\", \"-24h\"")
    })?;
    let sum = time.as_nanosecond().checked_add(nanos).and_then(|sum| Timestamp::from_nanosecond(sum).ok());
    let sum = sum.ok_or_else(|| call.fault("the result is out of range"))?;
    Ok(Data::Text(rfc3339(sum, offset)))
}

/// Reads a duration such as `-1.5h` or `1h30m`.
fn nanoseconds(text: &str) -> Option<i128> {
    const UNITS: [(&str, u64); 7] = [
        ("h", 3_600_000_000_000),
        ("ms", 1_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("us", 1000),
        ("µs", 1000),
        ("ns", 1),
    ];
    let (negative, mut rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    rest = rest.strip_prefix('+').unwrap_or(rest);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(Number::parse(number)?.times(factor)?)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

fn formatdate(call: &Call) -> Eval<Data> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let format = call.text(0)?;
    let (time, offset) = time(call, 1)?;
    let t = offset.to_datetime(time);
    // Months count from 1, weekdays from Monday, which is 0 here.
    let month = MONTHS[(t.month() - 1).rem_euclid(12) as usize];
    let day = DAYS[t.weekday().to_monday_zero_offset().rem_euclid(7) as usize];
    let twelve = if t.hour() % 12 == 0 { 12 } else { t.hour() % 12 };
    let mut text = String::new();
    let mut rest = format.as_str();
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (quoted, after) = quotation(&rest[1..]).ok_or_else(|| call.wrong(0, "a `'` without its second one"))?;
            text.push_str(&quoted);
            rest = after;
            continue;
        }
        let end = rest.find(|c| c != first).unwrap_or(rest.len());
        let (verb, after) = rest.split_at(end);
        rest = after;
        if !first.is_ascii_alphabetic() {
            text.push_str(verb);
            continue;
        }
        text.push_str(&match verb {
            "YYYY" => format!("{:04}", t.year()),
            "YY" => format!("{:02}", t.year() % 100),
            "MMMM" => month.to_owned(),
            "MMM" => month[..3].to_owned(),
            "MM" => format!("{:02}", t.month()),
            "M" => t.month().to_string(),
            "DD" => format!("{:02}", t.day()),
            "D" => t.day().to_string(),
            "EEEE" => day.to_owned(),
            "EEE" => day[..3].to_owned(),
            "hh" => format!("{:02}", t.hour()),
            "h" => t.hour().to_string(),
            "HH" => format!("{twelve:02}"),
            "H" => twelve.to_string(),
            "AA" => if t.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            "aa" => if t.hour() < 12 { "am" } else { "pm" }.to_owned(),
            "mm" => format!("{:02}", t.minute()),
            "m" => t.minute().to_string(),
            "ss" => format!("{:02}", t.second()),
            "s" => t.second().to_string(),
            "ZZZZZ" => zone(offset, ":", "+00:00"),
            "ZZZZ" => zone(offset, "", "+0000"),
            "ZZZ" => zone(offset, "", "UTC"),
            "Z" => zone(offset, ":", "Z"),
            _ if call.args[0].is_sensitive() => return Err(call.unsaid().into()),
            _ => {
                let fault = call.wrong_fault(0, format!("`{verb}` is not known"));
                return Err(fault.help("what is meant as it is stands in quotes: \"hh'h'\"").into());
            }
        });
    }
    Ok(Data::Text(text))
}

/// Returns the text up to the closing quote, `''` in it being one quote, and what is behind it.
fn quotation(text: &str) -> Option<(String, &str)> {
    let mut quoted = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('\'')?;
        quoted.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                quoted.push('\'');
                rest = after;
            }
            None => return Some((quoted, rest)),
        }
    }
}
