//! Whole stacks: what they become, and that no input does harm.

mod memory;

use std::path::Path;

use basalt_model::{
    BakeFrom, Bytes, CpuMillis, HealthCheck, ImageSource, Millis, Port, Protocol, ProxyProtocol, RolloutSpec, Settings,
    Share, Strategy,
};
use basalt_stackfile::{Inputs, Loaded, load_from, render};
use memory::Memory;

/// The example of the handbook, with everything that a service can say.
const SHOP: &str = include_str!("shop.hcl");

fn load(text: &str, inputs: &Inputs) -> Loaded {
    let files = Memory::new(&[("/s/shop.hcl", text), ("/s/app.toml.tpl", "port = ${port}\n"), ("/bin/busybox", "ELF")]);
    load_from(&files, Path::new("/s/shop.hcl"), inputs)
}

#[test]
fn the_example_loads() {
    let loaded = load(SHOP, &Inputs::default());
    assert_eq!(render(&loaded, false), "");
    let stack = loaded.stack.unwrap();
    assert_eq!(stack.name.as_str(), "shop");
    insta::assert_snapshot!(serde_json::to_string_pretty(&stack).unwrap());
}

/// Returns the stack of a text without faults.
fn stack(text: &str) -> basalt_model::Stack {
    let loaded = load(text, &Inputs::default());
    assert!(!loaded.has_errors(), "{}", render(&loaded, false));
    loaded.stack.unwrap()
}

#[test]
fn the_least_service_gets_the_defaults() {
    let stack = stack("service \"web\" { image = \"nginx:1\" }");
    let web = stack.services.values().next().unwrap();
    assert_eq!(web.image, ImageSource::Reference("nginx:1".to_owned()));
    assert_eq!(web.settings, Settings::default());
    assert_eq!(web.release.health.check, HealthCheck::Running);
    assert_eq!(web.release.limits, Default::default());
    assert!(!web.release.egress);
}

#[test]
fn without_a_health_block_the_first_port_is_asked() {
    let check = |ports: &str, expected: &str| {
        let stack = stack(&format!("service \"web\" {{\n image = \"x\"\n{ports}\n}}"));
        let health = &stack.services.values().next().unwrap().release.health;
        assert_eq!(health.check, HealthCheck::Tcp { port: expected.parse().unwrap() });
    };
    check("port \"b\" { container = 1 }\nport \"a\" { container = 2 }", "a");
    check("port \"http\" { container = 1 }\nport \"a\" { container = 2 }", "http");
}

#[test]
fn forms_of_health_rollout_and_limits() {
    let stack = stack(
        "service \"a\" {\n image = \"x\"\n port \"p\" {\n container = 5432\n protocol = \"tcp\"\n proxy_protocol = \"v2\"\n }\n health {\n tcp { }\n }\n \
         limits {\n cpu = 1.5\n memory = \"1GB\"\n }\n rollout \"rolling\" {\n max_surge = 2\n max_unavailable = \"50%\"\n }\n}\n\
         service \"b\" {\n image = \"x\"\n health { command = [\"/ok\"] }\n rollout \"blue_green\" {\n hold = \"1m\"\n keep_old = \"5m\"\n }\n}\n\
         service \"c\" {\n image = \"x\"\n port \"http\" { container = 80 }\n health {\n http { }\n }\n volume \"/d\" { name = \"d\" }\n rollout \"recreate\" { }\n route { }\n}\n",
    );
    let service = |name: &str| &stack.services[&name.parse().unwrap()];
    let a = service("a");
    let port = Port { proxy_protocol: Some(ProxyProtocol::V2), ..Port::new(5432, Protocol::Tcp) };
    assert_eq!(a.release.ports.values().next(), Some(&port));
    assert_eq!(a.release.limits.cpu, Some(CpuMillis(1500)));
    assert_eq!(a.release.limits.memory, Some(Bytes(1_000_000_000)));
    let rolling = Strategy::Rolling { max_surge: Share::Count(2), max_unavailable: Share::Percent(50) };
    assert_eq!(a.settings.rollout.strategy, rolling);
    let b = service("b");
    assert_eq!(b.release.health.check, HealthCheck::Command(vec!["/ok".to_owned()]));
    assert_eq!(
        b.settings.rollout,
        RolloutSpec {
            strategy: Strategy::BlueGreen,
            hold: Millis::seconds(60),
            keep_old: Millis::seconds(300),
            ..Default::default()
        }
    );
    let c = service("c");
    assert_eq!(c.release.health.check, HealthCheck::Http { path: "/".to_owned(), port: "http".parse().unwrap() });
    assert_eq!(c.settings.rollout.strategy, Strategy::Recreate);
    assert_eq!((c.release.routes[0].host.as_deref(), c.release.routes[0].path.as_str()), (None, "/"));
}

