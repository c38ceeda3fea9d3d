//! Functions that write values in another form, and read them back.

use std::collections::BTreeMap;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Call, Function, whole, yaml};
use crate::fault::Eval;
use crate::value::{Data, Value};

pub(super) const TABLE: &[Function] = &[
    whole(
        "base64decode(string)",
        "The text that the base64 string (RFC 4648 §4) encodes.",
        (r#"base64decode("aGVsbG8=")"#, r#""hello""#),
        |c| {
            let bytes = decoded(c)?;
            String::from_utf8(bytes).map(Data::Text).map_err(|_| c.fault("what is encoded is not UTF-8 text"))
        },
    ),
    whole(
        "base64encode(string)",
        "The text in base64 (RFC 4648 §4).",
        (r#"base64encode("hello")"#, r#""aGVsbG8=""#),
        |c| encode_base64(c, c.text(0)?.as_bytes()),
    ),
    whole(
        "base64gzip(string)",
        "The text compressed by gzip (RFC 1952) without a time, in base64.",
        (r#"substr(base64gzip("hello"), 0, 12)"#, r#""H4sIAAAAAAAC""#),
        base64gzip,
    ),
    whole(
        "csvdecode(string)",
        "The rows of a CSV text (RFC 4180) as maps, by the names in its first row.",
        (r#"csvdecode("a,b\n1,2\n")"#, r#"[{"a":"1","b":"2"}]"#),
        csvdecode,
    ),
    whole(
        "jsondecode(string)",
        "The value of a JSON text (RFC 8259).",
        (r#"jsondecode("{\"a\": [1, true]}")"#, r#"{"a":[1,true]}"#),
        jsondecode,
    ),
    whole(
        "jsonencode(value)",
        "The value as JSON (RFC 8259); keys are sorted, and `<`, `>`, `&`, U+2028 and U+2029 are escaped.",
        (r#"jsonencode({ a = [1, null] })"#, r#""{\"a\":[1,null]}""#),
        |c| c.made(c.arg(0, json)?),
    ),
    whole(
        "textdecodebase64(string, encoding)",
        "The text that the base64 string encodes in UTF-8, UTF-16LE, UTF-16BE, ISO-8859-1 or US-ASCII.",
        (r#"textdecodebase64("aABpAA==", "UTF-16LE")"#, r#""hi""#),
        |c| {
            let text = Charset::read(c)?.decode(&decoded(c)?);
            text.map(Data::Text).ok_or_else(|| c.wrong(0, "what is encoded is no text in this encoding"))
        },
    ),
    whole(
        "textencodebase64(string, encoding)",
        "The text in UTF-8, UTF-16LE, UTF-16BE, ISO-8859-1 or US-ASCII, in base64.",
        (r#"textencodebase64("hi", "UTF-16LE")"#, r#""aABpAA==""#),
        |c| {
            let bytes = Charset::read(c)?.encode(&c.text(0)?);
            let bytes = bytes.ok_or_else(|| c.wrong(0, "the text has characters that this encoding has not"))?;
            encode_base64(c, &bytes)
        },
    ),
    whole(
        "urlencode(string)",
        "The text as part of a URL query: all but letters, digits and `-_.~` escaped, and spaces as `+`.",
        (r#"urlencode("a b&c")"#, r#""a+b%26c""#),
        |c| {
            let mut text = String::new();
            for b in c.text(0)?.bytes() {
                match b {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(b)),
                    b' ' => text.push('+'),
                    _ => text.push_str(&format!("%{b:02X}")),
                }
            }
            c.made(text)
        },
    ),
    whole(
        "yamldecode(string)",
        "The value of a YAML 1.2 text of one document; aliases are resolved.",
        (r#"yamldecode("a: [1, true]\nb: ~\n")"#, r#"{"a":[1,true],"b":null}"#),
        |c| yaml::decode(c, &c.text(0)?).map(|value| value.data),
    ),
    whole(
        "yamlencode(value)",
        "The value as YAML in block style; keys are sorted, strings quoted, and those of several lines literal.",
        (r#"yamlencode({ a = [1, "x"] })"#, r#""\"a\":\n- 1\n- \"x\"\n""#),
        |c| c.made(c.arg(0, yaml::encode)?),
    ),
];

/// Returns the bytes that the first argument encodes.
fn decoded(call: &Call) -> Eval<Vec<u8>> {
    STANDARD.decode(call.text(0)?).map_err(|_| call.wrong(0, "not base64 (RFC 4648 §4)"))
}

/// Returns the bytes in base64.
pub(super) fn encode_base64(call: &Call, bytes: &[u8]) -> Eval<Data> {
    call.fits(bytes.len().checked_mul(2))?;
    Ok(Data::Text(STANDARD.encode(bytes)))
}

fn base64gzip(call: &Call) -> Eval<Data> {
    let text = call.text(0)?;
    call.fits(Some(text.len()))?;
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    // Writing to memory does not fail.
    let bytes = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    encode_base64(call, &bytes.map_err(|error| call.fault(error.to_string()))?)
}

fn csvdecode(call: &Call) -> Eval<Data> {
    let text = call.text(0)?;
    call.ev.cx.spend(text.len(), call.at)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(String::new(), |position| format!(" in line {}", position.line()));
        let reason = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields instead of {expected_len}")
            }
            _ => "not CSV".to_owned(),
        };
        call.wrong(0, format!("{reason}{line}"))
    };
    let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
        let shown = call.unless_sensitive(0, format!(" `{}`", twice.escape_debug()));
        return Err(call.wrong(0, format!("the name{shown} stands twice in the first row")));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let fields = names.iter().cloned().zip(record.iter().map(|field| Value::text(field, call.at)));
        let row: BTreeMap<String, Value> = fields.collect();
        let row = call.value(Data::Map(row));
        call.ev.cx.spend(row.size(), call.at)?;
        rows.push(row);
    }
    Ok(Data::List(rows))
}

fn jsondecode(call: &Call) -> Eval<Data> {
    let text = call.text(0)?;
    call.ev.cx.spend(text.len(), call.at)?;
    let value = crate::json::value(&text, call.at)
        .map_err(|error| call.wrong(0, format!("not JSON{}", call.unless_sensitive(0, format!(": {error}")))))?;
    Ok(value.data)
}

/// Returns the value as JSON, with every number exact, and what could end an HTML script escaped.
pub(crate) fn json(value: &Value) -> Eval<String> {
    json_with(value, quoted)
}

/// Returns the value as JSON for people, with every number exact.
pub(crate) fn plain_json(value: &Value) -> Eval<String> {
    json_with(value, |text| serde_json::Value::from(text).to_string())
}

fn json_with(value: &Value, quoted: fn(&str) -> String) -> Eval<String> {
    fn write(value: &Value, quoted: fn(&str) -> String, text: &mut String) -> Eval<()> {
        match &value.data {
            Data::Null => text.push_str("null"),
            Data::Bool(b) => text.push_str(if *b { "true" } else { "false" }),
            Data::Number(number) => text.push_str(&number.to_string()),
            Data::Text(plain) => text.push_str(&quoted(plain)),
            Data::List(items) => {
                text.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    write(item, quoted, text)?;
                }
                text.push(']');
            }
            Data::Map(map) => {
                text.push('{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        text.push(',');
                    }
                    text.push_str(&quoted(key));
                    text.push(':');
                    write(value, quoted, text)?;
                }
                text.push('}');
            }
            Data::Reference(..) => return Err(value.wrong_type("a value").into()),
        }
        Ok(())
    }
    let mut text = String::new();
    write(value, quoted, &mut text)?;
    Ok(text)
}

/// Returns the text as a JSON string, with what could end an HTML script escaped as well.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for ch in serde_json::Value::from(text).to_string().chars() {
        match ch {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => quoted.push_str(&format!("\\u{:04x}", u32::from(ch))),
            _ => quoted.push(ch),
        }
    }
    quoted
}

/// An encoding of text.
enum Charset {
    Utf8,
    Utf16 {
        big_endian: bool,
    },
    /// One byte for each of the first so many code points.
    Latin {
        most: u32,
    },
}

impl Charset {
    /// Reads the second argument.
    fn read(call: &Call) -> Eval<Self> {
        Ok(match call.text(1)?.to_ascii_uppercase().as_str() {
            "UTF-8" | "UTF8" => Self::Utf8,
            "UTF-16LE" => Self::Utf16 { big_endian: false },
            "UTF-16BE" => Self::Utf16 { big_endian: true },
            "ISO-8859-1" | "LATIN1" => Self::Latin { most: 0x100 },
            "US-ASCII" | "ASCII" => Self::Latin { most: 0x80 },
            _ => {
                let known = "use UTF-8, UTF-16LE, UTF-16BE, ISO-8859-1 or US-ASCII";
                return Err(call.wrong_fault(1, format!("{} is not known", call.args[1].shown())).help(known).into());
            }
        })
    }

    fn encode(&self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(text.as_bytes().to_vec()),
            Self::Utf16 { big_endian: true } => Some(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Self::Utf16 { big_endian: false } => Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            Self::Latin { most } => {
                let byte = |c: char| u8::try_from(u32::from(c)).ok().filter(|b| u32::from(*b) < *most);
                text.chars().map(byte).collect()
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 => String::from_utf8(bytes.to_vec()).ok(),
            Self::Utf16 { big_endian } => {
                let (units, []) = bytes.as_chunks::<2>() else { return None };
                let read = if *big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
                char::decode_utf16(units.iter().map(|unit| read(*unit))).collect::<Result<_, _>>().ok()
            }
            Self::Latin { most } => bytes.iter().map(|b| (u32::from(*b) < *most).then(|| char::from(*b))).collect(),
        }
    }
}
