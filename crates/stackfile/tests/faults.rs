//! Every fault, as people see it.

mod memory;

use std::fmt::Write as _;
use std::path::Path;

use basalt_stackfile::{Inputs, load_from, render};
use memory::Memory;

/// Returns what is said about each stack; `shop.hcl` is the file's name.
fn said(stacks: &[&str]) -> String {
    let mut text = String::new();
    for stack in stacks {
        let files = Memory::new(&[
            ("/s/shop.hcl", stack),
            ("/s/bad.tpl", "a = ${a.b}\nb = ${c}\n"),
            ("/s/torn.tpl", "a = ${"),
            ("/s/image.tar", "tar"),
        ]);
        let loaded = load_from(&files, Path::new("/s/shop.hcl"), &Inputs::default());
        assert_eq!(loaded.stack.is_none(), loaded.has_errors(), "{stack}");
        assert!(!loaded.diagnostics.is_empty(), "nothing was said about:\n{stack}");
        writeln!(text, "{}", render(&loaded, false)).unwrap();
    }
    text
}

/// Returns a stack with one service that has these lines.
fn service(lines: &str) -> String {
    format!(
        "service \"web\" {{\n  image = \"registry.example.com/web:1\"\n  port \"http\" {{ container = 8080 }}\n{lines}\n}}\n"
    )
}

