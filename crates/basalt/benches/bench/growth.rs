//! A gateway alone, with growing route tables: how long one takes to be in force, what it weighs, and whether running
//! requests notice.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use basalt_gateway::GatewayRouter;
use basalt_model::{
    Health, HealthCheck, InstanceRoute, Millis, Name, Port, Protocol, ReleaseRoutes, Route, RouteTable, ServiceRoutes,
    Weight,
};
use basalt_seam::Router as _;

use crate::app;
use crate::gateway::wrk;
use crate::harness::{free_address, get, wait_until};
use crate::measure::{command, median, millis, output, resident};
use crate::table::Row;

/// Tables of each size.
const TABLES: u64 = 5;

/// Times that load is measured without tables that come, and with.
const ROUNDS: u32 = 5;

/// Processes that are stopped at the end.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            output(&format!("kill {}", child.id()));
            let _ = child.wait();
        }
    }
}

/// Tables of as many routes as instances, each of a service of its own.
pub fn growth() -> Vec<Row> {
    let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
    let (app_address, http) = (free_address(), free_address());
    let quiet = |line: String| command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let program = env!("CARGO_BIN_EXE_basalt");
    let running = Running(vec![
        quiet(format!("nginx {}", app::set_up(folder.path(), app_address.port(), folder.path(), folder.path()))),
        quiet(format!("{program} --data {} gateway --http {http}", folder.path().display())),
    ]);
    let gateway = running.0[1].id();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _within = runtime.enter();
    let router = GatewayRouter::connect(folder.path().join("run/gateway.sock"), Arc::new(|| ()));
    wait_until("the gateway is there", Duration::from_secs(20), || router.seen().connected);
    let mut version = 0;
    let mut swap = |count: u32| {
        version += 1;
        let table = Arc::new(table(version, count, app_address.port()));
        millis(|| {
            router.set(table);
            while router.seen().version < version {
                std::thread::sleep(Duration::from_micros(100));
            }
        })
    };
    let mut rows = Vec::new();
    for count in [10, 100, 1_000, 10_000] {
        let times = (0..TABLES).map(|_| swap(count)).collect();
        rows.push(Row::alone(&format!("{count} routes and instances in force"), "ms", median(times), "linear"));
        rows.push(Row::alone("… memory of the gateway", "MiB", resident(gateway), "linear"));
    }
    wait_until("requests are answered", Duration::from_secs(20), || get(http, "/").0 == 200);
    let load = |to: SocketAddr| wrk(to, 4, "-c64", "/").p99;
    let mut swapped = 0;
    // A percentile of four seconds moves by itself: pairs in one run, and their medians.
    let pairs = (0..ROUNDS).map(|_| {
        let quiet = load(http);
        let ended = AtomicBool::new(false);
        let meanwhile = std::thread::scope(|scope| {
            let loaded = scope.spawn(|| {
                let p99 = load(http);
                ended.store(true, SeqCst);
                p99
            });
            while !ended.load(SeqCst) {
                swap(10_000);
                swapped += 1;
                std::thread::sleep(Duration::from_millis(500));
            }
            loaded.join().unwrap()
        });
        (meanwhile, quiet)
    });
    let (meanwhile, quiet): (Vec<f64>, Vec<f64>) = pairs.unzip();
    let (meanwhile, quiet) = (median(meanwhile), median(quiet));
    rows.push(Row::beside("p99 while tables of 10000 come", "ms", meanwhile, "none comes", quiet, "1 ×"));
    rows.push(Row::alone("… how many came within 4 s", "", f64::from(swapped) / f64::from(ROUNDS), "–"));
    rows
}

/// Returns a table in which each of `count` services has a host and an instance of its own; the first answers to any host.
/// All instances are one program, which listens on all of loopback.
fn table(version: u64, count: u32, port: u16) -> RouteTable {
    let service = |n: u32| {
        let name = |text: String| -> Name { text.parse().unwrap() };
        let (service, http) = (name(format!("service-{n}")), name("http".to_owned()));
        let host = (n > 0).then(|| format!("service-{n}.example.com"));
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n);
        let instance = InstanceRoute { address, generation: 1, healthy: Some(true) };
        let release = ReleaseRoutes {
            weight: Weight::ALL,
            ports: [(http.clone(), Port::new(port, Protocol::Http))].into(),
            health: Health { check: HealthCheck::Running, ..Health::default() },
            drain: Millis::seconds(4),
            instances: [(format!("{service}-1-1").parse().unwrap(), instance)].into(),
        };
        let routes = vec![Route::new(host.as_deref(), "/", http)];
        let releases = BTreeMap::from([(1, release)]);
        (service, Arc::new(ServiceRoutes { routes, releases, ..ServiceRoutes::default() }))
    };
    RouteTable { version, services: (0..count).map(service).collect() }
}
