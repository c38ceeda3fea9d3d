//! What the end-to-end tests stand on: the real binary in a data directory of its own, and the real machine around it.

mod basalt;
mod leftovers;
mod stack;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

pub use basalt::{Basalt, get, kill};
#[allow(unused_imports)] // for the bench
pub use stack::{Stack, test_app};

use basalt_testkit::load::{Kind, Load, Report, Running};

/// Asks again and again until something is so.
///
/// # Panics
/// If it is not so in time.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let started = now();
    while !is_so() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the time, for measuring spans.
#[allow(clippy::disallowed_methods)] // these tests are about real time
pub fn now() -> Instant {
    Instant::now()
}

/// Returns an address of this machine that nobody listens on.
#[allow(dead_code)] // the bench has none
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Load in all four kinds at once.
pub struct Loads(Vec<(Kind, Running)>);

impl Loads {
    /// Starts clients of each kind; answers must hold one of the texts.
    pub fn start(basalt: &Basalt, kinds: &[Kind], expect: &[&str]) -> Self {
        let start = |kind: Kind| {
            let mut load = Load::new(basalt.http(), kind);
            // Two clients of each kind keep connections under way at every moment and leave the machine time to work.
            load.clients = 2;
            load.pause = Duration::from_millis(2);
            load.expect = expect.iter().map(|text| (*text).to_owned()).collect();
            (kind, load.start())
        };
        Self(kinds.iter().map(|kind| start(*kind)).collect())
    }

    /// Waits until every kind has had so many more right answers.
    #[track_caller]
    pub fn flow(&self, answers: u64) {
        let before: Vec<u64> = self.0.iter().map(|(_, running)| running.ok()).collect();
        wait_until("load is answered", Duration::from_secs(30), || {
            self.0.iter().zip(&before).all(|((_, running), before)| running.ok() >= before + answers)
        });
    }

    /// Ends the load and returns what came of each kind.
    pub fn finish(self) -> Vec<(Kind, Report)> {
        self.0.into_iter().map(|(kind, running)| (kind, running.finish())).collect()
    }

    /// Ends the load.
    ///
    /// # Panics
    /// If one request has failed (law 4), or one of the texts was in no answer of some kind.
    #[track_caller]
    pub fn finish_without_failure(self, seen_by_all: &[&str]) {
        for (kind, report) in self.finish() {
            assert_eq!(report.failed, 0, "{kind:?}: {report}");
            for text in seen_by_all {
                assert!(report.answers.contains_key(*text), "{kind:?} never saw {text:?}: {report}");
            }
        }
    }
}
