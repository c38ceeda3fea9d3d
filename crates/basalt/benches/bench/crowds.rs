//! Proxies with as many routes as upstreams, and how each is told of another configuration while it serves.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::now;
use crate::measure::{Running, command, family, millis, run, run_to_end};
use crate::peers::{Doors, program};

/// The host of the service with this number.
pub fn host(n: u32) -> String {
    format!("service-{n}.example.com")
}

/// Where the service with this number has its instance. All are one program, which listens on all of loopback.
pub fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n)
}

/// HAProxy loses a signal that comes before it is done with all that the last one asked for, which takes it longer than to serve:
/// it is given this time, and told again after that.
const SETTLING: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(20);
/// How often it is told at most.
const TIMES: usize = 4;

/// What a proxy is told: a route and an upstream for each service, and for the first one a route more, which tells its configurations
/// apart.
struct Setting<'a> {
    folder: &'a Path,
    door: SocketAddr,
    /// The port of all upstreams.
    port: u16,
    services: u32,
    nth: u32,
}

impl Setting<'_> {
    /// Writes a file of the configuration, whole or not at all.
    fn write(&self, name: &str, text: &str) {
        let (new, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn hosts(&self, n: u32) -> Vec<String> {
        let mark = (n == 0).then(|| mark(self.nth));
        [Some(host(n)), mark].into_iter().flatten().collect()
    }

    fn upstream(&self, n: u32) -> String {
        format!("{}:{}", address(n), self.port)
    }

    /// Returns one text for all services.
    fn each(&self, one: impl Fn(u32) -> String) -> String {
        (0..self.services).map(one).collect()
    }
}

/// The host that only the configuration with this number has.
fn mark(nth: u32) -> String {
    format!("configuration-{nth}.example.com")
}

/// A kind of proxy.
pub struct Crowd {
    pub name: &'static str,
    /// Writes its configuration.
    write: fn(&Setting),
    /// Returns its command line; `None` if the program is not there.
    start: fn(&Setting) -> Option<String>,
    /// Has the process take the configuration that was written, if it does not see that by itself.
    tell: fn(&Setting, u32),
}

pub const CROWDS: [Crowd; 5] = [
    Crowd { name: "nginx", write: nginx, start: start_nginx, tell: |_, pid| drop(run(&format!("kill -HUP {pid}"))) },
    Crowd {
        name: "HAProxy",
        write: haproxy,
        start: start_haproxy,
        tell: |_, pid| drop(run(&format!("kill -USR2 {pid}"))),
    },
    Crowd { name: "Envoy", write: envoy, start: start_envoy, tell: |_, _| {} },
    Crowd { name: "Caddy", write: caddy, start: start_caddy, tell: tell_caddy },
    Crowd { name: "Traefik", write: traefik, start: start_traefik, tell: |_, _| {} },
];

/// A proxy that runs, stopped when dropped.
pub struct Started<'c> {
    crowd: &'c Crowd,
    process: Running,
    folder: tempfile::TempDir,
    pub door: SocketAddr,
    port: u16,
    services: u32,
    nth: u32,
}

impl Crowd {
    /// Starts it with so many services, whose instances are all on one port, and waits until it serves; `None` if it is not installed.
    pub fn start(&self, port: u16, services: u32) -> Option<Started<'_>> {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
        let door = Doors::free().plain;
        let setting = Setting { folder: folder.path(), door, port, services, nth: 0 };
        let line = (self.start)(&setting)?;
        (self.write)(&setting);
        let process = Running::start(&line, folder.path());
        let started = Started { crowd: self, process, folder, door, port, services, nth: 0 };
        assert!(started.is_in_force(), "{} does not serve", self.name);
        Some(started)
    }
}

