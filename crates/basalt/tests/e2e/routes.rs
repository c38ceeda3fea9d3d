//! A gateway whose routes change all the time, as they do where many people deploy at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use basalt_gateway::GatewayRouter;
use basalt_model::{
    Health, HealthCheck, InstanceRoute, Millis, Name, Port, Protocol, ReleaseRoutes, Route, RouteTable, ServiceRoutes,
    Weight,
};
use basalt_seam::Router as _;
use basalt_testkit::load::{Kind, Load, Running};

use crate::edge::sh;
use crate::harness::{free_address, get, now, test_app, wait_until};

/// How many tables come, and how long after one another: a hundred a second.
const TABLES: u64 = 500;
const EVERY: Duration = Duration::from_millis(10);

/// Processes that end with the test.
struct Processes(Vec<Child>);

impl Processes {
    fn start(&mut self, program: &Path, arguments: &[&str], env: &[(&str, &str)]) {
        #[allow(clippy::disallowed_methods)] // the program under test
        let mut command = Command::new(program);
        command.args(arguments).envs(env.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(command.spawn().unwrap());
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn change_a_hundred_times_a_second_and_no_request_fails() {
    // In memory: the gateway syncs each table, and this is not about the disk.
    let folder = tempfile::Builder::new().prefix("basalt-e2e-").tempdir_in("/dev/shm").unwrap();
    let [http, metrics, one, two] = [(); 4].map(|()| free_address());
    let mut processes = Processes(Vec::new());
    for (version, address) in [("one", one), ("two", two)] {
        processes.start(test_app(), &[], &[("PORT", &address.port().to_string()), ("VERSION", version)]);
    }
    let data = folder.path().display().to_string();
    let arguments = ["--data", &data, "gateway", "--http", &http.to_string(), "--metrics", &metrics.to_string()];
    processes.start(Path::new(env!("CARGO_BIN_EXE_basalt")), &arguments, &[]);
    let router = GatewayRouter::connect(folder.path().join("run/gateway.sock"), Arc::new(|| ()));
    wait_until("the gateway is there", Duration::from_secs(20), || router.seen().connected);
    let in_force = |version: u64| {
        wait_until("the table is in force", Duration::from_secs(10), || router.seen().version == version);
    };
    router.set(Arc::new(table(1, [one, two])));
    in_force(1);
    wait_until("requests are answered", Duration::from_secs(10), || get(http, "/").0 == 200);

    let loads: Vec<(Kind, Running)> = Kind::ALL
        .map(|kind| {
            let mut load = Load::new(http, kind);
            load.clients = 2;
            load.expect = vec!["version=one\n".to_owned(), "version=two\n".to_owned()];
            (kind, load.start())
        })
        .into();
    let (started, mut seen) = (now(), BTreeSet::new());
    for version in 2..=TABLES {
        router.set(Arc::new(table(version, [one, two])));
        std::thread::sleep((EVERY * version as u32).saturating_sub(started.elapsed()));
        seen.insert(router.seen().version);
    }
    in_force(TABLES);
    println!("{TABLES} tables in {:?}; looked each time, and found {} of them in force", started.elapsed(), seen.len());
    for (kind, running) in loads {
        let report = running.finish();
        println!("{kind:?}: {report}");
        assert_eq!(report.failed, 0, "{kind:?}: {report}");
        assert_eq!(report.answers.len(), 2, "{kind:?}: {report}");
    }
    sh(&format!("curl -sS http://{metrics}/metrics | promtool check metrics"));
}

/// Returns a table that differs from the one before in all that can: routes, services, weights, and who is there.
fn table(version: u64, apps: [SocketAddr; 2]) -> RouteTable {
    let share = (version % 11) as u32 * 10;
    let service = |name: &str, net: u8, routes: Vec<Route>| {
        let weights = [share, 100 - share].into_iter().zip(apps);
        let release = |(number, (weight, app))| (number, release(name, number, version, net, weight, app));
        let releases: BTreeMap<u32, ReleaseRoutes> = (1..).zip(weights).map(release).collect();
        (name.parse().unwrap(), Arc::new(ServiceRoutes { routes, releases, ..ServiceRoutes::default() }))
    };
    let route = |host: Option<&str>, path: &str| Route::new(host, path, "http".parse().unwrap());
    let app = vec![route(None, "/"), route(None, &format!("/at-{version}"))];
    let other = vec![route(Some(&format!("host-{version}.example.com")), "/")];
    let services = [service("app", 2, app), service(&format!("other-{}", version % 7), 3, other)];
    RouteTable { version, services: services.into() }
}

/// Of four instances, another one is missing each time. All are one program, which listens on all of loopback.
fn release(service: &str, number: u32, version: u64, net: u8, weight: u32, app: SocketAddr) -> ReleaseRoutes {
    let instance = |ordinal: u64| {
        let address = Ipv4Addr::new(127, net, number as u8, ordinal as u8);
        let route = InstanceRoute { address, generation: 1, healthy: Some(true) };
        (format!("{service}-{number}-{ordinal}").parse().unwrap(), route)
    };
    let http: Name = "http".parse().unwrap();
    ReleaseRoutes {
        weight: Weight::percent(weight),
        ports: [(http, Port::new(app.port(), Protocol::Http))].into(),
        health: Health { check: HealthCheck::Running, ..Health::default() },
        drain: Millis::seconds(4),
        instances: (1..=4).filter(|ordinal| version % 4 + 1 != *ordinal).map(instance).collect(),
    }
}
