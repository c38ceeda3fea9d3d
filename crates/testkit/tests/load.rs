//! The load generator against the test app: right answers count, and nothing else does.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use basalt_testkit::load::{Kind, Load};
use basalt_testkit::testapp::TestApp;

/// The test app on a port of its own, killed at the end.
struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    #[allow(clippy::disallowed_methods)] // a test runs the program it tests
    fn start(env: &[(&str, &str)]) -> Self {
        let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let app = TestApp::build(cache).unwrap();
        let mut child =
            Command::new(app.path).envs(env.iter().copied()).env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
        Self { child, address: ([127, 0, 0, 1], port.unwrap()).into() }
    }

    fn load(&self, kind: Kind, requests: u64) -> Load {
        let mut load = Load::new(self.address, kind);
        load.at_most = requests;
        load.for_at_most = Duration::from_secs(20);
        load.expect = vec!["version=one\n".to_owned()];
        load
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn right_answers_count_in_every_kind_the_app_speaks() {
    let app = App::start(&[("VERSION", "one")]);
    for kind in [Kind::KeepAlive, Kind::Close, Kind::Post] {
        let running = app.load(kind, 60).start();
        while !running.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let report = running.finish();
        assert_eq!((report.ok, report.failed), (60, 0), "{kind:?}: {report}");
        assert_eq!(report.answers["version=one\n"], 60);
        assert_eq!(report.latencies.len(), 60);
    }
}

#[test]
fn wrong_answers_errors_and_silence_fail() {
    let check = |env: &[(&str, &str)], kind: Kind, expected: &str| {
        let app = App::start(env);
        let running = app.load(kind, 4).start();
        while !running.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let report = running.finish();
        assert_eq!((report.ok, report.failed), (0, 4), "{report}");
        assert!(report.errors.iter().all(|error| error.contains(expected)), "{report}");
    };
    check(&[("VERSION", "two")], Kind::KeepAlive, "holds none of");
    check(&[("VERSION", "one"), ("FAIL_AFTER_MS", "0")], Kind::KeepAlive, "status 500");
    // The app does not speak HTTP/2.
    check(&[("VERSION", "one")], Kind::Http2, "");
}

#[test]
fn a_dead_server_is_noticed_and_the_load_ends_when_told() {
    let mut app = App::start(&[("VERSION", "one")]);
    let load = app.load(Kind::KeepAlive, u64::MAX);
    let clients = load.clients as u64;
    let running = load.start();
    while running.ok() < 10 {
        std::thread::sleep(Duration::from_millis(5));
    }
    app.child.kill().unwrap();
    // Each client may lose the one request that was under way; every later one finds nobody to connect to.
    while running.failed() <= clients {
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = running.finish();
    assert!(report.errors.iter().any(|error| error.contains("connecting")), "{report}");
}
