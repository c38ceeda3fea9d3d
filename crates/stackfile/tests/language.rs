//! What the language's larger parts become: modules, `for_each`, `dynamic`, environments, outputs, sensitive values.

mod memory;

use std::path::Path;

use basalt_stackfile::{Inputs, Loaded, load_from, render};
use memory::Memory;
use serde_json::{Value, json};

const MODULE: &str = "variable \"size\" { type = number }\nvariable \"text\" { default = \"\" }\n\
    service \"app\" {\n image = \"x\"\n instances = var.size\n port \"http\" { container = 80 }\n \
    config \"/etc/x\" { content = file(\"x.txt\") }\n env = { TEXT = var.text, WAY = path.stack }\n}\n\
    output \"app\" { value = service.app }\noutput \"name\" { value = service.app.name }\n";

fn load_with(text: &str, inputs: &Inputs) -> Loaded {
    let files = Memory::new(&[
        ("/s/shop.hcl", text),
        ("/s/lib/app/app.hcl", MODULE),
        ("/s/lib/app/x.txt", "of the module"),
        ("/s/x.txt", "of the stack"),
    ]);
    load_from(&files, Path::new("/s/shop.hcl"), inputs)
}

fn load(text: &str) -> Loaded {
    let loaded = load_with(text, &Inputs::default());
    assert!(!loaded.has_errors(), "{}", render(&loaded, false));
    loaded
}

/// Returns the stack as JSON, for looking at parts of it.
fn stack(text: &str) -> Value {
    serde_json::to_value(load(text).stack.unwrap()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn outputs_are_shown_with_every_digit() {
    let check = |expression: &str, expected: &str| {
        let loaded = load(&format!("output \"x\" {{ value = {expression} }}\n"));
        assert_eq!(loaded.outputs["x"].exact.as_deref(), Some(expected), "{expression}");
    };
    check("12345678901234567890123", "12345678901234567890123");
    check("[10 / 3, \"<a>\"]", "[3.333333333333333333,\"<a>\"]");
}

#[test]
fn lines_of_a_sensitive_template_are_not_shown() {
    let text = "variable \"t\" { sensitive = true }\noutput \"y\" {\n value = templatestring(var.t, {})\n sensitive = true\n}\n";
    for template in ["k3y ${a.b}", "k3y ${", "k3y ${1 + \"x\"}", "k3y"] {
        let vars = [("t".to_owned(), template.to_owned())].into();
        let loaded = load_with(text, &Inputs { vars, ..Inputs::default() });
        let shown = render(&loaded, false);
        assert!(loaded.has_errors() == (template != "k3y") && !shown.contains("k3y"), "{shown}");
    }
}

#[test]
fn what_is_given_for_a_sensitive_variable_is_not_shown() {
    let text = "variable \"t\" {\n type = object({ a = list(number), b = optional(bool) })\n sensitive = true\n}\n";
    for (file, given) in [
        ("/s/v.hcl", "t = { a = [1, \"k3y\"] }\n"),
        ("/s/v.hcl", "t = { a = [], b = \"k3y\" }\n"),
        ("/s/v.hcl", "t = [\"k3y\"]\n"),
        ("/s/v.hcl", "t = k3y\n"),
        ("/s/v.hcl", "t = \"${k3y}\"\n"),
        ("/s/v.hcl", "t = k3y(1)\n"),
        ("/s/v.yaml", "t: {a: [k3y]}\n"),
        ("/s/v.json", "{\"t\": {\"a\": [\"k3y\"]}}\n"),
    ] {
        let files = Memory::new(&[("/s/shop.hcl", text), (file, given)]);
        let inputs = Inputs { var_files: vec![file.into()], ..Inputs::default() };
        let loaded = load_from(&files, Path::new("/s/shop.hcl"), &inputs);
        let shown = render(&loaded, false);
        assert!(loaded.has_errors() && !shown.contains("k3y"), "{given}: {shown}");
    }
}

#[test]
fn a_long_file_is_read_like_a_short_one() {
    let filler = format!("locals {{\n x = \"é{}\"\n}}\n", "y".repeat(70_000));
    let check = |text: &str, message: &str, line: usize, marked: &str| {
        let loaded = load_with(text, &Inputs::default());
        let found: Vec<_> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|found| found.ends_with(message)), "{found:?}");
        let spans = loaded.diagnostics.iter().filter_map(|d| d.span.as_ref());
        assert!(spans.into_iter().any(|span| span.line == line && text[span.start..span.end] == *marked), "{found:?}");
    };
    check(
        &format!("{filler}output \"a\" {{\n value = upper(local.nope)\n}}\n"),
        "there is no local `nope`",
        5,
        "local.nope",
    );
    check(&format!("{filler}variable \"a\" {{ type = list(strin) }}\n"), "unknown type `strin`", 4, "strin");
    check(&format!("{filler}output \"a\" {{ value = 1 + 1e99 }}\n"), "number out of range", 4, "1e99");
    let found = load_with(&format!("stack = \"a\"\n{filler}stack = \"b\"\n"), &Inputs::default()).diagnostics;
    assert!(found[0].to_string().contains("redefined"), "{found:?}");
    // What looks like the end of a block within a text.
    let heredoc = format!("output \"a\" {{\n value = <<EOT\n{}\n}}\nz\nEOT\n}}\n", "y".repeat(70_000));
    let loaded = load(&format!("{heredoc}output \"b\" {{ value = 1 }}\n"));
    assert!(loaded.outputs["a"].value.as_ref().unwrap().as_str().unwrap().ends_with("y\n}\nz\n"));
    assert_eq!(loaded.outputs["b"].value, Some(json!(1)));
}

