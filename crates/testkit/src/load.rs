//! A load generator: bounded, only to this machine, and counting every answer that is not the right one as failed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::{Connection, Failure};
use crate::clock::now;

/// A request that takes longer has failed. Longer than the gateway makes a request wait while nothing is healthy (10 s),
/// so that such a wait is told apart from an answer that never comes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Failures that a report quotes: enough to see a pattern.
const QUOTED: usize = 5;

/// Body sizes of a POST take turns: empty, small, above one TCP segment, above what a socket buffers at once.
const BODY_SIZES: [usize; 4] = [0, 100, 5_000, 300_000];

/// How the clients of a load speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, each client on one connection for as long as the server keeps it.
    KeepAlive,
    /// HTTP/1.1, a new connection for each request.
    Close,
    /// HTTP/2 in clear with prior knowledge (RFC 9113 §3.3), each client on one connection.
    Http2,
    /// HTTP/1.1 POST with bodies of several sizes, each client on one connection.
    Post,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::KeepAlive, Self::Close, Self::Http2, Self::Post];

    /// Returns the name that the command line knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Close => "close",
            Self::Http2 => "http2",
            Self::Post => "post",
        }
    }
}

/// What to send, and what to expect.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where to; only loopback addresses are accepted.
    pub address: SocketAddr,
    /// The `Host` of the requests.
    pub host: String,
    /// Their path.
    pub path: String,
    /// How they are sent.
    pub kind: Kind,
    /// Clients at the same time, each sending one request after the other.
    pub clients: usize,
    /// What each client waits between two requests.
    pub pause: Duration,
    /// An answer is right if it holds at least one of these texts; none means that any answer is.
    pub expect: Vec<String>,
    /// The load ends by itself after this time …
    pub for_at_most: Duration,
    /// … or after so many requests.
    pub at_most: u64,
}

impl Load {
    /// Returns a load of four clients on `GET /`, ended by two minutes or a million requests.
    pub fn new(address: SocketAddr, kind: Kind) -> Self {
        Self {
            address,
            host: address.to_string(),
            path: "/".to_owned(),
            kind,
            clients: 4,
            pause: Duration::from_millis(1),
            expect: Vec::new(),
            for_at_most: Duration::from_secs(120),
            at_most: 1_000_000,
        }
    }

    /// Starts sending on a thread of its own.
    ///
    /// # Panics
    /// If the address is not a loopback address: load is for this machine alone.
    pub fn start(self) -> Running {
        assert!(self.address.ip().is_loopback(), "load goes to this machine only, not to {}", self.address);
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime needs only descriptors").block_on(run(Arc::new(self), shared))
            }
        });
        Running { shared, thread }
    }
}

/// A load under way.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<Report>,
}

impl Running {
    /// Returns how many requests have been answered rightly so far.
    pub fn ok(&self) -> u64 {
        self.shared.ok.load(Ordering::Relaxed)
    }

    /// Returns how many have failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Returns whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets every client finish the request it has under way, and returns what came of all.
    pub fn finish(self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load's thread does not panic")
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests answered rightly.
    pub ok: u64,
    /// Requests that failed: refused, cut, timed out, answered with a status other than 200 or with the wrong body.
    pub failed: u64,
    /// The first few failures.
    pub errors: Vec<String>,
    /// Right answers by the expected text they held.
    pub answers: BTreeMap<String, u64>,
    /// How long it went on.
    pub took: Duration,
    /// Microseconds from sending to the last byte of the answer, of right answers, sorted.
    pub latencies: Vec<u32>,
}

impl Report {
    /// Returns how many requests were sent.
    pub fn sent(&self) -> u64 {
        self.ok + self.failed
    }

    /// Returns the latency that `percent` of the right answers did not exceed, or zero if there were none.
    pub fn latency(&self, percent: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        let micros = self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or(0);
        Duration::from_micros(u64::from(micros))
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.errors.extend(other.errors);
        self.errors.truncate(QUOTED);
        for (text, count) in other.answers {
            *self.answers.entry(text).or_default() += count;
        }
        self.latencies.extend(other.latencies);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p99] = [50.0, 99.0].map(|percent| self.latency(percent).as_secs_f64() * 1000.0);
        write!(f, "{} answered, {} failed", self.ok, self.failed)?;
        write!(f, " in {:.1} s (median {median:.1} ms, p99 {p99:.1} ms)", self.took.as_secs_f64())?;
        for (text, count) in &self.answers {
            write!(f, "\n  {count} × {text:?}")?;
        }
        self.errors.iter().try_for_each(|error| write!(f, "\n  failed: {error}"))
    }
}

