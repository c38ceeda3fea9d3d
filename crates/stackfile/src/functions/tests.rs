//! Rows for every function, operator and form of expression.

use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::files::Files;
use crate::globals::Globals;
use crate::source::Context;

/// One template, one text.
struct TwoFiles;

impl Files for TwoFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/s/hello.txt") => Ok(b"hello\n".to_vec()),
            Some("/s/list.tpl") => Ok(b"%{ for n, h in hosts ~}\n${n}=${h}\n%{ endfor ~}\nend".to_vec()),
            Some("/s/again.tpl") => Ok(b"${templatefile(\"again.tpl\", {})}".to_vec()),
            Some("/s/outside.tpl") => Ok(b"${var.x}".to_vec()),
            Some("/s/bad.bin") => Ok(vec![0xff]),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let names: &[&str] = match folder.to_str() {
            Some("/s") => &["list.tpl", "hello.txt", "conf"],
            Some("/s/conf") => &["a.conf", "b.conf", "deep"],
            Some("/s/conf/deep") => &["c.conf"],
            _ => return Err(io::Error::new(io::ErrorKind::NotFound, "no such folder")),
        };
        Ok(names.iter().map(|name| folder.join(name)).collect())
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.list(path).is_ok()
    }

    fn home(&self) -> Option<PathBuf> {
        Some("/home/me".into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.read(path).is_ok()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// Returns the value of an expression as JSON, or the first fault's message.
pub(super) fn eval(text: &str) -> Result<String, String> {
    // `<`, `>` and `&` are escaped, and hard to read so.
    value(text).map(|value| value.0.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&"))
}

/// Returns the value of an expression as JSON and whether it is sensitive as a whole, or the first fault's message.
fn value(text: &str) -> Result<(String, bool), String> {
    let mut cx = Context::new(&TwoFiles, "/s".into());
    // 2026-01-02T03:04:05Z
    cx.now = Some(1_767_323_045);
    let source = cx.add_source("test".to_owned(), text.to_owned());
    let mut globals = Globals::default();
    let at = At::new(source, 0..0);
    globals.vars.insert("x".to_owned(), Some(Value::text("secret!", at).marked(true)));
    globals.blocks.insert((crate::value::Kind::Service, "api".to_owned()), at);
    let ev = Evaluator::of_stack(&cx, source, &globals);
    let expr = text.parse().map_err(|error: hcl_edit::parser::Error| format!("{text}: {error}"))?;
    let value = ev.eval(&expr, &Scope::default(), at);
    let value = value.and_then(|value| Ok((encoding::json(&value)?, value.sensitive)));
    value.map_err(|faults| match faults.0.into_iter().next() {
        Some(fault) => fault.message,
        None => cx.finish().0.remove(0).message,
    })
}

fn check(text: &str, expected: &str) {
    assert_eq!(eval(text).as_deref(), Ok(expected), "{text}");
}

fn check_fault(text: &str, expected: &str) {
    let message = eval(text).expect_err(text);
    assert!(message.contains(expected), "{text}: {message}");
}

/// Fails unless the value is sensitive as a whole, or not.
fn check_mark(text: &str, expected: bool) {
    assert_eq!(value(text).map(|value| value.1), Ok(expected), "{text}");
}

#[test]
fn strings() {
    check(r#"chomp("a\r\n\n")"#, r#""a""#);
    check(r#"endswith("abc", "ab")"#, "false");
    check(r#"indent(2, "a\n\nb")"#, r#""a\n  \n  b""#);
    check(r#"join("-", ["a", 1, true])"#, r#""a-1-true""#);
    check(r#"join("-", [])"#, r#""""#);
    check(r#"split("", "ab")"#, r#"["a","b"]"#);
    check(r#"split(",", "")"#, r#"[""]"#);
    check(r#"strrev("hello")"#, r#""olleh""#);
    // A letter and its combining accent are one character.
    check(r#"strrev("ae\u0301b")"#, "\"be\u{301}a\"");
    check(r#"length("\U0001F468\u200D\U0001F469\u200D\U0001F467!")"#, "2");
    check(r#"substr("hello world", 1, 4)"#, r#""ello""#);
    check(r#"substr("hello", 1, -1)"#, r#""ello""#);
    check(r#"substr("hello", -99, 2)"#, r#""he""#);
    check(r#"substr("hello", 99, 2)"#, r#""""#);
    check(r#"title("a-b c_d 2e")"#, r#""A-B C_d 2e""#);
    check(r#"trim("  a  ", " ")"#, r#""a""#);
    check(r#"trimprefix("v1", "w")"#, r#""v1""#);
    check(r#"core::upper("a")"#, r#""A""#);
    check_fault(r#"substr("hello", 0, -2)"#, "argument `length` of `substr`: a length is not negative");
    check_fault("join(\",\", \"a\")", "argument `lists` of `join`: expected a list, found a string `a`");
    check_fault("indent(-1, \"a\")", "argument `spaces` of `indent`: expected a whole number from 0");
    check_fault("indent(99999999999, \"a\n\")", "16 MiB");
}

#[test]
fn formats() {
    check(r#"format("%s is %d%%", "load", 90)"#, r#""load is 90%""#);
    check(r#"format("%05d|%-5s|%5s|%d", 42, "ab", "ab", -1)"#, r#""00042|ab   |   ab|-1""#);
    check(r#"format("%+d % d %+.1f %05d", 1, 2, 3, -4)"#, r#""+1  2 +3.0 -0004""#);
    check(r#"format("%.2f %08.3f %f", 1.005, -3.14159, 2)"#, r#""1.01 -003.142 2.000000""#);
    check(
        r#"format("%e %.1E %g %g %g %g %g", 1234.5, 0.00012, 1234.5, 0.00001, 2, 999999, 1e10)"#,
        r#""1.234500e+03 1.2E-04 1234.5 1e-05 2 999999 1e+10""#,
    );
    check(r#"format("%b %o %x %X %#v %v", 5, 8, 255, -255, ["a"], { a = 1 })"#, r#""101 10 ff -FF [\"a\"] {\"a\":1}""#);
    check(r#"format("%[2]s %[1]s %s", "a", "b")"#, r#""b a b""#);
    check(r#"format("%.2s", "abc")"#, r#""ab""#);
    check(r#"format("%q %v %t %v", "a\"b", 1.5, true, null)"#, r#""\"a\\\"b\" 1.5 true null""#);
    check(r#"formatlist("%s", "a")"#, r#"["a"]"#);
    check(r#"formatlist("%s=%s", ["a", "b"], ["1", "2"])"#, r#"["a=1","b=2"]"#);
    check(r#"formatlist("%s", [])"#, "[]");
    check_fault(r#"format("%d", 1.5)"#, "`format`: `%d`: expected a whole number");
    check_fault(r#"format("%s")"#, "no value for `%s`");
    check_fault(r#"format("%[3]s", 1)"#, "no value for `%[3]s`");
    check_fault(r#"format("a", 1)"#, "more values");
    check_fault(r#"format("%z", 1)"#, "`%z` is not known");
    check_fault(r#"format("100%")"#, "`%` without a letter");
    check_fault(r#"format("%99999999d", 1)"#, "is not known");
    check_fault(r#"format("%[0]d", 1)"#, "is not known");
    check_fault(r#"formatlist("%s%s", ["a"], ["b", "c"])"#, "different length: 1 and 2");
}

#[test]
fn patterns() {
    check(r#"regex("[a-z]+", "53453453.345345aaabbbccc23454")"#, r#""aaabbbccc""#);
    check(r#"regex("(\\d\\d\\d\\d)-(\\d\\d)(x)?", "2019-02-01")"#, r#"["2019","02",null]"#);
    check(r#"regexall("[a-z]+", "1234")"#, "[]");
    check(r#"regexall("(a)(b)", "ab ab")"#, r#"[["a","b"],["a","b"]]"#);
    check(r#"replace("a.b.c", ".", "/")"#, r#""a/b/c""#);
    check(r#"replace("hello world", "/w.*d/", "everybody")"#, r#""hello everybody""#);
    check(r#"replace("ab", "/(?P<first>a)/", "<$${first}>")"#, r#""<a>b""#);
    check_fault(r#"replace("a", "", "b")"#, "needs a text to look for");
    check_fault(r#"regex("x", "abc")"#, "matches nothing in the string, which is `abc`");
    check_fault(r#"regex("(", "abc")"#, "argument `pattern` of `regex`: not a regular expression: unclosed group");
    check_fault(r#"regex("(?P<a>a)(b)", "ab")"#, "names in part");
    check_fault(r#"regex("(?:a{1000}){1000}", "a")"#, "not a regular expression");
}

#[test]
fn numbers() {
    check("alltrue([])", "true");
    check(r#"alltrue(["true", true])"#, "true");
    check("anytrue([null, false])", "false");
    check("max(1, 3, 2)", "3");
    check("ceil(-1.2)", "-1");
    check("floor(1.8)", "1");
    check("log(1000, 10)", "3");
    check("log(50, 10)", "1.6989700043360187");
    check("ceil(log(15, 2))", "4");
    check("pow(3, 0)", "1");
    check("pow(0.5, 2)", "0.25");
    check("pow(4, 0.5)", "2");
    check("pow(2, -1)", "0.5");
    check("signum(0)", "0");
    check(r#"parseint("-1010", 2)"#, "-10");
    check(r#"parseint("aA", 62)"#, "656");
    check(r#"parseint("FF", 16)"#, "255");
    check(r#"sum([0.1, 0.2])"#, "0.3");
    check_fault("sum([])", "an empty list has no sum");
    check_fault("pow(10, 99)", "out of range");
    check_fault("log(0, 2)", "above 0");
    check_fault("log(2, 1)", "not 1");
    check_fault(r#"parseint("12", 2)"#, "no whole number in base 2");
    check_fault(r#"parseint("", 10)"#, "no whole number");
    check_fault(r#"parseint("1", 63)"#, "between 2 and 62");
    check_fault(r#"max("a")"#, "argument `number` of `max`: expected a number, found a string `a`");
    check_fault("max()", "`max` takes at least 1 argument, not 0");
}

#[test]
fn collections() {
    check(r#"chunklist(["a", "b"], 0)"#, r#"[["a","b"]]"#);
    check("chunklist([], 2)", "[]");
    check("coalesce(null, 0)", "0");
    check("compact([])", "[]");
    check("concat()", "[]");
    check(r#"contains([1], "1")"#, "false");
    check(r#"distinct(["a", "b", "a", { x = 1 }, { x = 1 }, 1, "1"])"#, r#"["a","b",{"x":1},1,"1"]"#);
    check(r#"element(["a", "b", "c"], -1)"#, r#""c""#);
    check("flatten([[[]], [1, [{ a = [2, [3]] }]]])", r#"[1,{"a":[2,[3]]}]"#);
    check(r#"length({ a = 1 })"#, "1");
    check(r#"lookup({ a = 1 }, "a", 0)"#, "1");
    check(r#"matchkeys(["a", "b", "c"], [1, 2, 3], [1, "3"])"#, r#"["a","c"]"#);
    check("merge()", "{}");
    check("merge({ a = 1 }, null, { b = { c = 1 } }, { b = { d = 1 } })", r#"{"a":1,"b":{"d":1}}"#);
    check("one([])", "null");
    check("range(3)", "[0,1,2]");
    check("range(3, 0)", "[3,2,1]");
    check("range(0, 1, 0.5)", "[0,0.5]");
    check("range(0)", "[]");
    check("reverse([])", "[]");
    check(r#"slice(["a"], 1, 1)"#, "[]");
    check("sort([10, 9])", r#"["10","9"]"#);
    check("transpose({})", "{}");
    check(r#"zipmap([], [])"#, "{}");
    check_fault(r#"lookup({}, "b")"#, "no key `b`");
    check_fault("coalesce(null)", "all values are null");
    check_fault("coalescelist([], [])", "all lists are empty");
    check_fault("element([], 0)", "no elements");
    check_fault(r#"index(["a"], "b")"#, "no element `b`");
    check_fault("matchkeys([1], [1, 2], [])", "2 keys for 1 values");
    check_fault("one([1, 2])", "at most one element, found 2");
    check_fault("range(0, 5, -1)", "never gets");
    check_fault("range(1000000000000)", "more than 100000");
    check_fault("slice([1], 0, 2)", "2 is behind the end of the list");
    check_fault("slice([1], 1, 0)", "1 is behind the end");
    check_fault("transpose({ a = 1 })", "expected a list of strings");
    check_fault("zipmap([\"a\"], [])", "0 values for 1 keys");
    check_fault("keys([1])", "argument `map` of `keys`: expected a map, found a list");
}

#[test]
fn sets() {
    check(r#"setintersection(["b", "a"], ["a", "b"], ["b"])"#, r#"["b"]"#);
    check(r#"setunion(["b"], ["a"])"#, r#"["a","b"]"#);
    check(r#"setunion(["1"], [1])"#, r#"["1"]"#);
    check(r#"setsubtract([3, 1, 2, 1], [2])"#, "[1,3]");
    check(r#"setproduct(["a"], [])"#, "[]");
    check_fault("setproduct([for a in range(500) : join(\"\", range(3000))], range(9999))", "takes too much");
}

#[test]
fn types() {
    check(r#"tonumber("12")"#, "12");
    check("tostring(null)", "null");
    check("tolist([1, 1])", "[1,1]");
    check("toset([2, 1, 1])", "[1,2]");
    check(r#"toset([true, "a"])"#, r#"["a","true"]"#);
    check(r#"type("a")"#, r#""string""#);
    check(r#"type(["a", 1])"#, r#""tuple([string, number])""#);
    check(r#"type({ a = 1, b = [true] })"#, r#""object({ a = number, b = list(bool) })""#);
    check("type(null)", r#""null""#);
    check("type(service.api)", r#""service""#);
    check(r#"try(1 / 0, "b")"#, r#""b""#);
    check("can(1)", "true");
    check_fault(r#"tonumber("a")"#, "argument `value` of `tonumber`: expected a number, found a string `a`");
    check_fault(r#"tobool("yes")"#, "expected a bool");
    check_fault("try(1 / 0)", "division by zero");
    check_fault("try()", "at least 1");
    check_fault("can()", "takes 1");
}

#[test]
fn encodings() {
    check(r#"jsonencode({ a = [1, 0.5, null, true, "x"] })"#, r#""{\"a\":[1,0.5,null,true,\"x\"]}""#);
    check(r#"jsonencode("<&>")"#, r#""\"\<\&\>\"""#);
    check("jsonencode(12345678901234567890123456789)", r#""12345678901234567890123456789""#);
    check(r#"jsondecode("{\"a\":[1,1.5e3]}").a[1]"#, "1500");
    check(r#"csvdecode("a,b\n\"x, \"\"y\"\"\",\n")"#, r#"[{"a":"x, \"y\"","b":""}]"#);
    check(r#"csvdecode("a\n")"#, "[]");
    check(r#"urlencode("ä/~")"#, r#""%C3%A4%2F~""#);
    check(r#"textdecodebase64(textencodebase64("aé", "ISO-8859-1"), "ISO-8859-1")"#, r#""aé""#);
    check(r#"textencodebase64("é", "utf-16be")"#, r#""AOk=""#);
    check_fault(r#"base64decode("!")"#, "argument `string` of `base64decode`: not base64");
    check_fault(r#"base64decode("/w==")"#, "not UTF-8");
    check(
        r#"jsondecode("[12345678901234567890123456789, 1e2, \"\\ud83d\\ude00\"]")"#,
        r#"[12345678901234567890123456789,100,"😀"]"#,
    );
    check(r#"jsondecode("{\"a\":1,\"a\":2}")"#, r#"{"a":2}"#);
    check_fault(r#"jsondecode("{")"#, "not JSON: Unterminated object");
    check_fault(r#"jsondecode("")"#, "not JSON: there is no value in it");
    check_fault(r#"jsondecode("1e99")"#, "not JSON: number out of range");
    check_fault(r#"csvdecode("a,b\n1\n")"#, "1 fields instead of 2 in line 2");
    check_fault(r#"csvdecode("a,a\n1,2\n")"#, "`a` stands twice");
    check_fault(r#"textencodebase64("a", "EBCDIC")"#, "`EBCDIC` is not known");
    check_fault(r#"textencodebase64("ä", "US-ASCII")"#, "characters that this encoding has not");
    check_fault("jsonencode(service.api)", "argument `value` of `jsonencode`: expected a value, found `service.api`");
}

#[test]
fn gzip_is_read_back_and_always_the_same() {
    use std::io::Read as _;
    let text = eval(r#"base64gzip("hello hello hello")"#).expect("it is encoded");
    assert_eq!(eval(r#"base64gzip("hello hello hello")"#).as_ref(), Ok(&text));
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.trim_matches('"'));
    let mut read = String::new();
    flate2::read::GzDecoder::new(bytes.expect("base64").as_slice()).read_to_string(&mut read).expect("gzip");
    assert_eq!(read, "hello hello hello");
}

#[test]
fn yaml() {
    check(r#"yamldecode("- 1\n- -2.50\n- 1e3\n- 0x1F\n- 0o17\n- .5\n- +3")"#, "[1,-2.5,1000,31,15,0.5,3]");
    check(
        r#"yamldecode("a: yes\nb: True\nc: null\nd:\ne: \"1\"\nf: 1.2.3")"#,
        r#"{"a":"yes","b":true,"c":null,"d":null,"e":"1","f":"1.2.3"}"#,
    );
    check(r#"yamldecode("a: |\n  x\n  y\nb: >-\n  x\n  y\n")"#, r#"{"a":"x\ny\n","b":"x y"}"#);
    check(
        r#"yamldecode("a: &x {k: 1, l: 1}\nb: *x\nc:\n  <<: *x\n  l: 2")"#,
        r#"{"a":{"k":1,"l":1},"b":{"k":1,"l":1},"c":{"k":1,"l":2}}"#,
    );
    check(r#"yamldecode("!!str 1")"#, r#""1""#);
    check(r#"yamldecode("")"#, "null");
    check(r#"yamldecode("1: a\ntrue: b")"#, r#"{"1":"a","true":"b"}"#);
    check_fault(r#"yamldecode("a: b: c")"#, "argument `string` of `yamldecode`: not YAML");
    check_fault(r#"yamldecode("a: 1\na: 2")"#, "the key `a` stands twice (line 2)");
    check_fault(r#"yamldecode("--- 1\n--- 2")"#, "more than one document");
    check_fault(r#"yamldecode("!!int x")"#, "not what its tag says");
    check_fault(r#"yamldecode("!custom x")"#, "a tag that is not known");
    check_fault(r#"yamldecode("[a]: 1")"#, "a key that is no string");
    check_fault(r#"yamldecode("a: *nope")"#, "not YAML");
    check_fault(&format!("yamldecode(\"{}\")", "[".repeat(200)), "more than 64 levels");
    let bomb: String =
        (1..12).map(|i| format!("x{i}: &x{i} [{}]\\n", vec![format!("*x{}", i - 1); 9].join(", "))).collect();
    check_fault(&format!("yamldecode(\"x0: &x0 {}\\n{bomb}\")", "long".repeat(9999)), "takes too much");
}

#[test]
fn yaml_is_written_as_it_is_read() {
    check(
        r#"yamlencode({ foo = [1, { a = "b", c = "d" }, 3], bar = "baz" })"#,
        r#""\"bar\": \"baz\"\n\"foo\":\n- 1\n- \"a\": \"b\"\n  \"c\": \"d\"\n- 3\n""#,
    );
    check(
        r#"yamlencode({ a = "x\ny\n", b = {}, c = [], d = null })"#,
        r#""\"a\": |\n  x\n  y\n\"b\": {}\n\"c\": []\n\"d\": null\n""#,
    );
    check(r#"yamlencode("a")"#, r#""\"a\"\n""#);
    check(r#"yamlencode("a\nb")"#, r#""|-\na\nb\n""#);
    for value in [
        r#"{ a = { b = [[1, [2]], [], { c = ["x\ny", " lead\n", "end\n\n\n"] }] } }"#,
        r#"["", "\n", "a: b", "- x", "true", "1", null, true, 1.5, "\u0007", "tab\there\nx"]"#,
        r#"{ "" = 1, "a b" = "l1\n\n  l3\n" }"#,
        r#""x\n y\n""#,
        "[[[[[1]]]]]",
        "{ a = [{ b = [{ c = 1, d = [2] }] }] }",
    ] {
        check(&format!("yamldecode(yamlencode({value})) == {value}"), "true");
    }
}

#[test]
fn hashes() {
    check(r#"sha256("")"#, r#""e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855""#);
    check(r#"uuidv5("dns", "www.example.com")"#, r#""2ed6657d-e927-568b-95e1-2665a8aea6a2""#);
    check(
        r#"uuidv5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com") == uuidv5("dns", "www.example.com")"#,
        "true",
    );
    check_fault(r#"uuidv5("x", "a")"#, "not a namespace");
    check_fault(r#"filemd5("no.txt")"#, "argument `path` of `filemd5`: `/s/no.txt` can't be read");
}

#[test]
fn dates() {
    check(r#"formatdate("DD MMM YYYY hh:mm ZZZ", "2018-01-02T23:12:01Z")"#, r#""02 Jan 2018 23:12 UTC""#);
    check(
        r#"formatdate("EEEE, DD-MMM-YY hh:mm:ss ZZZ", "2018-01-02T23:12:01Z")"#,
        r#""Tuesday, 02-Jan-18 23:12:01 UTC""#,
    );
    check(
        r#"formatdate("EEE, D MMMM YYYY h:m:s AA Z ZZZZ ZZZZZ", "2018-01-02T00:02:01-08:30")"#,
        r#""Tue, 2 January 2018 0:2:1 AM -08:30 -0830 -08:30""#,
    );
    check(r#"formatdate("H 'o''clock' aa", "2018-01-02T00:02:01Z")"#, r#""12 o'clock am""#);
    check(r#"formatdate("HH:mmaa", "2018-01-02T23:12:01Z")"#, r#""11:12pm""#);
    check(r#"timeadd("2017-11-22T00:00:00Z", "-1.5h")"#, r#""2017-11-21T22:30:00Z""#);
    check(r#"timeadd("2020-02-28T23:59:59.9+01:00", "100ms")"#, r#""2020-02-29T00:00:00+01:00""#);
    check(r#"timecmp("2017-11-22T00:00:00Z", "2017-11-22T01:00:00+01:00")"#, "0");
    check_fault(
        r#"formatdate("YYYY", "2018-13-02T23:12:01Z")"#,
        "argument `time` of `formatdate`: `2018-13-02T23:12:01Z` is no time",
    );
    check_fault(r#"formatdate("YYY", "2018-01-02T23:12:01Z")"#, "`YYY` is not known");
    check_fault(r#"formatdate("'a", "2018-01-02T23:12:01Z")"#, "without its second one");
    check_fault(r#"timeadd("2018-01-02T23:12:01Z", "1 day")"#, "`1 day` is no duration");
    check_fault(r#"timeadd("2018-01-02T23:12:01Z", "99999999999h")"#, "out of range");
    check_fault(r#"timecmp("2018-01-02 23:12:01", "x")"#, "is no time");
}

#[test]
fn without_a_time_there_is_no_timestamp() {
    let cx = Context::new(&TwoFiles, "/s".into());
    let source = cx.add_source("test".to_owned(), "timestamp()".to_owned());
    let expr = "timestamp()".parse().expect("an expression");
    let found = Evaluator::plain(&cx, source).eval(&expr, &Scope::default(), At::new(source, 0..11));
    let fault = found.expect_err("there is no time").0.remove(0);
    assert_eq!(fault.message, "`timestamp`: no time is given");
}

#[test]
fn networks() {
    check(r#"cidrhost("10.12.112.0/20", 16)"#, r#""10.12.112.16""#);
    check(r#"cidrhost("10.12.112.0/20", -1)"#, r#""10.12.127.255""#);
    check(r#"cidrhost("fd00:fd12:3456:7890:00a2::/72", 34)"#, r#""fd00:fd12:3456:7890::22""#);
    check(r#"cidrhost("0.0.0.0/0", 4294967295)"#, r#""255.255.255.255""#);
    check(r#"cidrnetmask("0.0.0.0/0")"#, r#""0.0.0.0""#);
    check(r#"cidrsubnet("172.16.0.0/12", 4, 2)"#, r#""172.18.0.0/16""#);
    check(r#"cidrsubnet("10.1.2.0/24", 4, 15)"#, r#""10.1.2.240/28""#);
    check(r#"cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)"#, r#""fd00:fd12:3456:7800:a200::/72""#);
    check(r#"cidrsubnet("::/0", 128, 1)"#, r#""::1/128""#);
    check(r#"cidrsubnet("10.0.0.0/8", 0, 0)"#, r#""10.0.0.0/8""#);
    check(
        r#"cidrsubnets("10.1.0.0/16", 4, 4, 8, 4)"#,
        r#"["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]"#,
    );
    check(r#"cidrsubnets("::/0", 0)"#, r#"["::/0"]"#);
    check_fault(r#"cidrhost("10.0.0.0/30", 4)"#, "the range has 2^2 addresses");
    check_fault(r#"cidrhost("10.0.0.0", 4)"#, "`10.0.0.0` is no range of addresses");
    check_fault(r#"cidrhost("10.0.0.0/33", 4)"#, "is no range");
    check_fault(r#"cidrnetmask("::/8")"#, "only IPv4");
    check_fault(r#"cidrsubnet("10.0.0.0/24", 9, 0)"#, "room for 0 to 8 more bits");
    check_fault(r#"cidrsubnet("10.0.0.0/24", 2, 4)"#, "2^2 such ranges");
    check_fault(r#"cidrsubnets("10.0.0.0/24", 1, 1, 1)"#, "no room is left");
}

#[test]
fn files() {
    check(r#"file("hello.txt")"#, r#""hello\n""#);
    check(r#"fileexists("hello.txt")"#, "true");
    check(r#"basename("a/b/")"#, r#""b""#);
    check(r#"basename("/")"#, r#""/""#);
    check(r#"dirname("b.txt")"#, r#"".""#);
    check(r#"dirname("/b.txt")"#, r#""/""#);
    check(r#"dirname("/a/./b/c")"#, r#""/a/b""#);
    check(r#"abspath("/a/./b/../c")"#, r#""/a/c""#);
    check(r#"pathexpand("~/x")"#, r#""/home/me/x""#);
    check(r#"pathexpand("~x")"#, r#""~x""#);
    check(r#"fileset(".", "**")"#, r#"["conf/a.conf","conf/b.conf","conf/deep/c.conf","hello.txt","list.tpl"]"#);
    check(r#"fileset(".", "**/[!a].conf")"#, r#"["conf/b.conf","conf/deep/c.conf"]"#);
    check(r#"fileset("conf", "?.conf")"#, r#"["a.conf","b.conf"]"#);
    check(r#"fileset("./conf", "{a,deep/c}.conf")"#, r#"["a.conf","deep/c.conf"]"#);
    check(r#"fileset("nope", "*")"#, "[]");
    check(r#"templatefile("list.tpl", { hosts = { a = 1, b = 2 } })"#, r#""a=1\nb=2\nend""#);
    check(r#"templatestring("%{ if b }yes%{ endif }", { b = true })"#.replace("%{", "%%{").as_str(), r#""yes""#);
    check_fault(r#"file("no.txt")"#, "argument `path` of `file`: `/s/no.txt` can't be read");
    check_fault(r#"file("bad.bin")"#, "not UTF-8");
    check_fault(r#"fileset(".", "[a")"#, "not a pattern");
    check_fault(r#"fileset(".", "{a")"#, "not a pattern");
    check_fault(r#"templatefile("again.tpl", {})"#, "can't be called in a template");
    check_fault(r#"templatefile("outside.tpl", {})"#, "unknown name `var`");
    check_fault(r#"templatestring("$${", {})"#, "not a valid template");
}

#[test]
fn calls() {
    check_fault("uper(\"a\")", "no function `uper`");
    check_fault("upper()", "`upper` takes 1 argument, not 0");
    check_fault("lookup(1)", "takes 2 to 3 arguments, not 1");
    check_fault("a::b()", "no functions `a::…`");
    check_fault("upper(null)", "argument `string` of `upper`: expected a string, found null");
    check("max([4, 5]...)", "5");
}

#[test]
fn marks() {
    check_mark("upper(var.x)", true);
    check_mark("join(\",\", [\"a\", var.x])", true);
    check_mark("length([var.x])", false);
    check_mark("length(var.x)", true);
    check_mark("keys({ a = var.x })", false);
    check_mark("merge({ a = var.x }, { b = 1 })", false);
    check_mark("merge({ a = var.x }, { b = 1 }).b", false);
    check_mark("merge({ a = var.x }, { b = 1 }).a", true);
    check_mark("lookup({ a = var.x }, \"a\", 0)", true);
    check_mark("element([1, var.x], 0)", false);
    check_mark("element([1, var.x], 1)", true);
    check_mark("element(sensitive([1]), 0)", true);
    check_mark("flatten([sensitive([1]), 2])[0]", true);
    check_mark("flatten([sensitive([1]), 2])[1]", false);
    check_mark("zipmap([var.x], [1])", true);
    check_mark("coalesce(null, var.x)", true);
    check_mark("sensitive(1)", true);
    check_mark("nonsensitive(var.x)", false);
    check_mark("jsonencode({ a = var.x })", true);
    check_mark("templatestring(\"$${a}\", { a = var.x })", true);
    check_mark("max(sensitive([1])...)", true);
}

#[test]
fn operators() {
    check("1 + 2 * 3 - 4 / 2", "5");
    check("0.1 + 0.2 == 0.3", "true");
    check("7 % 3", "1");
    check("-(2)", "-2");
    check("!true", "false");
    check("1 < 2 && 2 <= 2 || false", "true");
    check("2 > 3", "false");
    check("2 >= 3", "false");
    check(r#"1 != "1""#, "true");
    check("{ a = [1] } == { a = [1] }", "true");
    check("false && 1 / 0 == 1", "false");
    check("true || 1 / 0 == 1", "true");
    check("true ? 1 : 1 / 0", "1");
    check(r#""2" * 3"#, "6");
    check_fault("1 / 0", "division by zero");
    check_fault("[1] + 1", "expected a number, found a list");
    check_fault("1 ? 2 : 3", "expected a bool");
    check_fault("99999999999999999999999999999999999999 * 99", "out of range");
}

#[test]
fn templates() {
    check(r#""a${1 + 1}b""#, r#""a2b""#);
    check(r#""${[1]}""#, "[1]");
    check(r#""%{ if true }yes%{ else }no%{ endif }""#, r#""yes""#);
    check(r#""%{ if false }yes%{ endif }""#, r#""""#);
    check(r#""%{ for x in [1, 2] }<${x}>%{ endfor }""#, r#""<1><2>""#);
    check(r#""a ${~ 1 ~} b""#, r#""a1b""#);
    check(r#""$${x} %%{x}""#, r#""${x} %{x}""#);
    check("<<-E\n    a\n      b ${1}\n    E", r#""a\n  b 1\n""#);
    check_fault(r#""a${[1]}""#, "expected a string, found a list");
    check_fault(r#""a${service.api}""#, "found `service.api`");
}

#[test]
fn collections_by_expression() {
    check("[for x in [1, 2, 3] : x * 2 if x != 2]", "[2,6]");
    check("{for k, v in { a = 1 } : upper(k) => v}", r#"{"A":1}"#);
    check("[for i, x in [\"a\"] : \"${i}${x}\"]", r#"["0a"]"#);
    check(
        r#"{for x in ["ab", "ac", "b"] : substr => x...}"#.replace("substr", "split(\"\", x)[0]").as_str(),
        r#"{"a":["ab","ac"],"b":["b"]}"#,
    );
    check("[{ a = 1 }, { a = 2 }][*].a", "[1,2]");
    check("[{ a = [1] }, { a = [2] }].*.a[1]", "[2]");
    check("{ a = [1, 2] }.a[1]", "2");
    check("{ a = { b = 1 } }[\"a\"].b", "1");
    check("null[*]", "[]");
    check("[1].0", "1");
    check(r#"{ (upper("a")) = 1, "b c" = 2 }"#, r#"{"A":1,"b c":2}"#);
    check("service.api.name", r#""api""#);
    check_fault("[1][1]", "no element `1`");
    check_fault("[1][0.5]", "no element `0.5`");
    check_fault("{ a = 1 }.b", "no key `b`");
    check_fault("{for x in [1, 1] : \"k\" => x}", "made twice");
    check_fault("{ a = 1, \"a\" = 2 }", "stands here twice");
    check_fault("foo", "unknown name `foo`");
    check_fault("var", "`var` alone is no value");
    check_fault("var.nope", "there is no variable `nope`");
    check_fault("service.apo", "there is no service `apo`");
    check_fault("service.api.port", "has only a `name`");
    check_fault("5.a", "nothing inside");
}

#[test]
fn sensitive_values_are_not_shown() {
    for text in [
        "tonumber(var.x)",
        "\"a${var.x}\" + 1",
        "[var.x] + 1",
        "jsondecode(var.x)",
        "{ a = var.x }.b",
        "upper(var.x).c",
        "regex(\"x\", var.x)",
        "regex(\"(${var.x}\", \"a\")",
        "timeadd(var.x, \"1h\")",
        "cidrhost(var.x, 1)",
        "parseint(var.x, 10)",
        "lookup({}, var.x)",
        "index([], var.x)",
        "csvdecode(\"${var.x},${var.x}\")",
        "yamldecode(\"${var.x}: 1\\n${var.x}: 2\")",
        "textencodebase64(\"a\", var.x)",
        "formatdate(\"YYYY\", var.x)",
        "templatestring(\"${var.x}$${\", {})",
        "format(\"%d\", var.x)",
    ] {
        let message = eval(text).expect_err(text);
        assert!(!message.to_lowercase().contains("secret!"), "{text}: {message}");
    }
}

#[test]
fn not_even_a_part_of_a_sensitive_text_is_shown() {
    for call in [
        r#"templatestring(sensitive("$${s3cret}"), {})"#,
        r#"templatestring(sensitive("$${1 +} s3cret"), {})"#,
        r#"formatdate(sensitive("s3cret"), "2026-01-02T03:04:05Z")"#,
        r#"format(sensitive("%zs3cret"), 1)"#,
        r#"format(sensitive("%!s3cret"), 1)"#,
    ] {
        let function = call.split('(').next().unwrap();
        assert_eq!(eval(call), Err(format!("`{function}` has no result for this sensitive value")), "{call}");
    }
}

#[test]
fn what_grows_without_end_is_refused() {
    check_fault("[for a in range(3000) : [for b in range(3000) : [for c in range(3000) : c]]]", "takes too much");
    check_fault(
        "replace(join(\"\", [for a in range(9999) : \"aaaa\"]), \"a\", join(\"\", [for a in range(9999) : \"b\"]))",
        "16 MiB",
    );
}
