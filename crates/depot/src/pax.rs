//! PAX extended headers (POSIX.1-2017, pax, "pax Header Block").
//!
//! Records are cut by their length and not by line, since values may hold newlines (extended attributes are binary).

use std::collections::BTreeMap;

/// What an extended header says about the entry behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Pax {
    /// Reads the records of an extended header.
    ///
    /// # Errors
    /// A sentence, if a record is malformed or describes a sparse file.
    pub(crate) fn parse(mut bytes: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("its PAX header is malformed")?;
            bytes = rest;
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => pax.size = Some(number(key, value)?),
                b"uid" => pax.uid = Some(number(key, value)?),
                b"gid" => pax.gid = Some(number(key, value)?),
                b"mtime" => pax.mtime = Some(time(value).ok_or("its PAX header has a malformed `mtime`")?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("it is a sparse file, which layers don't use; pack it as a plain file".into());
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        pax.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(pax)
    }
}

/// Cuts off the first record: `LENGTH KEY=VALUE\n`, where LENGTH counts all of it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let length: usize = digits(&bytes[..space])?.try_into().ok()?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    let body = &bytes[space + 1..length - 1];
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn digits(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

fn number(key: &[u8], value: &[u8]) -> Result<u64, String> {
    digits(value).ok_or_else(|| format!("its PAX header has a malformed `{}`", String::from_utf8_lossy(key)))
}

/// Reads `SECONDS[.FRACTION]`.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = match fraction.get(..fraction.len().min(9))? {
        "" => 0,
        part => u32::try_from(digits(part.as_bytes())?).ok()? * 10_u32.pow(9 - part.len() as u32),
    };
    Some((seconds.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |bytes: &[u8], ok: bool| assert_eq!(Pax::parse(bytes).is_ok(), ok, "{bytes:?}");
        check(b"", true);
        check(b"9 path=a\n", true);
        check(b"9 path=ab", false);
        check(b"99 path=a\n", false);
        check(b"2 \n", false);
        check(b"0 path=a\n", false);
        check(b"+9 path=a\n", false);
        check(b"8 path\n\n", false);
        check(b"13 size=-1234\n", false);
        check(b"22 GNU.sparse.major=1\n", false);
        check(b"99999999999999999999999 a=b\n", false);
    }

    #[test]
    fn values_may_hold_newlines() {
        let pax = Pax::parse(b"37 SCHILY.xattr.security.capability=a\n").unwrap_err();
        assert!(pax.contains("malformed"));
        let body = b"SCHILY.xattr.user.x=\n\0\n=\n";
        let bytes = [format!("{} ", body.len() + 3).as_bytes(), body].concat();
        let pax = Pax::parse(&bytes).unwrap();
        assert_eq!(pax.xattrs[&b"user.x"[..]], b"\n\0\n=");
    }

    #[test]
    fn times() {
        let check = |text: &str, time_: Option<(i64, u32)>| assert_eq!(time(text.as_bytes()), time_, "{text}");
        check("0", Some((0, 0)));
        check("12.5", Some((12, 500_000_000)));
        check("12.1234567899", Some((12, 123_456_789)));
        check("-1", Some((-1, 0)));
        check("1.x", None);
        check("1.é", None);
        check("1.12345678é", None);
        check("", None);
    }
}
