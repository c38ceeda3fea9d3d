//! One start of an instance, as long as the table names it or a request is under way to it.

use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use basalt_model::{Health, InstanceId, Port};
use basalt_seam::InstanceTraffic;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::changes::Changes;
use crate::http1::pool::Pool;
use crate::http2;
use crate::probe;
use crate::receipts::{Drain, Receipt};
use crate::service::Service;

/// One start of an instance. Shared by every table that names it, so that health and counters survive a change of tables.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) generation: u64,
    pub(crate) address: Ipv4Addr,
    pub(crate) health: Health,
    /// The port that health checks ask, where they ask one.
    pub(crate) health_port: Option<Port>,
    /// Of which service.
    pub(crate) service: Arc<Service>,
    /// Wakes the checker: a request has met a broken connection.
    pub(crate) suspected: Notify,
    /// Where it was met.
    pub(crate) suspected_at: Mutex<Option<probe::At>>,
    /// Connections to it that wait for their next request.
    pub(crate) pool: Pool,
    /// The same for gRPC.
    pub(crate) http2: http2::pool::Pool,
    /// Milliseconds that what is in flight has once the table no longer names it.
    drain: AtomicU64,
    /// What becomes of what is in flight, once the table no longer names it.
    draining: OnceLock<Drain>,
    leaving: Notify,
    turns: AtomicU64,
    verdict: AtomicU8,
    /// The verdict of checks that are made elsewhere.
    told: AtomicU8,
    named: AtomicBool,
    in_flight: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    /// When it was made, which the times below are counted from.
    made: Instant,
    /// When it became healthy last, in milliseconds plus one; 0 is never.
    healthy_at: AtomicU64,
    ejected: AtomicBool,
    /// How often it was ejected without a good answer between.
    ejections_in_a_row: AtomicU32,
    ejections: AtomicU64,
    failures_in_a_row: AtomicU32,
    /// How often it has broken off an answer since one went to its end.
    breaks_in_a_row: AtomicU32,
    /// Requests, errors and microseconds until an answer began, counted anew now and then.
    window: [AtomicU64; 3],
    last_probe: Mutex<Option<String>>,
    changes: Arc<Changes>,
}

/// No verdict yet.
const UNKNOWN: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

fn to_byte(healthy: Option<bool>) -> u8 {
    match healthy {
        None => UNKNOWN,
        Some(true) => HEALTHY,
        Some(false) => UNHEALTHY,
    }
}

fn from_byte(verdict: u8) -> Option<bool> {
    (verdict != UNKNOWN).then_some(verdict == HEALTHY)
}