async fn run(load: Arc<Load>, shared: Arc<Shared>) -> Report {
    let started = now();
    let clients: Vec<_> = (0..load.clients)
        .map(|client| tokio::spawn(send_many(Arc::clone(&load), Arc::clone(&shared), client)))
        .collect();
    let mut report = Report::default();
    for client in clients {
        report.add(client.await.expect("a client does not panic"));
    }
    report.took = started.elapsed();
    report.latencies.sort_unstable();
    report
}

/// One client: one request after the other until the load ends.
async fn send_many(load: Arc<Load>, shared: Arc<Shared>, client: usize) -> Report {
    let started = now();
    let mut report = Report::default();
    let mut connection: Option<Connection> = None;
    let mut turn = client;
    let over = || shared.stop.load(Ordering::Relaxed) || started.elapsed() >= load.for_at_most;
    while !over() && shared.sent.fetch_add(1, Ordering::Relaxed) < load.at_most {
        let body = match load.kind {
            Kind::Post => vec![b'x'; BODY_SIZES[turn % BODY_SIZES.len()]],
            _ => Vec::new(),
        };
        turn += 1;
        let sent_at = now();
        let answer = tokio::time::timeout(PATIENCE, send_one(&load, &mut connection, body)).await;
        match answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(text) => {
                report.ok += 1;
                shared.ok.fetch_add(1, Ordering::Relaxed);
                report.latencies.push(u32::try_from(sent_at.elapsed().as_micros()).unwrap_or(u32::MAX));
                if let Some(text) = text {
                    *report.answers.entry(text).or_default() += 1;
                }
            }
            Err(what) => {
                connection = None;
                report.failed += 1;
                shared.failed.fetch_add(1, Ordering::Relaxed);
                if report.errors.len() < QUOTED {
                    report.errors.push(format!("{:.3} s: {what}", started.elapsed().as_secs_f64()));
                }
                // A dead server is not to be hammered.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(load.pause).await;
    }
    report
}

/// Sends one request and returns which of the expected texts the answer held.
async fn send_one(load: &Load, kept: &mut Option<Connection>, body: Vec<u8>) -> Result<Option<String>, String> {
    let length = (load.kind == Kind::Post).then_some(body.len());
    loop {
        let usable = match kept {
            Some(connection) => connection.is_usable().await,
            None => false,
        };
        let mut connection = match kept.take().filter(|_| usable) {
            Some(connection) => connection,
            None => Connection::open(load.address, load.kind == Kind::Http2).await?,
        };
        match connection.send(load, body.clone()).await {
            Ok(answer) => {
                if load.kind != Kind::Close {
                    *kept = Some(connection);
                }
                return verdict(load, answer.status, &answer.body, length);
            }
            Err(Failure::NotTaken) => {}
            Err(Failure::Failed(what)) => return Err(what),
        }
    }
}

/// Judges an answer. The body of a POST must be echoed as its length, so that a lost or doubled part is noticed.
fn verdict(load: &Load, status: u16, body: &str, length: Option<usize>) -> Result<Option<String>, String> {
    let shown = body.chars().take(120).collect::<String>();
    if status != 200 {
        return Err(format!("status {status}: {shown:?}"));
    }
    if let Some(length) = length.filter(|length| !body.contains(&format!("length={length}\n"))) {
        return Err(format!("a body of {length} bytes was answered with {shown:?}"));
    }
    match load.expect.iter().find(|text| body.contains(*text)) {
        Some(text) => Ok(Some(text.clone())),
        None if load.expect.is_empty() => Ok(None),
        None => Err(format!("the answer holds none of {:?}: {shown:?}", load.expect)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_answers_fail() {
        let mut load = Load::new(([127, 0, 0, 1], 1).into(), Kind::Post);
        load.expect = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(verdict(&load, 200, "two\n", None), Ok(Some("two".to_owned())));
        assert_eq!(verdict(&load, 200, "one\nlength=7\n", Some(7)), Ok(Some("one".to_owned())));
        assert!(verdict(&load, 200, "one\nlength=70\n", Some(7)).is_err());
        assert!(verdict(&load, 200, "three", None).is_err());
        assert!(verdict(&load, 503, "two", None).is_err());
        load.expect.clear();
        assert_eq!(verdict(&load, 200, "", None), Ok(None));
    }

    #[test]
    fn percentiles() {
        let report = Report { latencies: (1..=100).collect(), ..Report::default() };
        let check = |percent, micros| assert_eq!(report.latency(percent), Duration::from_micros(micros), "{percent}");
        check(0.0, 1);
        check(50.0, 50);
        check(99.0, 99);
        check(99.5, 100);
        check(100.0, 100);
        assert_eq!(Report::default().latency(99.0), Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "this machine only")]
    fn other_machines_are_refused() {
        Load::new(([192, 0, 2, 1], 80).into(), Kind::Close).start();
    }
}
