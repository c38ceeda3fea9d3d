//! A gateway with growing route tables: how long one takes to be in force, what it weighs, and whether running requests notice;
//! and other proxies with as many routes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
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
use crate::crowds::{CROWDS, address, host, status};
use crate::gateway::wrk_to;
use crate::harness::{free_address, wait_until};
use crate::measure::{Running, family, median, millis};
use crate::table::Row;

/// The most services.
const MOST: u32 = 10_000;
/// Tables of each size.
const TABLES: u32 = 5;
/// Times that load is measured without tables that come, and with.
const ROUNDS: u32 = 5;
/// Seconds that it is measured at a time.
const SECONDS: u32 = 4;
/// Pauses between tables of which one service changes, or all.
const ONE: (u32, Duration) = (1, Duration::from_millis(100));
const ALL: (u32, Duration) = (MOST, Duration::from_millis(500));

/// Tables of as many routes as instances, each of a service of its own; beside others, one service changes at a time.
pub fn growth() -> Vec<Row> {
    let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
    let (at, port) = (folder.path(), free_address().port());
    let _app = Running::start(&format!("nginx {}", app::set_up(at, port, at, at)), at);
    let mut rows = Vec::new();
    let ours = basalt(at, port, &mut rows);
    for crowd in &CROWDS {
        let Some(mut peer) = crowd.start(port, MOST) else { continue };
        let in_force = median((0..TABLES).map(|_| peer.change()).collect());
        let memory = peer.memory();
        let door = peer.door;
        let (quiet, with) = p99(door, [ONE], |_| peer.change());
        let theirs = Figures { in_force, memory, quiet, with: with[0] };
        let mut row = |what: &str, unit, of: fn(&Figures) -> f64, budget| {
            rows.push(Row::beside(what, unit, of(&ours), crowd.name, of(&theirs), budget));
        };
        row(&format!("one of {MOST} in force"), "ms", |it| it.in_force, "≤ 1.0 ×");
        row("… memory", "MiB", |it| it.memory, "≤ 1.0 ×");
        row("… p99 meanwhile, to that without", "×", |it| it.with.0 / it.quiet, "≤ 1.0 ×");
        row(&format!("… how often within {SECONDS} s"), "", |it| it.with.1, "–");
    }
    rows
}

/// What is compared: times in milliseconds, memory in MiB, and with changes how often they came.
struct Figures {
    in_force: f64,
    memory: f64,
    quiet: f64,
    with: (f64, f64),
}

/// Measures the gateway, and adds rows that nothing stands beside.
fn basalt(data: &Path, port: u16, rows: &mut Vec<Row>) -> Figures {
    let http = free_address();
    let program = env!("CARGO_BIN_EXE_basalt");
    let gateway = Running::start(&format!("{program} --data {} gateway --http {http}", data.display()), data);
    let memory = || family(gateway.pid());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _within = runtime.enter();
    let (tell, told) = std::sync::mpsc::channel();
    let router = GatewayRouter::connect(
        data.join("run/gateway.sock"),
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
    for count in [10, 100, 1_000, MOST] {
        let times = (0..TABLES).map(|n| swap(services(0..count, n, port))).collect();
        rows.push(Row::alone(&format!("{count} routes and instances in force"), "ms", median(times), "linear"));
        rows.push(Row::alone("… memory of the gateway", "MiB", memory(), "linear"));
    }
    let in_force = median((0..TABLES).map(|n| swap(services(7..8, TABLES + n, port))).collect());
    let memory = memory();
    wait_until("requests are answered", Duration::from_secs(20), || status(http, &host(0)) == Some(200));

    // Made before, so that this takes nothing from those who are measured.
    let both = |count: u32| [100, 101].map(|nth| services(0..count, nth, port));
    let (one, all) = (both(1), both(MOST));
    let mut nth = 0;
    let (quiet, with) = p99(http, [ONE, ALL], |changed| {
        nth += 1;
        let both = if changed == MOST { &all } else { &one };
        swap(both[nth % 2].clone())
    });
    for (what, (p99, came)) in [format!("one of {MOST} changes"), format!("all {MOST} change")].into_iter().zip(with) {
        rows.push(Row::beside(&format!("p99 while {what}"), "ms", p99, "none does", quiet, "1 ×"));
        rows.push(Row::alone(&format!("… how often within {SECONDS} s"), "", came, "–"));
    }
    Figures { in_force, memory, quiet, with: with[0] }
}

/// Returns a percentile of requests while nothing changes; and while tables come in which so many services change, with how often.
fn p99<const N: usize>(
    door: SocketAddr,
    kinds: [(u32, Duration); N],
    mut change: impl FnMut(u32) -> f64,
) -> (f64, [(f64, f64); N]) {
    let (url, header) = (format!("http://{door}/"), format!("Host: {}", host(0)));
    let load = || wrk_to(&url, SECONDS, "-c64", &[&header]).p99;
    let mut meanwhile = |(changed, pause)| {
        let (ended, mut came) = (AtomicBool::new(false), 0.0);
        let p99 = std::thread::scope(|scope| {
            let loaded = scope.spawn(|| {
                let p99 = load();
                ended.store(true, SeqCst);
                p99
            });
            while !ended.load(SeqCst) {
                change(changed);
                came += 1.0;
                std::thread::sleep(pause);
            }
            loaded.join().unwrap()
        });
        (p99, came)
    };
    // A percentile of a few seconds moves by itself: all kinds in one run, and their medians.
    let (mut quiet, mut with) = (Vec::new(), vec![Vec::new(); N]);
    for _ in 0..ROUNDS {
        quiet.push(load());
        kinds.iter().zip(&mut with).for_each(|(kind, with)| with.push(meanwhile(*kind)));
    }
    let mut with = with.into_iter().map(|with| {
        let (p99, came): (Vec<f64>, Vec<f64>) = with.into_iter().unzip();
        (median(p99), median(came))
    });
    (median(quiet), std::array::from_fn(|_| with.next().unwrap()))
}

type Services = BTreeMap<Name, Arc<ServiceRoutes>>;

/// Returns services that have a host and an instance of their own each. The `nth` of a service differs from all others.
fn services(which: Range<u32>, nth: u32, port: u16) -> Services {
    let service = |n: u32| {
        let name = |text: String| -> Name { text.parse().unwrap() };
        let (service, http) = (name(format!("service-{n}")), name("http".to_owned()));
        let instance = InstanceRoute { address: address(n), generation: 1, healthy: Some(true) };
        let release = ReleaseRoutes {
            weight: Weight::ALL,
            ports: [(http.clone(), Port::new(port, Protocol::Http))].into(),
            health: Health { check: HealthCheck::Running, ..Health::default() },
            drain: Millis::seconds(4),
            instances: [(format!("{service}-1-1").parse().unwrap(), instance)].into(),
        };
        let rules = Rules { timeout: Some(Millis(30_000 + u64::from(nth))), ..Rules::default() };
        let routes = vec![Route { rules, ..Route::new(Some(&host(n)), "/", http) }];
        let releases = BTreeMap::from([(1, release)]);
        (service, Arc::new(ServiceRoutes { routes, releases, ..ServiceRoutes::default() }))
    };
    which.map(service).collect()
}