impl Instance {
    /// Returns an instance of `service` that has no verdict yet. Changes that others should hear of at once go to `changes`.
    pub(crate) fn new(
        id: InstanceId,
        generation: u64,
        address: Ipv4Addr,
        (health, health_port): (Health, Option<Port>),
        drain: Duration,
        service: Arc<Service>,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            id,
            generation,
            address,
            health,
            health_port,
            service,
            suspected: Notify::new(),
            suspected_at: Mutex::default(),
            pool: Pool::default(),
            http2: http2::pool::Pool::default(),
            drain: AtomicU64::new(to_millis(drain)),
            draining: OnceLock::new(),
            leaving: Notify::new(),
            turns: AtomicU64::new(0),
            verdict: AtomicU8::new(UNKNOWN),
            told: AtomicU8::new(UNKNOWN),
            named: AtomicBool::new(true),
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            made: Instant::now(),
            healthy_at: AtomicU64::new(0),
            ejected: AtomicBool::new(false),
            ejections_in_a_row: AtomicU32::new(0),
            ejections: AtomicU64::new(0),
            failures_in_a_row: AtomicU32::new(0),
            breaks_in_a_row: AtomicU32::new(0),
            window: Default::default(),
            last_probe: Mutex::new(None),
            changes,
        }
    }

    /// Returns whether requests may be sent to it.
    pub(crate) fn is_healthy(&self) -> bool {
        self.verdict.load(Relaxed) == HEALTHY
    }

    /// Returns the verdict; `None` before the first.
    pub(crate) fn healthy(&self) -> Option<bool> {
        from_byte(self.verdict.load(Relaxed))
    }

    /// Keeps the verdict of checks that are made elsewhere.
    pub(crate) fn told(&self, healthy: Option<bool>) {
        self.told.store(to_byte(healthy), Relaxed);
    }

    /// Returns the verdict of checks that are made elsewhere.
    pub(crate) fn was_told(&self) -> Option<bool> {
        from_byte(self.told.load(Relaxed))
    }

    /// Sets the verdict, tells whoever listens, and wakes requests that wait for a healthy instance.
    pub(crate) fn judge(&self, healthy: Option<bool>) {
        let verdict = to_byte(healthy);
        if self.verdict.swap(verdict, SeqCst) != verdict {
            if verdict == HEALTHY {
                self.healthy_at.store(self.age() + 1, Relaxed);
                self.service.better.notify_waiters();
            }
            self.changes.touch(self);
        }
    }

    /// Notes how the last check ended, for people.
    pub(crate) fn note_probe(&self, text: String) {
        *self.last_probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Marks it unhealthy because a request met a broken connection; checks bring it back.
    pub(crate) fn suspect(&self, at: probe::At, what: &str) {
        *self.suspected_at() = Some(at);
        self.note_probe(format!("a request found port {} broken: {what}", at.address.port()));
        self.judge(Some(false));
        self.suspected.notify_one();
    }

    /// Returns where a request has met a broken connection, until one is possible there again.
    pub(crate) fn suspected_at(&self) -> MutexGuard<'_, Option<probe::At>> {
        self.suspected_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long it has been healthy; `None` if it never was.
    pub(crate) fn healthy_for(&self) -> Option<Duration> {
        let at = self.healthy_at.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(self.age().saturating_sub(at)))
    }

    fn age(&self) -> u64 {
        to_millis(self.made.elapsed())
    }

    /// Returns whether it gets no requests for a while.
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    /// Ejects it. Returns how often it was ejected without a good answer between.
    pub(crate) fn eject(&self) -> u32 {
        self.ejected.store(true, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        self.ejections_in_a_row.fetch_add(1, Relaxed) + 1
    }

    /// Ends its ejection.
    pub(crate) fn readmit(&self) {
        self.failures_in_a_row.store(0, Relaxed);
        self.breaks_in_a_row.store(0, Relaxed);
        self.clear_window();
        self.ejected.store(false, Relaxed);
        self.service.better.notify_waiters();
    }

    /// Returns how often it was ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Returns how many requests in a row have failed: at first, or later on.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Relaxed).max(self.breaks_in_a_row.load(Relaxed))
    }

    /// Returns what was counted since that began anew.
    pub(crate) fn window(&self) -> Window {
        let [requests, errors, micros] = [0, 1, 2].map(|at: usize| self.window[at].load(Relaxed));
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Window { requests: small(requests), errors: small(errors), micros }
    }

    /// Begins to count anew.
    pub(crate) fn clear_window(&self) {
        self.window.iter().for_each(|count| count.store(0, Relaxed));
    }

    /// Says that the table in force no longer names it.
    pub(crate) fn unname(&self) {
        // An instance that has left never comes back: its next start is another.
        self.draining.get_or_init(|| Drain::begin(self.drain()));
        self.named.store(false, SeqCst);
        // It is to be stopped, and is not to find connections open on which nothing will come.
        self.pool.close();
        self.http2.close();
        self.leaving.notify_waiters();
    }

    /// Closes connections that have waited for too long.
    pub(crate) fn sweep(&self, longest: Duration) {
        self.pool.sweep(longest);
        self.http2.sweep(longest);
    }

    /// Returns what became of what was in flight when it left.
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        self.draining.get().map(|drain| drain.receipt(&self.id, self.generation))
    }

    /// Returns once the table in force no longer names it.
    pub(crate) async fn left(&self) {
        let mut leaving = pin!(self.leaving.notified());
        // Listening before looking: what changes in between is not missed.
        leaving.as_mut().enable();
        if self.named.load(SeqCst) {
            leaving.await;
        }
    }

    /// Returns once its drain time is over: what has no end of its own ends then.
    pub(crate) async fn cut(&self) {
        self.left().await;
        sleep(self.drain()).await;
    }

    /// Returns how long what is in flight has once the table no longer names it.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain.load(Relaxed))
    }

    /// Sets that.
    pub(crate) fn set_drain(&self, drain: Duration) {
        self.drain.store(to_millis(drain), Relaxed);
    }

    /// Returns after which part of the time the next of those who are to leave does so: their turns are spread over it.
    pub(crate) fn turn_to_leave(&self) -> f64 {
        let turn = self.turns.fetch_add(1, Relaxed);
        let turns = self.in_flight().max(turn + 1);
        turn as f64 / turns as f64
    }

    /// Returns how many requests and connections are under way to it.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(SeqCst)
    }

    /// Counts a request under way until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        // Sequentially consistent, as the epoch of the plane is: either this count is seen by whoever changes tables,
        // or the change is seen by whoever counts.
        self.in_flight.fetch_add(1, SeqCst);
        InFlight { instance: self.clone(), who: None, finished: false, sent: true }
    }

    /// Returns what others are told of it.
    pub(crate) fn traffic(&self) -> InstanceTraffic {
        InstanceTraffic {
            generation: self.generation,
            named: self.named.load(SeqCst),
            healthy: self.healthy(),
            last_probe: self.last_probe.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            in_flight: self.in_flight(),
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}

/// What was counted in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) requests: u32,
    pub(crate) errors: u32,
    pub(crate) micros: u64,
}