#[test]
fn a_byte_order_mark_says_nothing() {
    assert_eq!(load("\u{feff}output \"x\" { value = 1 }\n").outputs["x"].value, Some(json!(1)));
    assert_eq!(basalt_stackfile::format("\u{feff}a=1\n").as_deref(), Some("a = 1\n"));
}

#[test]
fn values() {
    let check = |expression: &str, expected: Value| {
        let loaded = load(&format!(
            "variable \"none\" {{ default = null }}\nlocals {{\n list = [1, 2, 3]\n people = [{{ n = \"a\", t = [\"x\"] }}, {{ n = \"b\", t = [] }}]\n}}\n\
             output \"x\" {{\n value = {expression}\n}}\n"
        ));
        assert_eq!(loaded.outputs["x"].value, Some(expected), "{expression}");
    };
    check("10 / 4", json!(2.5));
    check("0.1 + 0.2 == 0.3", json!(true));
    check("9007199254740993 + 0", json!(9007199254740993_u64));
    check("local.list[1]", json!(2));
    check("local.people[*].n", json!(["a", "b"]));
    check("local.people.*.n", json!(["a", "b"]));
    check("var.none[*]", json!([]));
    check("[for i, v in local.list : i * v if v != 2]", json!([0, 6]));
    check("{ for p in local.people : p.n => length(p.t) }", json!({"a": 1, "b": 0}));
    check("{ for v in local.list : (v > 1 ? \"big\" : \"small\") => v... }", json!({"big": [2, 3], "small": [1]}));
    check("\"%{ if true }yes%{ else }no%{ endif }\"", json!("yes"));
    check("\"%{ for v in local.list ~} ${v} %{ endfor }\"", json!("1 2 3 "));
    check("<<-E\n    a\n      b ${1}\n    E\n", json!("a\n  b 1\n"));
    check("<<E\n  a\n\n  b\nE\n", json!("  a\n\n  b\n"));
    check("<<-E\n    a\n\n    b\n  E\n", json!("a\n\nb\n"));
    check("<<E\n%{ for v in [1, 2] ~}\n  - ${v}\n%{ endfor ~}\nend\nE\n", json!("  - 1\n  - 2\nend\n"));
    check("<<E\na\n%{~ if true }\nb\n  %{~ endif }\nE\n", json!("a\nb\n\n"));
    check("\"$${x} %%{y}\"", json!("${x} %{y}"));
    check("basalt.environment", json!("default"));
    check("path.module", json!("."));
    check("try(local.people[5].n, \"none\")", json!("none"));
    check("local.people[0].t == [\"x\"] ? \"same\" : \"other\"", json!("same"));
}

