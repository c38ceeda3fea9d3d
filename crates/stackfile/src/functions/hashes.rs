//! Functions that hash texts and files.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::encoding::encode_base64;
use super::files::bytes;
use super::{Call, Function, whole};
use crate::fault::Eval;
use crate::value::Data;

pub(super) const TABLE: &[Function] = &[
    whole(
        "base64sha256(string)",
        "The SHA-256 of the text, in base64.",
        (r#"base64sha256("hello")"#, r#""LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=""#),
        |c| encode_base64(c, &digest::<Sha256>(c.text(0)?.as_bytes())),
    ),
    whole(
        "base64sha512(string)",
        "The SHA-512 of the text, in base64.",
        (r#"substr(base64sha512("hello"), 0, 12)"#, r#""m3HSJL1i83hd""#),
        |c| encode_base64(c, &digest::<Sha512>(c.text(0)?.as_bytes())),
    ),
    whole(
        "filebase64sha256(path)",
        "The SHA-256 of a file, in base64.",
        (r#"filebase64sha256("hello.txt")"#, r#""WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=""#),
        |c| encode_base64(c, &digest::<Sha256>(&bytes(c)?)),
    ),
    whole(
        "filebase64sha512(path)",
        "The SHA-512 of a file, in base64.",
        (r#"length(filebase64sha512("hello.txt"))"#, "88"),
        |c| encode_base64(c, &digest::<Sha512>(&bytes(c)?)),
    ),
    whole(
        "filemd5(path)",
        "The MD5 of a file.",
        (r#"filemd5("hello.txt")"#, r#""b1946ac92492d2347c6235b4d2611184""#),
        |c| Ok(hexadecimal::<Md5>(&bytes(c)?)),
    ),
    whole(
        "filesha1(path)",
        "The SHA-1 of a file.",
        (r#"filesha1("hello.txt")"#, r#""f572d396fae9206628714fb2ce00f72e94f2258f""#),
        |c| Ok(hexadecimal::<Sha1>(&bytes(c)?)),
    ),
    whole(
        "filesha256(path)",
        "The SHA-256 of a file.",
        (r#"filesha256("hello.txt")"#, r#""5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03""#),
        |c| Ok(hexadecimal::<Sha256>(&bytes(c)?)),
    ),
    whole("filesha512(path)", "The SHA-512 of a file.", (r#"length(filesha512("hello.txt"))"#, "128"), |c| {
        Ok(hexadecimal::<Sha512>(&bytes(c)?))
    }),
    whole(
        "md5(string)",
        "The MD5 of the text. It is broken: only for names that nobody would forge.",
        (r#"md5("hello")"#, r#""5d41402abc4b2a76b9719d911017c592""#),
        |c| Ok(hexadecimal::<Md5>(c.text(0)?.as_bytes())),
    ),
    whole(
        "sha1(string)",
        "The SHA-1 of the text. It is broken: only for names that nobody would forge.",
        (r#"sha1("hello")"#, r#""aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d""#),
        |c| Ok(hexadecimal::<Sha1>(c.text(0)?.as_bytes())),
    ),
    whole(
        "sha256(string)",
        "The SHA-256 of the text.",
        (r#"sha256("hello")"#, r#""2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824""#),
        |c| Ok(hexadecimal::<Sha256>(c.text(0)?.as_bytes())),
    ),
    whole(
        "sha512(string)",
        "The SHA-512 of the text.",
        (r#"substr(sha512("hello"), 0, 16)"#, r#""9b71d224bd62f378""#),
        |c| Ok(hexadecimal::<Sha512>(c.text(0)?.as_bytes())),
    ),
    whole(
        "uuidv5(namespace, name)",
        "The UUID of a name (RFC 9562 §5.5) in the namespace `dns`, `url`, `oid`, `x500`, or that of another UUID.",
        (r#"uuidv5("dns", "example.com")"#, r#""cfbff0d1-9375-5685-968c-48ce8b15ae17""#),
        uuidv5,
    ),
];

fn digest<D: Digest>(bytes: &[u8]) -> Vec<u8> {
    D::digest(bytes).to_vec()
}

fn hexadecimal<D: Digest>(bytes: &[u8]) -> Data {
    Data::Text(hex::encode(digest::<D>(bytes)))
}

fn uuidv5(call: &Call) -> Eval<Data> {
    // RFC 9562 §6.6.
    let namespace = match call.text(0)?.as_str() {
        "dns" => "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "url" => "6ba7b811-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "oid" => "6ba7b812-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        "x500" => "6ba7b814-9dad-11d1-80b4-00c04fd430c8".to_owned(),
        other => other.to_owned(),
    };
    let dashes = |text: &str| text.char_indices().filter(|(_, c)| *c == '-').map(|(i, _)| i).eq([8, 13, 18, 23]);
    let bytes = Some(&namespace).filter(|text| dashes(text)).and_then(|text| hex::decode(text.replace('-', "")).ok());
    let bytes = bytes
        .filter(|bytes| bytes.len() == 16)
        .ok_or_else(|| call.wrong(0, "not a namespace: use `dns`, `url`, `oid`, `x500` or a UUID"))?;
    let mut id = digest::<Sha1>(&[bytes, call.text(1)?.into_bytes()].concat());
    id.truncate(16);
    id[6] = id[6] & 0x0f | 0x50;
    id[8] = id[8] & 0x3f | 0x80;
    let text = hex::encode(id);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    Ok(Data::Text(parts.join("-")))
}
