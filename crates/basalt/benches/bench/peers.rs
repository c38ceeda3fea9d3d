//! The proxies beside which the gateway is measured, each as it is set up by default for two cores, in clear and over TLS.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{get, wait_until};
use crate::measure::{Running, run};

/// Where a proxy is reached.
#[derive(Clone, Copy)]
pub struct Doors {
    /// In clear.
    pub plain: SocketAddr,
    /// Over TLS, as `localhost`.
    pub secure: SocketAddr,
}

impl Doors {
    /// Returns doors that nobody else has.
    pub fn free() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { plain: free(), secure: free() }
    }
}

/// A proxy under comparison, stopped when dropped.
pub struct Proxy {
    pub doors: Doors,
    process: Running,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Returns the id of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A proxy that can be started.
pub struct Peer {
    pub name: &'static str,
    pub budget: &'static str,
    /// Whether it has one port for both HTTP/1 and cleartext HTTP/2.
    pub both_in_clear: bool,
    /// Whether one process has all connections.
    pub one_process: bool,
    /// Writes its configuration and returns its command line; `None` if the program is not there.
    set_up: fn(&Setting) -> Option<String>,
}

/// What a proxy is told.
struct Setting<'a> {
    folder: &'a Path,
    doors: Doors,
    upstreams: &'a [SocketAddr],
}

impl Setting<'_> {
    /// Writes a file of the configuration.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).unwrap();
    }
}

const NGINX: Peer =
    Peer { name: "nginx", budget: "aim ≥ 1.0 ×", both_in_clear: false, one_process: false, set_up: nginx };
const HAPROXY: Peer =
    Peer { name: "HAProxy", budget: "aim ≥ 1.0 ×", both_in_clear: true, one_process: true, set_up: haproxy };
const ENVOY: Peer = Peer { name: "Envoy", budget: "≥ 1.0 ×", both_in_clear: true, one_process: true, set_up: envoy };
const CADDY: Peer = Peer { name: "Caddy", budget: "≥ 1.0 ×", both_in_clear: true, one_process: true, set_up: caddy };
const TRAEFIK: Peer =
    Peer { name: "Traefik", budget: "≥ 1.0 ×", both_in_clear: true, one_process: true, set_up: traefik };

pub const PEERS: [Peer; 5] = [NGINX, HAPROXY, ENVOY, CADDY, TRAEFIK];

impl Peer {
    /// Starts it before two instances and waits until it serves; `None` if it is not installed.
    pub fn start(&self, upstreams: &[SocketAddr]) -> Option<Proxy> {
        let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
        let doors = Doors::free();
        certify(folder.path());
        let line = (self.set_up)(&Setting { folder: folder.path(), doors, upstreams })?;
        let process = Running::start(&line, folder.path());
        let proxy = Proxy { doors, process, _folder: folder };
        wait_until(&format!("{} serves", self.name), Duration::from_secs(20), || get(doors.plain, "/").0 == 200);
        Some(proxy)
    }
}

/// Writes `cert.pem`, `key.pem` and `both.pem` for `localhost` into a folder.
pub fn certify(folder: &Path) {
    let at = folder.display();
    run(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=DNS:localhost -keyout {at}/key.pem -out {at}/cert.pem"
    ));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    std::fs::write(folder.join("both.pem"), read("cert.pem") + &read("key.pem")).unwrap();
}