/// Returns what is said about services with these lines.
fn said_of_services(lines: &[&str]) -> String {
    let stacks: Vec<String> = lines.iter().map(|lines| service(lines)).collect();
    said(&stacks.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn syntax() {
    insta::assert_snapshot!(said(&[
        "service \"web\" {",
        "x = [1,\n",
        "a = 1\na = 2\n",
        "s \"w\" { a = 1, b = 2 }\n",
        "ü = 1",
        "locals { a = \"C:\\Temp\" }"
    ]));
}

#[test]
fn top_level() {
    insta::assert_snapshot!(said(&[
        "servce \"web\" { }",
        "image = \"x\"",
        "replicas = 3",
        "service { }",
        "service \"a\" \"b\" { }",
        "module \"x\" { }",
        "secret \"x\" { }",
        "stack = \"My Shop\"",
        "stack = var.nope",
        "",
    ]));
}

#[test]
fn names() {
    insta::assert_snapshot!(said(&[
        "job \"Migrate_DB\" { image = \"x\" }",
        "job \"migrate_db\" { image = \"x\" }",
        "job \"a\" { image = \"x\" }\nservice \"a\" { image = \"x\" }\n",
        "job \"a\" { image = \"x\" }\njob \"a\" { image = \"x\" }\n",
    ]));
}

#[test]
fn variables() {
    insta::assert_snapshot!(said(&[
        "variable \"x\" { }",
        "variable \"x\" {\n  type = number\n  default = \"abc\"\n}",
        "variable \"x\" {\n  type = strng\n  default = 1\n}",
        "variable \"x\" {\n  type = object({ a = string, b = list(number) })\n  default = { a = \"a\", c = 1 }\n}",
        "variable \"x\" {\n  default = 1\n  defalt = 2\n  validation { condition = true }\n}",
        "variable \"x\" { default = 1 }\nvariable \"x\" { default = 1 }",
        "variable \"x\" { default = var.y }",
        "variable \"x\" {\n  sensitive = true\n  type = number\n  default = \"hidden\"\n}",
        "locals { a = local.b }\nlocals { b = local.c }\nlocals { c = [local.a] }\n",
        "locals { a = local.b }",
        "locals {\n  a = 1\n  inner { }\n}\nlocals { a = 2 }",
    ]));
}

#[test]
fn expressions() {
    insta::assert_snapshot!(said(&[
        "locals { a = web }",
        "locals { a = uper(\"x\") }",
        "locals { a = upper() }",
        "locals { a = 1 + [] }",
        "locals { a = 1 / 0 }",
        "locals { a = \"x ${[1]}\" }",
        "locals { a = image.wbe }\nimage \"web\" { from = \"scratch\" }",
        "locals { a = service.web }\nimage \"web\" { from = \"scratch\" }",
        "locals { a = \"${image.web} \" }\nimage \"web\" { from = \"scratch\" }",
        "locals { a = file(\"nope.txt\") }",
        "locals { a = templatefile(\"bad.tpl\", { a = {} }) }",
        "locals { a = templatefile(\"torn.tpl\", {}) }",
        "locals { a = [for x in range(9999) : range(9999)] }",
    ]));
}

#[test]
fn images() {
    insta::assert_snapshot!(said(&[
        "image \"web\" { }",
        "image \"web\" {\n  from = \"scratch\"\n  copy \"nope\" { to = \"/x\" }\n  copy \"image.tar\" { }\n  copy \"image.tar\" { to = \"x/y\" }\n}",
        "image \"web\" {\n  from = \"scratch\"\n  file \"etc/x\" { content = \"\" }\n  file \"/a/../b\" { content = \"\" }\n  file \"/proc/x\" { content = \"\" }\n  link \"/\" { to = \"x\" }\n}",
        "image \"web\" {\n  from = \"scratch\"\n  file \"/x\" {\n    content = \"\"\n    mode = 644\n  }\n  file \"/y\" {\n    content = \"\"\n    mode = \"4755\"\n  }\n}",
        "image \"web\" {\n  from = \"oci-archive:nope.tar\"\n  command = \"httpd -f\"\n  user = \"a b\"\n  run { }\n}",
        "image \"a\" { from = image.b }\nimage \"b\" { from = image.c }\nimage \"c\" { from = image.a }\n",
        "image \"a\" { from = image.a }",
        "service \"a\" { image = \"scratch\" }\nservice \"b\" { image = \"./image.tar\" }\nservice \"c\" { image = \"docker://nginx\" }\nservice \"d\" { image = \"a b\" }\nservice \"e\" { image = 5 }\nservice \"f\" { image = \"oci:image.tar\" }\n",
    ]));
}

#[test]
fn bases_and_provisioners() {
    let base = |inside: &str| format!("image \"web\" {{\n  base \"debian\" {{\n    {inside}\n  }}\n}}");
    let texts = [
        "image \"web\" {\n  from = \"scratch\"\n  dockerfile = \"nope\"\n}".to_owned(),
        "image \"web\" {\n  dockerfile = \"nope/Dockerfile\"\n}".to_owned(),
        "image \"web\" {\n  build {\n    dockerfile = \"image.tar\"\n    context = \"nope\"\n    targte = \"x\"\n  }\n}".to_owned(),
        "image \"web\" {\n  base \"debain\" { suite = \"bookworm\" }\n}".to_owned(),
        base("suite = \"book worm\"\n    packages = [\"a;b\"]"),
        base("suite = \"bookworm\""),
        base("suite = \"bookworm\"\n    snapshot = \"2026-01-01\""),
        base("suite = \"bookworm\"\n    snapshot = \"20260101T000000Z\"\n    lock = \"x.lock\""),
        base("suite = \"bookworm\"\n    lock = \"image.tar\""),
        "image \"web\" {\n  from = \"scratch\"\n  run \"x\" { command = \" \" }\n  run { command = [] }\n  run {\n    command = \"x\"\n    netwrok = true\n  }\n}".to_owned(),
        "image \"web\" {\n  from = \"scratch\"\n  provision \"chef\" { }\n  provision \"shel\" { }\n  provision \"shell\" { }\n  provision \"shell\" {\n    inline = [\"x\"]\n    script = \"image.tar\"\n  }\n}".to_owned(),
        "image \"web\" {\n  from = \"scratch\"\n  provision \"ansible\" { }\n  provision \"ansible\" {\n    playbook = \"nope.yml\"\n    vars = 1\n    groups = [\"a b\"]\n  }\n  provision \"puppet\" { manifest = \"nope.pp\" }\n}".to_owned(),
        "image \"web\" {\n  from = \"scratch\"\n  copy \"x\" {\n    image = image.other\n    to = \"/x\"\n  }\n  expose = [\"http\"]\n}\nimage \"other\" { from = image.web }".to_owned(),
    ];
    insta::assert_snapshot!(said(&texts.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn services() {
    insta::assert_snapshot!(said_of_services(&[
        "  imgae = 1\n  retries = 3\n  helth { }\n  limits = { cpu = 1 }\n  env { a = 1 }",
        "  instances = 10001",
        "  instances = \"many\"",
        "  instances = 1.5",
        "  command = \"httpd\"\n  env = { \"A=B\" = 1 }\n  workdir = \"srv\"",
        "  command = []\n  env = [1]",
        "  scratch = [\"tmp\", \"/\", \"/sys/x\"]",
        "  scratch = [\"/tmp\", \"/tmp/\"]\n  config \"/tmp\" { content = \"\" }",
        "  config \"/a\" { }\n  secret \"/b\" { }\n  volume \"/c\" { }",
        "  secret \"/b\" { from = \"db\" }\n  secret \"/c\" { from = secret.DB }",
        "  drain = 30\n  stop_within = \"5 minutes\"",
        "  capabilities = [\"CAP_NET_BIND_SERVCE\"]\n  egress = \"maybe\"",
        "  limits {\n    cpu = \"500k\"\n    memory = 128\n    pids = 0\n  }\n  limits { }",
        "  limits {\n    cpu = 0\n    memory = \"128M\"\n  }",
        "  autoscale { }",
    ]));
    insta::assert_snapshot!("no_image", said(&["service \"web\" { }"]));
}

#[test]
fn ports_and_routes() {
    insta::assert_snapshot!(said_of_services(&[
        "  port \"http\" { container = 80 }",
        "  port \"admin\" { container = 8080 }",
        "  port \"admin\" { container = 70000 }\n  port \"x\" { }\n  port \"a.b\" { container = 1 }",
        "  port \"admin\" {\n    container = 81\n    protocol = \"udp\"\n  }\n  port \"other\" {\n    container = 82\n    protocol = \"smtp\"\n  }",
        "  route { port = \"htp\" }",
        "  route {\n    host = \"https://shop\"\n    path = \"shop\"\n  }\n  route { host = \"shop:80\" }\n  route { host = \"shop.*.a\" }\n  route { host = \"a..b\" }",
        "  route { host = \"[::1]\" }\n  route { host = \"bücher.example\" }",
        "  port \"db\" {\n    container = 5432\n    protocol = \"tcp\"\n  }\n  route { port = \"db\" }",
        "  route { host = \"shop\" }\n  route { host = \"SHOP\" }",
        "  port \"db\" {\n    container = 1\n    protocol = \"tcp\"\n    proxy_protocol = \"v3\"\n  }\n  port \"x\" {\n    container = 2\n    proxy_protocol = \"v1\"\n  }",
        "  route { tls = true }",
    ]));
    let two =
        [service("  route { path = \"/a\" }"), service("  route { path = \"/a/\" }").replace("\"web\"", "\"api\"")];
    insta::assert_snapshot!(
        "routed_twice",
        said(&[&two.concat(), "service \"web\" {\n  image = \"x\"\n  route { }\n}"])
    );
}

#[test]
fn rules_of_routes() {
    let route = |lines: &str| format!("  route {{\n    host = \"a.example\"\n{lines}\n  }}");
    let rows = [
        "    methods = [\"G T\"]\n    headers = { \"a b\" = \"1\", host = \"a\\nb\" }\n    request_headers = { Upgrade = \"x\" }",
        "    rewrite = \"v2\"\n    redirect { to = \"javascript:alert(1)\" }\n    respond { status = 99 }",
        "    redirect {\n      to = \"/{place}\"\n      status = 200\n    }",
        "    redirect { to = \"/new{rest}?{query}\" }",
        "    timeout = \"0s\"\n    hedge_after = \"0ms\"\n    retries = 11\n    rate_limit { burst = 0 }\n    error_page \"200\" { body = \"x\" }",
        "    tls { certificate = \"a.pem\" }",
        "    tls {\n      acme = true\n      clients { required = true }\n    }",
        "    headers = { \"X-A\" = \"1\", \"x-a\" = \"2\" }\n    request_headers = { Host = \"\" }\n    methods = [\"connect\"]",
        "    path = \"/star/*\"\n    respond {\n      status = 204\n      body = \"x\"\n    }\n    tls {\n      acme = true\n      hsts = \"500ms\"\n    }",
    ];
    let rows: Vec<String> = rows.iter().map(|row| route(row)).collect();
    let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    rows.push("  route {\n    host = \"*.a.example\"\n    tls { acme = true }\n  }\n  route {\n    path = \"/b\"\n    tls { acme = true }\n  }");
    rows.push("  traffic {\n    panic_below = \"101%\"\n    hash_on = \"path\"\n    slow_start = \"x\"\n    eject {\n      slower = 1\n      at_most = 200\n    }\n  }");
    rows.push("  traffic { panic_below = 0.5 }");
    rows.push("  traffic {\n    hash_on = \"client\"\n    sticky { cookie = \"a;b\" }\n  }");
    insta::assert_snapshot!(said_of_services(&rows));
}

#[test]
fn health() {
    insta::assert_snapshot!(said_of_services(&[
        "  health {\n    http { path = \"health\" }\n    tcp { port = \"x\" }\n  }",
        "  health {\n    grpc { }\n    interval = \"0s\"\n    healthy_after = 0\n  }",
        "  health {\n    interval = \"10s\"\n    healthy_after = 10\n  }",
        "  health { command = \"true\" }",
        "  health \"x\" { }\n  health { }",
    ]));
    insta::assert_snapshot!("no_port", said(&["service \"web\" {\n  image = \"x\"\n  health {\n    tcp { }\n  }\n}"]));
}

#[test]
fn connections() {
    let api = "service \"api\" { image = \"x\" }\njob \"migrate\" { image = \"x\" }\n";
    let with = |lines: &str| format!("{}{api}", service(lines));
    let stacks = [
        with("  connects_to = [service.web]"),
        with("  connects_to = [service.api]"),
        with("  connects_to = [service.apo]"),
        with("  connects_to = [job.migrate]"),
        with("  connects_to = \"api\""),
        with("  connects_to = [\"api\"]"),
        with("  depends_on = [service.api]"),
        "job \"a\" {\n  image = \"x\"\n  depends_on = [job.b]\n}\njob \"b\" {\n  image = \"x\"\n  depends_on = [job.a]\n}\n".to_owned(),
        "job \"a\" {\n  image = \"x\"\n  instances = 2\n  route { }\n  retries = 101\n  timeout = \"0s\"\n}\n".to_owned(),
    ];
    insta::assert_snapshot!(said(&stacks.iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn volumes() {
    insta::assert_snapshot!(said_of_services(&[
        "  instances = 3\n  volume \"/data\" { name = \"data\" }",
        "  volume \"/data\" { name = \"data\" }\n  rollout \"blue_green\" { }",
        "  volume \"/data\" { name = \"Data\" }",
        "  volume \"/data\" { name = \"data\" }\n  rollout \"recreate\" { }\n}\njob \"copy\" {\n  image = \"x\"\n  volume \"/data\" { name = \"data\" }",
    ]));
}

#[test]
fn rollouts() {
    insta::assert_snapshot!(said_of_services(&[
        "  rollout { }",
        "  rollout \"canray\" { }",
        "  rollout \"ab_test\" { }",
        "  rollout \"canary\" { }",
        "  rollout \"canary\" { steps = [] }",
        "  rollout \"canary\" {\n    instances = 0\n    steps = [{ weight = 50 }, { weight = 5 }, { hold = \"1m\" }, { weight = 101 }, 5, { wieght = 5 }]\n  }",
        "  rollout \"canary\" {\n    steps = [{ weight = 5, hold = \"8m\" }, { weight = 50, hold = \"8m\" }]\n  }",
        "  rollout \"canary\" {\n    steps = [{ weight = 5 }]\n    check \"errors\" { that = \"x\" }\n  }",
        "  rollout \"rolling\" {\n    max_surge = 0\n    steps = []\n  }",
        "  rollout \"rolling\" { max_surge = \"120%\" }",
        "  rollout \"recreate\" { keep_old = \"5m\" }",
        "  rollout \"blue_green\" {\n    deadline = \"1x\"\n    hold = \"400d\"\n  }\n  rollout \"recreate\" { }",
    ]));
}

#[test]
fn all_faults_at_once_sorted_by_place() {
    let text = format!("{}bogus \"x\" {{ }}\n", service("  instances = -1\n  drain = \"x\"\n  route { port = \"y\" }"));
    let files = Memory::new(&[("/s/a.hcl", &text), ("/s/b.hcl", "locals { a = local.b }"), ("/s/c.txt", "not one")]);
    let loaded = load_from(&files, Path::new("/s"), &Inputs::default());
    let lines: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "/s/a.hcl:4:15: `-1` is out of range",
            "/s/a.hcl:5:11: `x` is not a duration",
            "/s/a.hcl:6:18: there is no port `y`",
            "/s/a.hcl:8:1: a stack has no block `bogus`",
            "/s/b.hcl:1:14: there is no local `b`",
        ]
    );
    insta::assert_snapshot!("as_json", serde_json::to_string_pretty(&loaded.diagnostics[0]).unwrap());
}

#[test]
fn no_stack_at_all() {
    let files = Memory::new(&[("/s/readme.txt", ""), ("/t/My Shop.hcl", "")]);
    let mut text = String::new();
    for path in ["/s", "/nowhere", "/s/readme.txt/x", "/t/My Shop.hcl"] {
        let loaded = load_from(&files, Path::new(path), &Inputs::default());
        assert!(loaded.stack.is_none());
        text += &render(&loaded, false);
    }
    insta::assert_snapshot!(text);
}

/// Returns what is said about each text as a file of a kind.
fn said_of(kind: &str, stacks: &[&str]) -> String {
    let mut text = String::new();
    for stack in stacks {
        let path = format!("/s/shop.{kind}");
        let files = Memory::new(&[
            (&path, stack),
            ("/s/self/a.hcl", "module \"b\" { source = \"../other\" }"),
            ("/s/other/b.hcl", "module \"a\" { source = \"../self\" }"),
            (
                "/s/sized/c.hcl",
                "variable \"size\" { type = number }\nservice \"app\" {\n  image = \"x\"\n  instances = var.size\n}\n",
            ),
        ]);
        let loaded = load_from(&files, Path::new(&path), &Inputs::default());
        assert_eq!(loaded.stack.is_none(), loaded.has_errors(), "{stack}");
        assert!(!loaded.diagnostics.is_empty(), "nothing was said about:\n{stack}");
        writeln!(text, "{}", render(&loaded, false)).unwrap();
    }
    text
}

#[test]
fn yaml() {
    insta::assert_snapshot!(said_of(
        "yaml",
        &[
            "service:\n  web:\n    image: x\n    instnces: 2\n    port: {http: {container: ü}}\n",
            "service:\n  web:\n   image: x\n  - b\n",
            "servce:\n  web: {}\n",
            "service: [1]\njob: x\n",
            "service:\n  web:\n    image: x\n    image: y\n",
            "service:\n  wéb:\n    image: \"é ${var.x}\"\n",
            "service:\n  web:\n    image: \"\\u00e9 ${var.x}\"\n    limits: 5\n",
            "service:\n  web:\n    image: x\n    env: {A: \"${1 +}\"}\n",
            "a: &a [*a]\n",
            "--- \na: 1\n---\nb: 2\n",
            "locals:\n  a: ${local.b}\n  b: ${local.a}\n",
        ]
    ));
}

#[test]
fn json() {
    insta::assert_snapshot!(said_of(
        "json",
        &[
            "{\"service\": {\"web\": {\"image\": \"x\", \"drain\": \"5\", \"scratch\": \"/a\"}}}",
            "{\"service\": {\"web\": {\"image\": \"x\",}}}",
            "{\"service\": ",
            "[]",
            "{\"image\": {\"i\": {\"from\": \"scratch\", \"steps\": [{\"cpy\": {}}, 5]}}}",
        ]
    ));
}

#[test]
fn modules_and_repeated_blocks() {
    insta::assert_snapshot!(said_of(
        "hcl",
        &[
            "module \"a\" { source = \"./self\" }",
            "module \"a\" { source = \"./nowhere\" }\nmodule \"b\" { source = \"registry/x\" }\nmodule \"b\" { source = \"./self\" }",
            "module \"a\" {\n  source = \"./sized\"\n  sise = 2\n}",
            "module \"a\" {\n  source = \"./sized\"\n  size = \"x\"\n}\nservice \"a-app\" { image = \"x\" }",
            "locals {\n  a = module.m.x\n}\nmodule \"m\" {\n  source = \"./sized\"\n  size = local.a\n}",
            "service \"web\" {\n  for_each = [\"a\", \"A b\"]\n  image = \"x\"\n}\nservice \"api\" {\n  for_each = 5\n  image = \"x\"\n}",
            "service \"web\" {\n  for_each = [\"a\"]\n  image = \"x\"\n}\njob \"j\" {\n  image = \"x\"\n  connects_to = [service.web[\"b\"], module.m.x]\n}",
            "service \"web\" {\n  image = \"x\"\n  dynamic \"port\" {\n    for_each = [1]\n  }\n  dynamic \"prt\" {\n    for_each = [1]\n    content {\n    }\n  }\n}",
            "variable \"x\" {\n  default = 5\n  validation {\n    condition = var.x > 9\n    error_message = \"too small, for ${var.x}\"\n  }\n}",
            "variable \"x\" {\n  default = null\n  nullable = false\n}\nvariable \"y\" { type = optional(string) }\nvariable \"z\" {\n  type = tuple([string])\n  default = []\n}",
            "output \"x\" { }\noutput \"y\" { value = image.nope }\noutput \"z\" { value = secret.z }\nenvironment \"a\" { variables = 5 }\nenvironment \"a\" { }",
        ]
    ));
}
