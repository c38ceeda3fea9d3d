//! Requests per second through the gateway and other proxies, to the same two instances.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::harness::{Basalt, Stack, get, wait_until};
use crate::measure::{command, median, output, resident, run};
use crate::table::Row;

/// Turns that each pair takes; within a turn one directly follows the other.
const TURNS: usize = 3;

/// What `wrk` or `h2load` has found; without percentiles `p99` is 0.
#[derive(Clone, Copy)]
pub struct Rate {
    per_second: f64,
    pub p99: f64,
}

/// A proxy under comparison, stopped when dropped.
struct Proxy {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        output(&format!("kill {}", self.child.id()));
        let _ = self.child.wait();
    }
}

/// How clients come, and what they ask for.
struct Client {
    name: &'static str,
    seconds: u32,
    rate: fn(SocketAddr, u32) -> Rate,
    /// Whether nginx takes part: it has no port for both HTTP/1 and cleartext HTTP/2.
    nginx: bool,
}

const CLIENTS: [Client; 4] = [
    Client { name: "keep-alive, small body", seconds: 4, rate: |to, s| wrk(to, s, "-c64", "/"), nginx: true },
    Client {
        name: "a connection for each request",
        seconds: 2,
        rate: |to, s| wrk(to, s, "-c64 -H Connection:close", "/"),
        nginx: true,
    },
    Client { name: "bodies of 1 MiB", seconds: 2, rate: |to, s| wrk(to, s, "-c16", "/file?/large"), nginx: true },
    Client { name: "cleartext HTTP/2, small body", seconds: 2, rate: h2load, nginx: false },
];

/// How many idle connections the memory of one is measured with: a process may have 1,024 files open, as a rule.
const IDLE: usize = 900;

/// Requests of each kind, pair by pair; then the memory of idle connections.
pub fn throughput() -> Vec<Row> {
    let mut basalt = Basalt::new();
    let large = format!("config \"/large\" {{ content = \"{}\" }}", "x".repeat(1 << 20));
    basalt.up(&Stack::new("one", "").instances(2).service(&large)).expect(0);
    let instances = basalt.instances();
    let upstreams: Vec<SocketAddr> =
        instances.iter().map(|instance| instance["address"].as_str().unwrap().parse().unwrap()).collect();
    let starters = [(nginx as Starter, "aim ≥ 1.0 ×"), (haproxy, "aim ≥ 1.0 ×"), (envoy, "≥ 1.0 ×")];
    let mut rows = Vec::new();
    for client in CLIENTS {
        for (start, budget) in &starters {
            let Some(proxy) = start(&upstreams).filter(|proxy| client.nginx || proxy.name != "nginx") else { continue };
            wait_until(&format!("{} serves", proxy.name), Duration::from_secs(20), || get(proxy.address, "/").0 == 200);
            let rate = |to| (client.rate)(to, client.seconds);
            let turns: Vec<(Rate, Rate)> = (0..TURNS).map(|_| (rate(basalt.http()), rate(proxy.address))).collect();
            let middle = |of: fn(&(Rate, Rate)) -> f64| median(turns.iter().map(of).collect());
            let (ours, theirs) = (middle(|turn| turn.0.per_second), middle(|turn| turn.1.per_second));
            rows.push(Row::beside(client.name, "requests/s", ours, proxy.name, theirs, budget));
            if turns.iter().all(|turn| turn.0.p99 > 0.0) {
                let (ours, theirs) = (middle(|turn| turn.0.p99), middle(|turn| turn.1.p99));
                rows.push(Row::beside("… p99", "ms", ours, proxy.name, theirs, "≤ 1.0 ×"));
            }
        }
    }
    let ours = idle(basalt.role("gateway").unwrap(), basalt.http());
    for start in [haproxy as Starter, envoy] {
        let Some(proxy) = start(&upstreams) else { continue };
        wait_until(&format!("{} serves", proxy.name), Duration::from_secs(20), || get(proxy.address, "/").0 == 200);
        let theirs = idle(proxy.child.id(), proxy.address);
        rows.push(Row::beside("memory of an idle connection", "KiB", ours, proxy.name, theirs, "≤ 1.0 ×"));
    }
    basalt.stop();
    rows
}

/// Returns what a connection costs a proxy that has been used once, in KiB.
fn idle(pid: u32, address: SocketAddr) -> f64 {
    let before = resident(pid);
    let connections: Vec<TcpStream> = (0..IDLE)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream
        })
        .collect();
    (resident(pid) - before) * 1024.0 / connections.len() as f64
}