fn nginx(set: &Setting) -> Option<String> {
    let at = set.folder.display();
    let servers: String = set.upstreams.iter().map(|address| format!("server {address};\n")).collect();
    let Doors { plain, secure } = set.doors;
    let text = format!(
        "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error;\nevents {{ worker_connections 1024; }}\n\
         http {{ access_log off; upstream app {{ {servers} keepalive 64; }}\n server {{ listen {plain}; listen {secure} ssl http2;\n \
         ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {at}/cert.pem; ssl_certificate_key {at}/key.pem; keepalive_requests 1000000;\n location / \
         {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    set.write("config", &text);
    Some(format!("nginx -p {at} -e {at}/error -c {at}/config"))
}

fn haproxy(set: &Setting) -> Option<String> {
    let at = set.folder.display();
    let servers: String =
        set.upstreams.iter().enumerate().map(|(n, address)| format!("  server s{n} {address}\n")).collect();
    let Doors { plain, secure } = set.doors;
    let text = format!(
        "global\n  nbthread 2\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
         http-reuse always\nfrontend f\n  bind {plain}\n  bind {secure} ssl crt {at}/both.pem alpn h2,http/1.1\n  \
         default_backend b\nbackend b\n  balance roundrobin\n{servers}"
    );
    set.write("config", &text);
    Some(format!("haproxy -db -f {at}/config"))
}

fn envoy(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_ENVOY")?;
    let at = set.folder.display();
    let socket = |address: SocketAddr| serde_json::json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let endpoints: Vec<_> =
        set.upstreams.iter().map(|address| serde_json::json!({"endpoint": {"address": socket(*address)}})).collect();
    let router = serde_json::json!({"name": "envoy.filters.http.router", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    let manager = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "f", "http_filters": [router], "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}});
    let filters =
        serde_json::json!([{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]);
    let certificate = serde_json::json!({"certificate_chain": {"filename": format!("{at}/cert.pem")}, "private_key": {"filename": format!("{at}/key.pem")}});
    let tls = serde_json::json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate]}}});
    let config = serde_json::json!({"static_resources": {
        "listeners": [
            {"name": "plain", "address": socket(set.doors.plain), "filter_chains": [{"filters": filters}]},
            {"name": "secure", "address": socket(set.doors.secure), "filter_chains": [{"filters": filters, "transport_socket": tls}]}],
        "clusters": [{"name": "app", "type": "STATIC", "load_assignment": {"cluster_name": "app",
            "endpoints": [{"lb_endpoints": endpoints}]}}]}});
    set.write("config.json", &config.to_string());
    let options = "--concurrency 2 --log-level off --use-dynamic-base-id";
    Some(format!("{} --config-path {at}/config.json {options}", program.display()))
}

fn caddy(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_CADDY")?;
    let at = set.folder.display();
    let upstreams: String = set.upstreams.iter().map(|address| format!(" {address}")).collect();
    let Doors { plain, secure } = set.doors;
    let text = format!(
        "{{\n admin off\n persist_config off\n auto_https off\n servers {{\n  protocols h1 h2 h2c\n }}\n}}\n\
         http://:{} {{\n bind 127.0.0.1\n reverse_proxy{upstreams} {{\n  lb_policy round_robin\n }}\n}}\n\
         https://localhost:{} {{\n bind 127.0.0.1\n tls {at}/cert.pem {at}/key.pem\n reverse_proxy{upstreams} {{\n  \
         lb_policy round_robin\n }}\n}}\n",
        plain.port(),
        secure.port()
    );
    set.write("config", &text);
    Some(format!("{} run --config {at}/config --adapter caddyfile", program.display()))
}

fn traefik(set: &Setting) -> Option<String> {
    let program = program("BASALT_BENCH_TRAEFIK")?;
    let at = set.folder.display();
    let Doors { plain, secure } = set.doors;
    let servers: Vec<_> =
        set.upstreams.iter().map(|address| serde_json::json!({"url": format!("http://{address}")})).collect();
    let router = |door: &str| serde_json::json!({"entryPoints": [door], "rule": "PathPrefix(`/`)", "service": "app"});
    let mut over_tls = router("secure");
    over_tls["tls"] = serde_json::json!({});
    let config = serde_json::json!({
        "http": {"routers": {"plain": router("plain"), "secure": over_tls},
            "services": {"app": {"loadBalancer": {"servers": servers}}}},
        "tls": {"certificates": [{"certFile": format!("{at}/cert.pem"), "keyFile": format!("{at}/key.pem")}]}});
    // It takes no JSON, but JSON is YAML too.
    set.write("routes.yml", &config.to_string());
    Some(format!(
        "{} --entrypoints.plain.address={plain} --entrypoints.secure.address={secure} --providers.file.filename={at}/routes.yml \
         --log.level=ERROR --global.checknewversion=false --global.sendanonymoususage=false",
        program.display()
    ))
}

/// Returns a program that is in no Debian archive; `scripts/bench` says where it is.
pub fn program(variable: &str) -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os(variable)?))
}
