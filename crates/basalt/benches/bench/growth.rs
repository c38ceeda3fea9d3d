//! A gateway alone, with growing route tables: how long one takes to be in force, what it weighs, and whether running
//! requests notice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use basalt_gateway::GatewayRouter;
use basalt_model::{
    Health, HealthCheck, InstanceRoute, Millis, Name, Port, Protocol, ReleaseRoutes, Route, RouteTable, Rules,
    ServiceRoutes, Weight,
};
use basalt_seam::Router as _;

use crate::app;
use crate::gateway::wrk;
use crate::harness::{free_address, get, wait_until};
use crate::measure::{command, median, millis, output, resident};
use crate::table::Row;

/// The most services.
const MOST: u32 = 10_000;
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
    let (tell, told) = std::sync::mpsc::channel();
    let router = GatewayRouter::connect(
        folder.path().join("run/gateway.sock"),
        Arc::new(move || {
            let _ = tell.send(());
        }),
    );
    wait_until("the gateway is there", Duration::from_secs(20), || router.seen().connected);
    let mut table = RouteTable::default();
    let mut swap = |services: Services| {
        table.version += 1;
        table.services.extend(services);
        let (version, table) = (table.version, Arc::new(table.clone()));
        millis(|| {
            router.set(table);
            while router.seen().version < version {
                // Who looks again and again takes the processor from those who are measured.
                told.recv().unwrap();
            }
        })
    };
    let port = app_address.port();
    let mut rows = Vec::new();
    for count in [10, 100, 1_000, MOST] {
        let times = (0..TABLES).map(|n| swap(services(0..count, n, port))).collect();
        rows.push(Row::alone(&format!("{count} routes and instances in force"), "ms", median(times), "linear"));
        rows.push(Row::alone("… memory of the gateway", "MiB", resident(gateway), "linear"));
    }
    let times = (0..TABLES).map(|n| swap(services(7..8, TABLES + n, port))).collect();
    rows.push(Row::alone(&format!("one of {MOST} in force"), "ms", median(times), "–"));
    wait_until("requests are answered", Duration::from_secs(20), || get(http, "/").0 == 200);

    let load = || wrk(http, 4, "-c64", "/").p99;
    let mut nth = 100;
    // Returns how often the table has come, too.
    let mut meanwhile = |changed: u32, pause: Duration| {
        let (ended, before) = (AtomicBool::new(false), nth);
        let p99 = std::thread::scope(|scope| {
            let loaded = scope.spawn(|| {
                let p99 = load();
                ended.store(true, SeqCst);
                p99
            });
            while !ended.load(SeqCst) {
                nth += 1;
                swap(services(0..changed, nth, port));
                std::thread::sleep(pause);
            }
            loaded.join().unwrap()
        });
        (p99, (nth - before) as f64)
    };
    // A percentile of four seconds moves by itself: all kinds in one run, and their medians.
    let [mut quiet, mut one, mut all]: [Vec<(f64, f64)>; 3] = Default::default();
    for _ in 0..ROUNDS {
        quiet.push((load(), 0.0));
        one.push(meanwhile(1, Duration::from_millis(100)));
        all.push(meanwhile(MOST, Duration::from_millis(500)));
    }
    let medians = |measured: Vec<(f64, f64)>| {
        let (p99, came) = measured.into_iter().unzip();
        (median(p99), median(came))
    };
    let (quiet, _) = medians(quiet);
    for (what, measured) in [("one", one), ("all", all)] {
        let (p99, came) = medians(measured);
        rows.push(Row::beside(&format!("p99 while {what} of {MOST} change"), "ms", p99, "none does", quiet, "1 ×"));
        rows.push(Row::alone("… how often within 4 s", "", came, "–"));
    }
    rows
}

type Services = BTreeMap<Name, Arc<ServiceRoutes>>;

/// Returns services that have a host and an instance of their own each; the first answers to any host. All instances are one program,
/// which listens on all of loopback. The `nth` of a service differs from all others.
fn services(which: Range<u32>, nth: u64, port: u16) -> Services {
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
        let rules = Rules { timeout: Some(Millis(30_000 + nth)), ..Rules::default() };
        let routes = vec![Route { rules, ..Route::new(host.as_deref(), "/", http) }];
        let releases = BTreeMap::from([(1, release)]);
        (service, Arc::new(ServiceRoutes { routes, releases, ..ServiceRoutes::default() }))
    };
    which.map(service).collect()
}