#[test]
fn everything_that_a_route_can_say() {
    let stack = stack(
        "service \"web\" {\n image = \"x\"\n port \"http\" { container = 80 }\n health {\n grpc { service = \"a.B\" }\n }\n\
         route {\n host = \"*.Example.com\"\n path = \"/v1/\"\n exact = true\n methods = [\"put\", \"GET\"]\n headers = { X-Tenant = \"a\" }\n\
         query = { debug = \"*\" }\n rewrite = \"/v2\"\n timeout = \"5s\"\n retries = 1\n hedge_after = \"50ms\"\n body_limit = \"1MiB\"\n\
         request_headers = { X-From = \"edge\" }\n response_headers = { Server = \"\" }\n\
         rate_limit {\n requests = 10\n per = \"1m\"\n burst = 3\n }\n error_page \"5xx\" { body = \"<h1>sorry</h1>\" }\n\
         tls {\n certificate = \"/c.pem\"\n key = \"/k.pem\"\n hsts = \"24h\"\n clients { authorities = \"/ca.pem\" }\n }\n }\n\
         route {\n path = \"/old\"\n redirect { to = \"https://{host}/new{rest}{query}\" }\n }\n\
         route {\n path = \"/ping\"\n respond { body = \"pong\" }\n }\n\
         traffic {\n maintenance = true\n slow_start = \"10s\"\n panic_below = \"30%\"\n sticky { lasts = \"1h\" }\n\
         eject {\n consecutive = 3\n slower = 2.5\n }\n }\n}\n",
    );
    let web = &stack.services[&"web".parse().unwrap()];
    assert_eq!(web.release.health.check, HealthCheck::Grpc { service: "a.B".into(), port: "http".parse().unwrap() });
    insta::assert_snapshot!(serde_json::to_string_pretty(&(&web.release.routes, &web.settings.traffic)).unwrap());
}

#[test]
fn jobs_and_connections() {
    let stack = stack(
        "service \"web\" {\n image = \"x\"\n port \"http\" { container = 80 }\n depends_on = [job.b, job.a]\n}\n\
         job \"a\" { image = \"x\" }\njob \"b\" {\n image = \"x\"\n depends_on = [job.a]\n connects_to = [service.web]\n \
         retries = 2\n timeout = \"5s\"\n env = { N = 1, OFF = null, AT = \"http://${service.web.name}.internal\" }\n}\n",
    );
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_eq!(stack.services.values().next().unwrap().settings.depends_on, [a, b]);
    let job = &stack.jobs[&"b".parse().unwrap()];
    assert_eq!((job.retries, job.timeout, job.depends_on.len()), (2, Millis::seconds(5), 1));
    assert_eq!(job.release.connects_to, ["web".parse().unwrap()]);
    let env: Vec<(&str, &str)> = job.release.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("AT", "http://web.internal"), ("N", "1")]);
}