/// A request or connection under way to an instance.
#[derive(Debug)]
pub(crate) struct InFlight {
    instance: Arc<Instance>,
    who: Option<String>,
    finished: bool,
    sent: bool,
}

impl InFlight {
    /// Returns where it is under way to.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Says what it is, in case it is cut: the client and what it asks for.
    pub(crate) fn identify(&mut self, who: impl FnOnce() -> String) {
        self.who = Some(who());
    }

    /// Says what it is, if it seems to have been cut just now.
    pub(crate) fn identify_if_cut(&mut self, who: impl FnOnce() -> String) {
        if self.instance.draining.get().is_some_and(Drain::is_over) {
            self.identify(who);
        }
    }

    /// Says that it has ended by itself, however long it took.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    /// Gives it back before anything was sent.
    pub(crate) fn give_back(mut self) {
        self.sent = false;
    }

    /// Counts that a request is sent.
    pub(crate) fn count_request(&self) {
        self.instance.requests.fetch_add(1, Relaxed);
    }

    /// Counts that the request was answered badly or not at all.
    pub(crate) fn count_error(&self) {
        self.instance.errors.fetch_add(1, Relaxed);
        self.instance.window[1].fetch_add(1, Relaxed);
    }

    /// Counts a request that was given up because another instance has answered it first: its time so far is no failure, and
    /// still tells the slow from the fast.
    pub(crate) fn count_given_up(&mut self, took: Duration) {
        self.instance.window[0].fetch_add(1, Relaxed);
        self.instance.window[2].fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.finish();
    }

    /// Counts how a request went for the instance until its answer began, or was no longer waited for.
    pub(crate) fn count_outcome(&self, failed: bool, took: Duration) {
        let Instance { window, failures_in_a_row, .. } = &*self.instance;
        window[0].fetch_add(1, Relaxed);
        window[2].fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if failed {
            failures_in_a_row.fetch_add(1, Relaxed);
        } else {
            clear(failures_in_a_row);
        }
    }

    /// Counts how an answer that has begun went on for the instance.
    pub(crate) fn count_end(&self, broke_off: bool) {
        if broke_off {
            self.instance.breaks_in_a_row.fetch_add(1, Relaxed);
        } else {
            clear(&self.instance.breaks_in_a_row);
            self.count_left();
        }
    }

    /// Counts an answer that its client has left, which is as good as the instance has been lately.
    pub(crate) fn count_left(&self) {
        if !self.instance.is_ejected() && self.instance.failures_in_a_row() == 0 {
            clear(&self.instance.ejections_in_a_row);
        }
    }
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn clear(count: &AtomicU32) {
    // Read first: a line that is only read stays in every core's cache.
    if count.load(Relaxed) > 0 {
        count.store(0, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(drain) = self.instance.draining.get().filter(|_| self.sent) {
            drain.count(self.finished, self.who.as_deref());
        }
        // The last request to an instance that is leaving is what a drain waits for: tell at once.
        if self.instance.in_flight.fetch_sub(1, SeqCst) == 1 && !self.instance.named.load(SeqCst) {
            self.instance.changes.touch(&self.instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_answers_are_a_row_of_their_own() {
        let service = Arc::new(Service::new("web".parse().unwrap()));
        let (address, health) = ([127, 0, 0, 1].into(), (Health::default(), None));
        let id = "web-1-1".parse().unwrap();
        let instance = Arc::new(Instance::new(id, 1, address, health, Duration::ZERO, service, Arc::default()));
        let one = instance.begin();
        let begins = |failed| one.count_outcome(failed, Duration::ZERO);
        // Each begins well, and breaks off.
        for _ in 0..3 {
            begins(false);
            one.count_end(true);
        }
        assert_eq!(instance.failures_in_a_row(), 3);
        one.count_end(false);
        assert_eq!(instance.failures_in_a_row(), 0);
        // What began before ends well between, which says nothing of those that do not begin.
        for _ in 0..3 {
            begins(true);
            one.count_end(false);
        }
        assert_eq!(instance.failures_in_a_row(), 3);
        // Nor does it make up for an ejection.
        assert_eq!((instance.eject(), instance.eject()), (1, 2));
        instance.readmit();
        begins(true);
        one.count_end(false);
        assert_eq!(instance.eject(), 3);
        for well in [|one: &InFlight| one.count_end(false), InFlight::count_left] {
            instance.readmit();
            begins(false);
            well(&one);
            assert_eq!((instance.failures_in_a_row(), instance.eject()), (0, 1));
            assert_eq!(instance.eject(), 2);
        }
    }
}