#[test]
fn types_convert_and_fill_in() {
    let check = |of: &str, default: &str, expected: Value| {
        let text =
            format!("variable \"v\" {{\n type = {of}\n default = {default}\n}}\noutput \"v\" {{ value = var.v }}\n");
        assert_eq!(load(&text).outputs["v"].value, Some(expected), "{of} of {default}");
    };
    check("string", "5", json!("5"));
    check("number", "\"5\"", json!(5));
    check("list(string)", "[1, true]", json!(["1", "true"]));
    check("set(string)", "[\"b\", \"a\", \"b\"]", json!(["a", "b"]));
    check("map(number)", "{ a = \"1\" }", json!({"a": 1}));
    check("tuple([string, number])", "[1, \"2\"]", json!(["1", 2]));
    check(
        "object({ a = string, b = optional(number, 3), c = optional(bool) })",
        "{ a = 1 }",
        json!({"a": "1", "b": 3, "c": null}),
    );
    check("any", "{ a = [1, \"x\"] }", json!({"a": [1, "x"]}));
    check("\"list(string)\"", "[1]", json!(["1"]));
}

#[test]
fn for_each_makes_one_block_an_element() {
    let stack = stack(
        "locals { sizes = { eu = 2, us = 3 } }\nimage \"i\" {\n for_each = local.sizes\n from = \"scratch\"\n file \"/size\" { content = each.value }\n}\n\
         service \"web\" {\n for_each = local.sizes\n image = image.i[each.key]\n instances = each.value\n port \"http\" { container = 80 }\n \
         route { host = \"${each.key}.example.com\" }\n}\n\
         job \"j\" {\n for_each = [\"a\", \"b\"]\n image = image.i[\"eu\"]\n connects_to = [for s in service.web : s]\n env = { K = each.key, V = each.value, N = service.web.us.name }\n}\n",
    );
    assert_eq!(keys(&stack["images"]), ["i-eu", "i-us"]);
    assert_eq!(keys(&stack["services"]), ["web-eu", "web-us"]);
    assert_eq!(keys(&stack["jobs"]), ["j-a", "j-b"]);
    assert_eq!(stack["services"]["web-us"]["settings"]["instances"], 3);
    assert_eq!(stack["services"]["web-us"]["image"], json!({"block": "i-us"}));
    assert_eq!(stack["services"]["web-us"]["release"]["routes"][0]["host"], "us.example.com");
    assert_eq!(stack["jobs"]["j-b"]["release"]["connects_to"], json!(["web-eu", "web-us"]));
    assert_eq!(stack["jobs"]["j-b"]["release"]["env"], json!({"K": "b", "N": "web-us", "V": "b"}));
}

#[test]
fn dynamic_makes_blocks_within_blocks() {
    let stack = stack(
        "locals { ports = { http = 80, admin = 81 } }\nservice \"web\" {\n image = \"x\"\n \
         dynamic \"port\" {\n for_each = local.ports\n labels = [port.key]\n content {\n container = port.value\n }\n }\n \
         dynamic \"route\" {\n for_each = [\"a\", \"b\"]\n iterator = host\n content {\n host = \"${host.value}.example.com\"\n port = \"admin\"\n }\n }\n}\n",
    );
    let release = &stack["services"]["web"]["release"];
    assert_eq!(keys(&release["ports"]), ["admin", "http"]);
    assert_eq!(release["routes"][1]["host"], "b.example.com");
}

#[test]
fn modules_have_inputs_outputs_and_folders_of_their_own() {
    let loaded = load(
        "module \"shop\" {\n source = \"./lib/app\"\n size = 2\n text = local.text\n}\nlocals { text = \"hi\" }\n\
         module \"many\" {\n source = \"./lib/app\"\n for_each = { a = 1, b = 2 }\n size = each.value\n}\n\
         job \"j\" {\n image = \"x\"\n connects_to = [module.shop.app, module.many[\"a\"].app]\n}\n\
         output \"names\" { value = [module.shop.name, module.many.b.name] }\n",
    );
    let stack = serde_json::to_value(loaded.stack.unwrap()).unwrap();
    assert_eq!(keys(&stack["services"]), ["many-a-app", "many-b-app", "shop-app"]);
    let shop = &stack["services"]["shop-app"];
    assert_eq!(shop["settings"]["instances"], 2);
    assert_eq!(shop["release"]["configs"]["/etc/x"]["content"], "of the module");
    assert_eq!(shop["release"]["env"], json!({"TEXT": "hi", "WAY": "../.."}));
    assert_eq!(stack["jobs"]["j"]["release"]["connects_to"], json!(["many-a-app", "shop-app"]));
    assert_eq!(loaded.outputs["names"].value, Some(json!(["shop-app", "many-b-app"])));
}

