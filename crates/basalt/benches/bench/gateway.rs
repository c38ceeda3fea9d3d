//! Requests per second through the gateway and other proxies, to the same two instances.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::app;
use crate::harness::Basalt;
use crate::measure::{command, median, percentile, resident, run, run_to_end};
use crate::peers::{Doors, PEERS, certify};
use crate::table::Row;

/// Turns that each pair takes; within a turn one directly follows the other.
const TURNS: usize = 3;

/// What `wrk` or `h2load` has found; `p99` is in milliseconds.
#[derive(Clone, Copy)]
pub struct Rate {
    per_second: f64,
    pub p99: f64,
}

/// How clients come, and what they ask for.
struct Client {
    name: &'static str,
    seconds: u32,
    rate: fn(Doors, u32) -> Rate,
    /// Whether it takes a port for both HTTP/1 and cleartext HTTP/2.
    both_in_clear: bool,
}

const CLIENTS: [Client; 7] = [
    client("keep-alive, small body", 4, |to, s| wrk(to.plain, s, "-c64", "/")),
    client("a connection for each request", 2, |to, s| wrk_to(&plain(to), s, "-c64", &[CLOSE])),
    client("bodies of 1 MiB", 2, |to, s| wrk(to.plain, s, "-c16", "/large")),
    client("TLS, keep-alive, small body", 3, |to, s| wrk_to(&secure(to), s, "-c64", &[])),
    client("TLS, a connection for each request", 2, |to, s| wrk_to(&secure(to), s, "-c64", &[CLOSE])),
    client("TLS, HTTP/2, small body", 2, |to, s| h2load(&secure(to), s)),
    Client { both_in_clear: true, ..client("cleartext HTTP/2, small body", 2, |to, s| h2load(&plain(to), s)) },
];

const fn client(name: &'static str, seconds: u32, rate: fn(Doors, u32) -> Rate) -> Client {
    Client { name, seconds, rate, both_in_clear: false }
}

/// With the blank: `wrk` passes over a header without it, and says nothing.
const CLOSE: &str = "Connection: close";

fn plain(doors: Doors) -> String {
    format!("http://{}/", doors.plain)
}

fn secure(doors: Doors) -> String {
    format!("https://localhost:{}/", doors.secure.port())
}

/// How many idle connections the memory of one is measured with: memory comes in steps of up to 2 MiB (huge pages), and a step is then
/// half a KiB of each; and the gateway grants 4,096 to a client.
const IDLE: usize = 3900;

/// The memory of idle connections; then requests of each kind, pair by pair.
pub fn throughput() -> Vec<Row> {
    let mut basalt = Basalt::new();
    let (folder, doors) = (basalt.folder(), Doors { plain: basalt.http(), ..Doors::free() });
    certify(&folder);
    let at = folder.display();
    let secured = format!(
        "route {{\nhost = \"localhost\"\ntls {{\ncertificate = \"{at}/cert.pem\"\nkey = \"{at}/key.pem\"\n}}\n}}"
    );
    let stack = folder.join("app.hcl");
    std::fs::write(&stack, app::stack(&folder, &secured)).unwrap();
    basalt.up_path(&stack, &["--https", &doors.secure.to_string()]).expect(0);
    let instances = basalt.instances();
    let upstreams: Vec<SocketAddr> =
        instances.iter().map(|instance| instance["address"].as_str().unwrap().parse().unwrap()).collect();
    let mut rows = Vec::new();
    // Before all else: a process that was busy has memory to spare.
    let ours = idle(basalt.role("gateway").unwrap(), basalt.http());
    for peer in PEERS.iter().filter(|peer| peer.one_process) {
        let Some(proxy) = peer.start(&upstreams) else { continue };
        let theirs = idle(proxy.pid(), proxy.doors.plain);
        rows.push(Row::beside("memory of an idle connection", "KiB", ours, peer.name, theirs, "≤ 1.0 ×"));
    }
    for client in CLIENTS {
        for peer in PEERS.iter().filter(|peer| peer.both_in_clear || !client.both_in_clear) {
            let Some(proxy) = peer.start(&upstreams) else { continue };
            let rate = |to| (client.rate)(to, client.seconds);
            let turns: Vec<(Rate, Rate)> = (0..TURNS).map(|_| (rate(doors), rate(proxy.doors))).collect();
            let middle = |of: fn(&(Rate, Rate)) -> f64| median(turns.iter().map(of).collect());
            let (ours, theirs) = (middle(|turn| turn.0.per_second), middle(|turn| turn.1.per_second));
            rows.push(Row::beside(client.name, "requests/s", ours, peer.name, theirs, peer.budget));
            let (ours, theirs) = (middle(|turn| turn.0.p99), middle(|turn| turn.1.p99));
            rows.push(Row::beside("… p99", "ms", ours, peer.name, theirs, "≤ 1.0 ×"));
        }
    }
    basalt.stop();
    rows
}

/// Returns what a connection costs a proxy that has a hundred already, in KiB.
fn idle(pid: u32, address: SocketAddr) -> f64 {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let connections = |count: usize| -> Vec<TcpStream> { (0..count).map(|_| used_once(address)).collect() };
    let _first = connections(100);
    let before = resident(pid);
    let more = connections(IDLE);
    (resident(pid) - before) * 1024.0 / more.len() as f64
}

/// Returns a connection on which one request was answered.
fn used_once(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream
}

/// Asks one path of a server over HTTP/1.1.
pub fn wrk(address: SocketAddr, seconds: u32, options: &str, path: &str) -> Rate {
    wrk_to(&format!("http://{address}{path}"), seconds, options, &[])
}

pub fn wrk_to(url: &str, seconds: u32, options: &str, headers: &[&str]) -> Rate {
    let mut wrk = command(&format!("wrk -t1 -d{seconds}s --latency {options} {url}"));
    for header in headers {
        wrk.args(["-H", header]);
    }
    let out = run_to_end(wrk);
    let value =
        |name: &str| out.lines().find_map(|line| line.trim().strip_prefix(name)).map(|rest| rest.trim().to_owned());
    let per_second = value("Requests/sec:").and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{out}"));
    assert!(!out.contains("Non-2xx"), "{out}");
    Rate { per_second, p99: value("99%").map_or(0.0, |text| in_millis(&text)) }
}

/// It tells no percentiles, but writes down each request: when it began, its status, and how many microseconds it took.
fn h2load(url: &str, seconds: u32) -> Rate {
    let log = tempfile::NamedTempFile::new().unwrap();
    let out = run(&format!("h2load -t1 -c16 -m8 -D{seconds} --log-file={} {url}", log.path().display()));
    let per_second = out.lines().find_map(|line| line.strip_prefix("finished in ")?.split(", ").nth(1));
    let per_second = per_second.and_then(|text| text.strip_suffix(" req/s")?.parse().ok());
    assert!(out.contains(" 0 3xx, 0 4xx, 0 5xx"), "{out}");
    let log = std::fs::read_to_string(log.path()).unwrap();
    let micros = log.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap()).collect();
    Rate { per_second: per_second.unwrap_or_else(|| panic!("{out}")), p99: percentile(micros, 99.0) / 1000.0 }
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