#[test]
fn paths_begin_at_the_stacks_folder() {
    let text = "image \"a\" {\n from = \"oci-archive:./app.toml.tpl\"\n copy \"app.toml.tpl\" { to = \"/etc//x/\" }\n}\njob \"j\" { image = image.a }";
    let stack = stack(text);
    let bake = stack.images.values().next().unwrap();
    assert_eq!(bake.from, BakeFrom::Image(ImageSource::Reference("oci-archive:/s/app.toml.tpl".to_owned())));
    assert!(
        serde_json::to_string(&bake.steps).unwrap().contains(r#""from":{"machine":"/s/app.toml.tpl"},"to":"/etc/x/""#)
    );
}

#[test]
fn a_folder_is_one_stack() {
    let files = Memory::new(&[
        ("/x/my-shop/b.hcl", "job \"j\" {\n image = \"x\"\n env = { A = local.a }\n}"),
        ("/x/my-shop/a.hcl", "locals { a = \"1\" }"),
        ("/x/my-shop/.hidden.hcl", "not hcl"),
        ("/x/my-shop/deeper/c.hcl", "not hcl"),
    ]);
    let loaded = load_from(&files, Path::new("/x/my-shop"), &Inputs::default());
    assert_eq!(loaded.stack.unwrap().name.as_str(), "my-shop");
    assert_eq!(loaded.name.unwrap().as_str(), "my-shop");
}

#[test]
fn variables_come_from_outside() {
    let text = "variable \"a\" { default = \"0\" }\nvariable \"n\" { type = number }\nvariable \"l\" { default = [] }\n\
                job \"j\" {\n image = \"x\"\n env = { A = var.a, N = var.n + 1, L = join(\",\", var.l) }\n}\n";
    let files = Memory::new(&[("/s/s.hcl", text), ("/v.hcl", "a = \"file\"\nn = 5\nl = [\"x\", \"y\"]\n")]);
    let check = |vars: &[(&str, &str)], environment: &[(&str, &str)], var_file: bool, expected: &str| {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let var_files = if var_file { vec!["/v.hcl".into()] } else { Vec::new() };
        let inputs = Inputs { vars: map(vars), process: map(environment), var_files, ..Inputs::default() };
        let loaded = load_from(&files, Path::new("/s/s.hcl"), &inputs);
        let found = match &loaded.stack {
            Some(stack) => serde_json::to_string(&stack.jobs.values().next().unwrap().release.env).unwrap(),
            None => loaded.diagnostics[0].to_string(),
        };
        assert_eq!(found, expected);
    };
    check(&[("n", "1")], &[], false, r#"{"A":"0","L":"","N":"2"}"#);
    check(&[("n", "1"), ("a", "7")], &[("a", "6")], false, r#"{"A":"7","L":"","N":"2"}"#);
    check(&[("l", "[\"q\", 1]")], &[("n", "3")], false, r#"{"A":"0","L":"q,1","N":"4"}"#);
    check(&[], &[("a", "env")], true, r#"{"A":"file","L":"x,y","N":"6"}"#);
    check(&[("a", "cli")], &[("other", "ignored")], true, r#"{"A":"cli","L":"x,y","N":"6"}"#);
    check(&[], &[], false, "/s/s.hcl:2:10: the variable `n` has no value");
    check(&[("n", "x")], &[], false, "--var n:1:1: expected a number, found a string `x`");
    check(&[("n", "1"), ("m", "1")], &[], false, "--var m: there is no variable `m`");
    check(&[("n", "1"), ("l", "[")], &[], false, "--var l:1:1: not a value: expected `]`");
}

#[test]
fn the_same_text_gives_the_same_release() {
    let id = |text: &str| stack(text).services.values().next().unwrap().release.id();
    let swapped = SHOP.replace("LOG = \"info\"", "LOG = upper(\"info\") == \"INFO\" ? \"info\" : \"\"");
    assert_eq!(id(SHOP), id(&swapped));
    assert_ne!(id(SHOP), id(&SHOP.replace("info", "debug")));
    assert_eq!(id(SHOP), id(&SHOP.replace("instances = 4", "instances = 5")), "not in the release");
}