#[test]
fn an_environment_gives_variables() {
    let text = "variable \"size\" { default = 1 }\nvariable \"other\" { default = \"o\" }\n\
                environment \"production\" { variables = { size = 8 } }\nenvironment \"staging\" {}\n\
                output \"x\" { value = \"${basalt.environment} ${var.size} ${var.other}\" }\n";
    let check = |environment: Option<&str>, var: Option<&str>, expected: &str| {
        let vars = var.map(|var| ("size".to_owned(), var.to_owned())).into_iter().collect();
        let inputs = Inputs { environment: environment.map(str::to_owned), vars, ..Inputs::default() };
        let loaded = load_with(text, &inputs);
        let found = loaded.outputs.get("x").and_then(|output| output.value.clone());
        match expected.strip_prefix("error: ") {
            Some(message) => assert_eq!(loaded.diagnostics[0].to_string(), message),
            None => assert_eq!(found, Some(json!(expected))),
        }
    };
    check(None, None, "default 1 o");
    check(Some("production"), None, "production 8 o");
    check(Some("production"), Some("9"), "production 9 o");
    check(Some("staging"), None, "staging 1 o");
    check(Some("prod"), None, "error: there is no environment `prod`");
    check(
        Some("Prod!"),
        None,
        "error: the environment's name: `Prod!` is not a name: use 1 to 40 lowercase letters, digits, and inner hyphens and underscores",
    );
}