type Starter = fn(&[SocketAddr]) -> Option<Proxy>;

pub fn wrk(address: SocketAddr, seconds: u32, options: &str, path: &str) -> Rate {
    let out = run(&format!("wrk -t1 -d{seconds}s --latency {options} http://{address}{path}"));
    let value =
        |name: &str| out.lines().find_map(|line| line.trim().strip_prefix(name)).map(|rest| rest.trim().to_owned());
    let per_second = value("Requests/sec:").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{out}"));
    assert!(!out.contains("Non-2xx"), "{out}");
    Rate { per_second, p99: value("99%").map_or(0.0, |text| in_millis(&text)) }
}

/// It tells no percentiles.
fn h2load(address: SocketAddr, seconds: u32) -> Rate {
    let out = run(&format!("h2load -t1 -c16 -m8 -D{seconds} http://{address}/"));
    let per_second = out.lines().find_map(|line| line.strip_prefix("finished in ")?.split(", ").nth(1));
    let per_second = per_second.and_then(|text| text.strip_suffix(" req/s")?.parse().ok());
    assert!(out.contains(" 0 3xx, 0 4xx, 0 5xx"), "{out}");
    Rate { per_second: per_second.unwrap_or_else(|| panic!("{out}")), p99: 0.0 }
}

/// Returns what `wrk` writes as `850.00us`, `1.20ms` or `1.10s`.
fn in_millis(text: &str) -> f64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..split].parse().unwrap_or(0.0);
    match &text[split..] {
        "us" => number / 1000.0,
        "s" => number * 1000.0,
        _ => number,
    }
}

fn start(name: &'static str, config: &dyn Fn(&Path, SocketAddr) -> (String, String)) -> Proxy {
    let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (text, line) = config(folder.path(), address);
    std::fs::write(folder.path().join("config"), text).unwrap();
    let child = command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.unwrap_or_else(|error| panic!("`{line}`: {error}"));
    Proxy { name, child, address, _folder: folder }
}

fn nginx(upstreams: &[SocketAddr]) -> Option<Proxy> {
    let servers: String = upstreams.iter().map(|address| format!("server {address};\n")).collect();
    Some(start("nginx", &|folder, address| {
        let at = folder.display();
        let text = format!(
            "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error;\nevents {{ worker_connections 1024; }}\n\
             http {{ access_log off; upstream app {{ {servers} keepalive 64; }}\n server {{ listen {address};\n location / \
             {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        );
        (text, format!("nginx -p {at} -e {at}/error -c {at}/config"))
    }))
}

fn haproxy(upstreams: &[SocketAddr]) -> Option<Proxy> {
    let servers: String =
        upstreams.iter().enumerate().map(|(n, address)| format!("  server s{n} {address}\n")).collect();
    Some(start("HAProxy", &|folder, address| {
        let text = format!(
            "global\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
             http-reuse always\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  balance roundrobin\n{servers}"
        );
        (text, format!("haproxy -db -f {}/config", folder.display()))
    }))
}

fn envoy(upstreams: &[SocketAddr]) -> Option<Proxy> {
    let program = PathBuf::from(std::env::var_os("BASALT_BENCH_ENVOY")?);
    let endpoint = |address: &SocketAddr| {
        serde_json::json!({"endpoint": {"address": {"socket_address":
            {"address": address.ip().to_string(), "port_value": address.port()}}}})
    };
    let endpoints: Vec<_> = upstreams.iter().map(endpoint).collect();
    Some(start("Envoy", &|folder, address| {
        let router = serde_json::json!({"name": "envoy.filters.http.router", "typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
        let manager = serde_json::json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "f", "http_filters": [router], "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}});
        let config = serde_json::json!({"static_resources": {
            "listeners": [{"name": "l", "address": {"socket_address":
                {"address": address.ip().to_string(), "port_value": address.port()}},
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": [{"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app",
                "endpoints": [{"lb_endpoints": endpoints}]}}]}});
        let line = format!(
            "{} --config-path {}/config.json --concurrency 2 --log-level off --use-dynamic-base-id",
            program.display(),
            folder.display()
        );
        // Envoy tells the form of its configuration by the file's name.
        std::fs::write(folder.join("config.json"), config.to_string()).expect("a temporary folder can be written");
        (config.to_string(), line)
    }))
}
