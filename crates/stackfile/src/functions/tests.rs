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

    fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn is_folder(&self, _: &Path) -> bool {
        false
    }

    fn exists(&self, path: &Path) -> bool {
        self.read(path).is_ok()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// Returns the value of an expression as JSON, or the first fault's message.
fn eval(text: &str) -> Result<String, String> {
    let cx = Context::new(&TwoFiles, "/s".into());
    let source = cx.add_source("test".to_owned(), text.to_owned());
    let mut globals = Globals::default();
    let at = At::new(source, 0..0);
    globals.vars.insert("x".to_owned(), Some(Value::text("secret!", at).marked(true)));
    globals.blocks.insert((crate::value::Kind::Service, "api".to_owned()), at);
    let ev = Evaluator::of_stack(&cx, source, &globals);
    let expr = text.parse().map_err(|error: hcl_edit::parser::Error| format!("{text}: {error}"))?;
    let value = ev.eval(&expr, &Scope::default(), at).and_then(|value| value.to_json());
    value.map(|json| json.to_string()).map_err(|faults| match faults.0.into_iter().next() {
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

#[test]
fn strings() {
    check(r#"upper("aé")"#, r#""AÉ""#);
    check(r#"lower("AB")"#, r#""ab""#);
    check(r#"trimspace("  a b\n")"#, r#""a b""#);
    check(r#"trimprefix("v1.2", "v")"#, r#""1.2""#);
    check(r#"trimsuffix("a.txt", ".txt")"#, r#""a""#);
    check(r#"startswith("abc", "ab")"#, "true");
    check(r#"endswith("abc", "ab")"#, "false");
    check(r#"join("-", ["a", 1, true])"#, r#""a-1-true""#);
    check(r#"split(",", "a,b,,c")"#, r#"["a","b","","c"]"#);
    check(r#"split("", "ab")"#, r#"["a","b"]"#);
    check(r#"split(",", "")"#, "[]");
    check(r#"replace("a.b.c", ".", "/")"#, r#""a/b/c""#);
    check(r#"tostring(1.50)"#, r#""1.5""#);
    check("tostring(null)", "null");
    check_fault(r#"replace("a", "", "b")"#, "needs a text to look for");
    check_fault("join(\",\", \"a\")", "expected a list, found a string `a`");
}

#[test]
fn formats() {
    check(r#"format("%s is %d%%", "load", 90)"#, r#""load is 90%""#);
    check(r#"format("%05d|%-5s|%5s|%d", 42, "ab", "ab", -1)"#, r#""00042|ab   |   ab|-1""#);
    check(r#"format("%.2f %08.3f %f", 1.005, -3.14159, 2)"#, r#""1.01 -003.142 2.000000""#);
    check(r#"format("%q %v %t", "a\"b", 1.5, true)"#, r#""\"a\\\"b\" 1.5 true""#);
    check_fault(r#"format("%d", 1.5)"#, "whole number");
    check_fault(r#"format("%s")"#, "no value for `%s`");
    check_fault(r#"format("a", 1)"#, "more values");
    check_fault(r#"format("%z", 1)"#, "`%z` is not known");
    check_fault(r#"format("100%")"#, "`%` without a letter");
    check_fault(r#"format("%99999999d", 1)"#, "is not known");
}

#[test]
fn collections() {
    check(r#"length([1, 2])"#, "2");
    check(r#"length({ a = 1 })"#, "1");
    check(r#"length("äb")"#, "2");
    check("concat([1], [], [2, 3])", "[1,2,3]");
    check("merge({ a = 1, b = 1 }, null, { b = 2 })", r#"{"a":1,"b":2}"#);
    check(r#"lookup({ a = 1 }, "a", 0)"#, "1");
    check(r#"lookup({ a = 1 }, "b", 0)"#, "0");
    check(r#"contains(["a", "b"], "b")"#, "true");
    check(r#"contains([1], "1")"#, "false");
    check("keys({ b = 1, a = 2 })", r#"["a","b"]"#);
    check("values({ b = 1, a = 2 })", "[2,1]");
    check("tolist([1, 1])", "[1,1]");
    check("toset([1, 1, 2])", "[1,2]");
    check("distinct([1, 1, 2])", "[1,2]");
    check("flatten([1, [2, [3]], []])", "[1,2,3]");
    check("reverse([1, 2])", "[2,1]");
    check(r#"sort(["b", "a"])"#, r#"["a","b"]"#);
    check("range(3)", "[0,1,2]");
    check("range(1, 4)", "[1,2,3]");
    check("range(3, 0)", "[3,2,1]");
    check("range(0, 1, 0.5)", "[0,0.5]");
    check("range(0)", "[]");
    check(r#"coalesce(null, "", "a", "b")"#, r#""a""#);
    check_fault(r#"lookup({}, "b")"#, "no key `b`");
    check_fault("coalesce(null)", "all values are null");
    check_fault("range(0, 5, -1)", "never gets");
    check_fault("range(1000000000000)", "more than 100000");
}

#[test]
fn numbers() {
    check("max(1, 3, 2)", "3");
    check("min(1.5, -2)", "-2");
    check("max([4, 5]...)", "5");
    check("abs(-1.5)", "1.5");
    check("floor(-1.5)", "-2");
    check("ceil(1.2)", "2");
    check(r#"tonumber("0x1")"#.replace("0x1", "12").as_str(), "12");
    check(r#"tobool("true")"#, "true");
    check_fault(r#"tonumber("a")"#, "expected a number, found a string `a`");
}

#[test]
fn encodings() {
    check(r#"jsonencode({ a = [1, 0.5, null, true, "x"] })"#, r#""{\"a\":[1,0.5,null,true,\"x\"]}""#);
    check(r#"jsondecode("{\"a\":[1,1.5e3]}").a[1]"#, "1500");
    check(r#"base64encode("hello")"#, r#""aGVsbG8=""#);
    check(r#"base64decode("aGVsbG8=")"#, r#""hello""#);
    check(r#"sha256("")"#, r#""e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855""#);
    check_fault(r#"base64decode("!")"#, "not base64");
    check_fault(r#"jsondecode("{")"#, "not JSON");
}

#[test]
fn files() {
    check(r#"file("hello.txt")"#, r#""hello\n""#);
    check(r#"fileexists("hello.txt")"#, "true");
    check(r#"fileexists("no.txt")"#, "false");
    check(r#"templatefile("list.tpl", { hosts = { a = 1, b = 2 } })"#, r#""a=1\nb=2\nend""#);
    check_fault(r#"file("no.txt")"#, "`/s/no.txt` can't be read");
    check_fault(r#"file("bad.bin")"#, "not UTF-8");
    check_fault(r#"templatefile("again.tpl", {})"#, "can't be called in a template");
    check_fault(r#"templatefile("outside.tpl", {})"#, "unknown name `var`");
}

#[test]
fn attempts() {
    check(r#"try(1 / 0, "b")"#, r#""b""#);
    check("can(1 / 0)", "false");
    check("can(1)", "true");
    check_fault("try(1 / 0)", "division by zero");
    check_fault("try()", "at least 1");
    check_fault("can()", "takes 1");
}

#[test]
fn calls() {
    check_fault("uper(\"a\")", "no function `uper`");
    check_fault("upper()", "takes 1 argument, not 0");
    check_fault("lookup(1)", "takes 2 to 3 arguments, not 1");
    check_fault("a::b()", "not supported yet");
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
    ] {
        let message = eval(text).expect_err(text);
        assert!(!message.to_lowercase().contains("secret!"), "{text}: {message}");
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