impl Started<'_> {
    /// Has it take another configuration, in which one service has changed. Returns the milliseconds until that was in force.
    pub fn change(&mut self) -> f64 {
        self.nth += 1;
        let setting = self.setting();
        let took = millis(|| {
            (self.crowd.write)(&setting);
            let takes_it = |_| {
                (self.crowd.tell)(&setting, self.process.pid());
                self.is_in_force()
            };
            assert!((0..TIMES).any(takes_it), "{} takes nothing else", self.crowd.name);
        });
        std::thread::sleep(SETTLING);
        took
    }

    /// Returns the memory of all its processes, in MiB.
    pub fn memory(&self) -> f64 {
        family(self.process.pid())
    }

    fn setting(&self) -> Setting<'_> {
        let Self { door, port, services, nth, .. } = *self;
        Setting { folder: self.folder.path(), door, port, services, nth }
    }

    /// Waits for a while until the configuration is in force; returns whether it is.
    fn is_in_force(&self) -> bool {
        let (host, begun) = (mark(self.nth), now());
        while begun.elapsed() < AGAIN {
            if status(self.door, &host) == Some(200) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

/// Returns the status of a host's answer.
pub fn status(door: SocketAddr, host: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(door).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn nginx(set: &Setting) {
    let at = set.folder.display();
    let mut text = format!(
        "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error;\nevents {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 1000000; server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n\
         server {{ listen {} default_server; return 404; }}\n",
        set.door
    );
    text += &set.each(|n| {
        format!(
            "upstream u{n} {{ server {}; keepalive 64; }}\nserver {{ listen {}; server_name {}; location / {{ proxy_pass http://u{n}; \
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n",
            set.upstream(n),
            set.door,
            set.hosts(n).join(" ")
        )
    });
    set.write("config", &(text + "}\n"));
}

fn start_nginx(set: &Setting) -> Option<String> {
    let at = set.folder.display();
    Some(format!("nginx -p {at} -e {at}/error -c {at}/config"))
}

fn haproxy(set: &Setting) {
    let at = set.folder.display();
    set.write("hosts", &set.each(|n| set.hosts(n).iter().map(|host| format!("{host} b{n}\n")).collect()));
    let mut text = format!(
        "global\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
         http-reuse always\nfrontend f\n  bind {}\n  use_backend %[req.hdr(host),lower,map_str({at}/hosts)]\n",
        set.door
    );
    text += &set.each(|n| format!("backend b{n}\n  server s {}\n", set.upstream(n)));
    set.write("config", &text);
}

fn start_haproxy(set: &Setting) -> Option<String> {
    Some(format!("haproxy -W -f {}/config", set.folder.display()))
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// It takes routes and clusters from files of their own, each of which it reads when it is replaced: only the routes ever are.
fn envoy(set: &Setting) {
    let virtual_host = |n: u32| {
        json!({"name": format!("v{n}"), "domains": set.hosts(n),
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": format!("c{n}")}}]})
    };
    let routes = json!({"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "routes",
        "virtual_hosts": (0..set.services).map(virtual_host).collect::<Vec<_>>()});
    set.write("routes.json", &json!({"version_info": set.nth.to_string(), "resources": [routes]}).to_string());
    if set.nth > 0 {
        return;
    }
    let cluster = |n: u32| {
        let endpoint = json!({"endpoint": {"address": socket(SocketAddr::new(address(n).into(), set.port))}});
        json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": format!("c{n}"), "type": "STATIC",
            "load_assignment": {"cluster_name": format!("c{n}"), "endpoints": [{"lb_endpoints": [endpoint]}]}})
    };
    let clusters: Vec<_> = (0..set.services).map(cluster).collect();
    set.write("clusters.json", &json!({"version_info": "0", "resources": clusters}).to_string());
    let file =
        |name: &str| json!({"path_config_source": {"path": set.folder.join(name)}, "resource_api_version": "V3"});
    let router = json!({"name": "envoy.filters.http.router", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "f", "http_filters": [router],
        "rds": {"route_config_name": "routes", "config_source": file("routes.json")}});
    let filters = json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    let config = json!({"node": {"id": "bench", "cluster": "bench"},
        "dynamic_resources": {"cds_config": file("clusters.json")},
        "static_resources": {"listeners": [{"name": "plain", "address": socket(set.door), "filter_chains": [{"filters": filters}]}]}});
    set.write("config.json", &config.to_string());
}

fn start_envoy(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_ENVOY")?;
    let options = "--concurrency 2 --log-level off --use-dynamic-base-id";
    Some(format!("{} --config-path {}/config.json {options}", program.display(), set.folder.display()))
}

fn caddy(set: &Setting) {
    let route = |n: u32| {
        json!({"match": [{"host": set.hosts(n)}], "terminal": true,
            "handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": set.upstream(n)}]}]})
    };
    let routes: Vec<_> = (0..set.services).map(route).collect();
    let server = json!({"listen": [set.door], "automatic_https": {"disable": true}, "routes": routes});
    let admin = format!("unix/{}/admin", set.folder.display());
    let config =
        json!({"admin": {"listen": admin, "config": {"persist": false}}, "apps": {"http": {"servers": {"s": server}}}});
    set.write("config.json", &config.to_string());
}

fn start_caddy(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_CADDY")?;
    Some(format!("{} run --config {}/config.json", program.display(), set.folder.display()))
}

fn tell_caddy(set: &Setting, _: u32) {
    let at = set.folder.display();
    let mut curl =
        command(&format!("curl -sf --unix-socket {at}/admin --data-binary @{at}/config.json http://localhost/load"));
    curl.args(["-H", "Content-Type: application/json"]);
    run_to_end(curl);
}

/// It sees by itself that the file was replaced.
fn traefik(set: &Setting) {
    // It takes no JSON, but JSON is YAML too; a line each keeps the text short.
    let mut text = "http:\n  routers:\n".to_owned();
    for n in 0..set.services {
        let rule: Vec<_> = set.hosts(n).iter().map(|host| format!("Host(`{host}`)")).collect();
        let router = json!({"entryPoints": ["plain"], "rule": rule.join(" || "), "service": format!("s{n}"), "priority": set.services - n});
        writeln!(text, "    r{n}: {router}").unwrap();
    }
    text += "  services:\n";
    text += &set.each(|n| {
        let url = format!("http://{}", set.upstream(n));
        format!("    s{n}: {}\n", json!({"loadBalancer": {"servers": [{"url": url}]}}))
    });
    set.write("routes.yml", &text);
}

fn start_traefik(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_TRAEFIK")?;
    Some(format!(
        "{} --entrypoints.plain.address={} --providers.file.filename={}/routes.yml --log.level=ERROR \
         --global.checknewversion=false --global.sendanonymoususage=false",
        program.display(),
        set.door,
        set.folder.display()
    ))
}