#[test]
fn sensitive_values_are_sealed() {
    let text = "variable \"password\" {\n default = \"hunter2\"\n sensitive = true\n}\n\
        locals { url = \"db://x:${var.password}@y\" }\n\
        service \"web\" {\n image = \"x\"\n env = { LOG = \"info\", URL = local.url, KEY = secret.api_key, UPPER = upper(var.password) }\n \
        config \"/etc/db\" { content = jsonencode({ password = var.password }) }\n}\n\
        output \"url\" {\n value = local.url\n sensitive = true\n}\n";
    let loaded = load(text);
    let shown = format!("{loaded:?}").replace(text, "");
    let stack = serde_json::to_string(&loaded.stack).unwrap();
    // The source is the author's own text; nothing else may have it.
    let shown = shown.split("sources:").next().unwrap().to_owned() + &stack;
    assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
    assert_eq!(loaded.outputs["url"].value, None);
    let stack: Value = serde_json::from_str(&stack).unwrap();
    let release = &stack["services"]["web"]["release"];
    assert_eq!(release["env"], json!({"LOG": "info"}));
    assert_eq!(keys(&release["env_secrets"]), ["KEY", "UPPER", "URL"]);
    assert_eq!(release["env_secrets"]["KEY"], json!({"name": "api_key", "version": 0}));
    assert_eq!(release["configs"], json!({}));
    assert_eq!(keys(&release["secrets"]), ["/etc/db"]);
    let mut sealed: Vec<&str> = loaded.sealed.values().map(|sealed| sealed.reveal()).collect();
    sealed.sort_unstable();
    assert_eq!(sealed, ["HUNTER2", "db://x:hunter2@y", "{\"password\":\"hunter2\"}"]);
    let name = release["env_secrets"]["URL"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-env-url-") && loaded.sealed.contains_key(&name.parse().unwrap()), "{name}");
}

#[test]
fn sensitive_values_are_shown_nowhere() {
    // Each of these is wrong, or would show the value; none may show it while saying so.
    let uses = [
        "command = [\"/a\", var.p]",
        "user = var.p",
        "image = var.p",
        "instances = var.p",
        "port \"x\" { container = var.p }",
        "env = { A = [var.p] }",
        "env = { (var.p) = 1 }",
        "env = { A = parseint(var.p, 10) }",
        "env = { A = local.map[var.p] }",
        "env = { A = local.list[var.p] }",
        "env = { A = var.p + 1 }",
        "env = { A = { for x in [1, 2] : var.p => x } }",
        "env = { A = jsondecode(var.p) }",
        "env = { A = file(var.p) }",
        "env = { A = regex(\"[\", var.p) }",
        "scratch = [var.p]",
        "config \"/a\" {\n mode = var.p\n content = \"\"\n}",
        "dynamic \"port\" {\n for_each = [var.p]\n labels = [port.value]\n content {\n container = 80\n }\n}",
        "dynamic \"config\" {\n for_each = [1]\n labels = [var.p]\n content {\n content = \"\"\n }\n}",
    ];
    let inputs = Inputs { vars: [("p".to_owned(), "hunter2 !".to_owned())].into(), ..Inputs::default() };
    for used in uses {
        let image = if used.starts_with("image") { "" } else { "image = \"x\"\n" };
        let text = format!(
            "variable \"p\" {{\n type = string\n sensitive = true\n}}\nlocals {{\n map = {{}}\n list = []\n}}\nservice \"web\" {{\n {image} {used}\n}}\n"
        );
        let loaded = load_with(&text, &inputs);
        let said = render(&loaded, false) + &serde_json::to_string(&loaded.diagnostics).unwrap();
        assert!(loaded.has_errors(), "{used}");
        assert!(!said.contains("hunter2"), "{used}: {said}");
    }
    for of in ["number", "list(string)", "object({ a = string })"] {
        let text = format!("variable \"p\" {{\n type = {of}\n sensitive = true\n}}\n");
        let loaded = load_with(&text, &inputs);
        let said = render(&loaded, false) + &format!("{:?}", loaded.sources);
        assert!(loaded.has_errors() && !said.contains("hunter2"), "{of}: {said}");
    }
    let text = "variable \"p\" {\n sensitive = true\n validation {\n condition = var.p == \"\"\n error_message = \"wrong\"\n }\n}\n";
    let said = render(&load_with(text, &inputs), false);
    assert!(said.contains("wrong") && !said.contains("hunter2"), "{said}");
    let text = "variable \"p\" { sensitive = true }\noutput \"p\" { value = var.p }\n";
    let said = render(&load_with(text, &inputs), false);
    assert!(said.contains("would show a sensitive value") && !said.contains("hunter2"), "{said}");
}

#[test]
fn lines_of_files_of_variables_are_not_shown() {
    let files = Memory::new(&[
        ("/s/shop.hcl", "variable \"password\" { sensitive = true }\njob \"j\" { image = \"x\" }\n"),
        ("/v.hcl", "passwrod = \"hunter2\"\n"),
        ("/v.yaml", "password: hunter2\nextra: [hunter2\n"),
    ]);
    for path in ["/v.hcl", "/v.yaml"] {
        let inputs = Inputs { var_files: vec![path.into()], ..Inputs::default() };
        let said = render(&load_from(&files, Path::new("/s/shop.hcl"), &inputs), false);
        assert!(said.contains(path) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn folders_mix_kinds_and_pass_over_what_is_no_stack() {
    let files = Memory::new(&[
        ("/s/a.yaml", "service:\n  web:\n    image: \"${local.image}\"\n"),
        ("/s/b.json", "{\"job\": {\"j\": {\"image\": \"${local.image}\"}}}"),
        ("/s/c.hcl", "locals { image = \"x\" }"),
        ("/s/package.json", "{\"name\": \"x\", \"version\": \"1\"}"),
        ("/s/compose.yml", "services:\n  web: {image: x}\n"),
    ]);
    let loaded = load_from(&files, Path::new("/s"), &Inputs::default());
    assert!(!loaded.has_errors(), "{}", render(&loaded, false));
    let stack = loaded.stack.unwrap();
    assert_eq!((stack.services.len(), stack.jobs.len()), (1, 1));
}
