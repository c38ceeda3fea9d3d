//! The loop: observe → decide → append → perform.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use basalt_model::{Digest, Event, InstanceId, JobState, Millis, Name, State};
use basalt_plan::{Desired, Plan, plan, plan_down, state_digest};
use basalt_rollout::{
    Action, Command, InForce, InstanceSeen, Life, Observation, SentRoutes, Waiting, callers, command, decide,
    decide_job, evolve, routes,
};
use basalt_seam::{Backend, BackendSeen, Clock, Depot, Journal, Router, RouterSeen, Secrets};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::apply::{apply_events, down_events};
use crate::observe::observe;
use crate::perform::{Performer, chain};
use crate::recover::fold;
use crate::{ControllerError, View};

type Reply<T> = oneshot::Sender<Result<T, ControllerError>>;
type Answer = Box<dyn FnOnce() + Send>;

/// What the handle asks of the loop.
pub(crate) enum Request {
    Plan { desired: Desired, reply: Reply<Plan> },
    Apply { desired: Desired, base: Option<Digest>, reply: Reply<Plan> },
    Down { reply: Reply<Plan> },
    Command { service: Name, command: Command, reply: Reply<()> },
}

/// How often at most decisions are followed by decisions without anything new being seen. The longest honest chain is
/// about ten events a service; more is a program error, which must not spin or fill the journal.
const ROUNDS: usize = 100;

/// How long the loop sleeps when nothing asks for it: a missed wake-up costs at most this.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Time from SIGTERM to SIGKILL for an instance whose settings are not recorded: the default of `stop_within`.
const UNRECORDED_STOP: Millis = Millis::seconds(10);

/// Pause before the journal is tried again after a failed append.
const JOURNAL_RETRY: Millis = Millis(1000);

/// The control loop's own state.
pub(crate) struct Heart {
    journal: Box<dyn Journal>,
    router: Arc<dyn Router>,
    clock: Arc<dyn Clock>,
    performer: Performer,
    publish: watch::Sender<Arc<View>>,
    state: Arc<State>,
    seq: u64,
    /// The backend's last true snapshot; `connected` says whether it is true now.
    backend_seen: BackendSeen,
    /// What was sent to the router last; `None` until backend and router have both been reached once.
    sent: Option<SentRoutes>,
    problems: BTreeMap<&'static str, String>,
}

impl Heart {
    #[allow(clippy::too_many_arguments)] // the parts of `Parts`, handed over once
    pub fn recover(
        journal: Box<dyn Journal>,
        backend: Arc<dyn Backend>,
        router: Arc<dyn Router>,
        depot: Arc<dyn Depot>,
        secrets: Arc<dyn Secrets>,
        clock: Arc<dyn Clock>,
        address: Box<dyn Fn(u16) -> Ipv4Addr + Send + Sync>,
        publish: watch::Sender<Arc<View>>,
    ) -> Result<Self, ControllerError> {
        let (state, seq) = fold(journal.as_ref())?;
        let performer = Performer { backend, depot, secrets, address, failed: BTreeMap::new() };
        let mut heart = Self {
            journal,
            router,
            clock,
            performer,
            publish,
            state: Arc::new(state),
            seq,
            backend_seen: BackendSeen::default(),
            sent: None,
            problems: BTreeMap::new(),
        };
        heart.turn();
        Ok(heart)
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Request>, wake: Arc<Notify>) {
        let mut answer: Option<Answer> = None;
        loop {
            let wake_at = self.turn();
            // Answered after the turn: whoever asked sees a view that has it already.
            if let Some(answer) = answer.take() {
                answer();
            }
            let sleep = wake_at
                .map_or(LONGEST_SLEEP, |at| Duration::from_millis(at.since(self.clock.now()).0).min(LONGEST_SLEEP));
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => answer = Some(self.answer(request)),
                    None => return,
                },
                () = wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// One turn: records decisions until there are no more, then performs what is recorded. Returns when to turn again.
    fn turn(&mut self) -> Option<Millis> {
        let now = self.clock.now();
        let router = self.router.seen();
        self.see_backend();
        for _ in 0..ROUNDS {
            let instances = observe(&self.state, &self.backend_seen, &router, &self.performer.failed);
            let in_force = self.routes_in_force(&instances, &router);
            let verdict = self.decide(now, &instances, &router, in_force);
            if verdict.events.is_empty() {
                self.problems.remove("rounds");
                return self.conclude(now, instances, router, verdict);
            }
            if let Err(error) = self.record(now, &verdict.events) {
                self.problems.insert("journal", format!("nothing can be decided: {}", chain(&error)));
                self.show(now, instances, router, verdict.waiting);
                return Some(now + JOURNAL_RETRY);
            }
            self.problems.remove("journal");
        }
        self.problems.insert("rounds", format!("decisions did not come to rest after {ROUNDS} rounds; please report this with the output of `basalt events`"));
        Some(now + JOURNAL_RETRY)
    }

    /// Performs what is recorded: routes first, so that nothing is started or stopped before the gateway has been told.
    fn conclude(
        &mut self,
        now: Millis,
        instances: BTreeMap<InstanceId, InstanceSeen>,
        router: Arc<RouterSeen>,
        verdict: Verdict,
    ) -> Option<Millis> {
        self.send_routes(&instances, &router);
        for action in verdict.actions {
            self.performer.perform(&self.state, now, action);
        }
        let failed = !self.performer.failed.is_empty();
        self.show(now, instances, router, verdict.waiting);
        // A start that failed here is news that no adapter will wake us for.
        if failed { Some(now + Millis(10)) } else { verdict.wake_at }
    }

    fn see_backend(&mut self) {
        let seen = self.performer.backend.seen();
        if seen.connected {
            self.backend_seen = (*seen).clone();
        } else {
            self.backend_seen.connected = false;
        }
    }

    fn decide(
        &self,
        at: Millis,
        instances: &BTreeMap<InstanceId, InstanceSeen>,
        router: &RouterSeen,
        routes_in_force: InForce,
    ) -> Verdict {
        let jobs: BTreeMap<Name, JobState> =
            self.state.jobs.iter().map(|(n, j)| (n.clone(), j.state.clone())).collect();
        let seen = Observation {
            at,
            backend_connected: self.backend_seen.connected,
            router_connected: router.connected,
            routes_in_force,
            instances,
            jobs: &jobs,
            callers: &callers(&self.state),
        };
        let mut verdict = Verdict::default();
        for (name, job) in &self.state.jobs {
            verdict.add(name, decide_job(name, job, &seen));
        }
        for (name, service) in &self.state.services {
            verdict.add(name, decide(name, service, &seen));
        }
        let known = |id: &InstanceId| {
            self.state.services.contains_key(id.service()) || self.state.jobs.contains_key(id.service())
        };
        verdict.actions.extend(
            instances.iter().filter(|(id, _)| !known(id)).filter_map(|(id, instance)| discard(id, instance, &seen)),
        );
        verdict
    }

    /// Returns which of the routes that follow from what is recorded and seen now are in force at the router.
    fn routes_in_force(&self, instances: &BTreeMap<InstanceId, InstanceSeen>, router: &RouterSeen) -> InForce {
        match self.sent.as_ref().filter(|_| router.connected) {
            Some(sent) => sent.in_force(router.version, &routes(&self.state, instances, &self.performer.address)),
            None => InForce::default(),
        }
    }

    /// Sends a new table if what it should say has changed, or the router has one that is not ours.
    fn send_routes(&mut self, instances: &BTreeMap<InstanceId, InstanceSeen>, router: &RouterSeen) {
        // Before both have been reached once, a table would be made of what is not seen: it would take traffic away.
        let reached = router.connected && self.backend_seen.connected;
        if self.sent.is_none() && !reached {
            return;
        }
        let services = routes(&self.state, instances, &self.performer.address);
        if let Some(next) = SentRoutes::next(self.sent.as_ref(), router.version, services) {
            self.router.set(next.table().clone());
            self.sent = Some(next);
        }
    }

    /// Journals events, then evolves the state. If the journal refuses, nothing has happened.
    fn record(&mut self, at: Millis, events: &[Event]) -> Result<(), ControllerError> {
        let mut next = State::clone(&self.state);
        for event in events {
            evolve(&mut next, at, event)?;
        }
        let rows = self.journal.append(at, events)?;
        self.seq = rows.last().map_or(self.seq, |row| row.seq);
        self.state = Arc::new(next);
        Ok(())
    }

    fn show(
        &self,
        at: Millis,
        instances: BTreeMap<InstanceId, InstanceSeen>,
        router: Arc<RouterSeen>,
        waiting: BTreeMap<Name, Vec<Waiting>>,
    ) {
        let problems = self.problems.values().cloned().chain(router.problems.iter().cloned()).collect();
        let routes_in_force = self.routes_in_force(&instances, &router).all();
        let view = View {
            at,
            seq: self.seq,
            state: self.state.clone(),
            instances: Arc::new(instances),
            waiting,
            backend_connected: self.backend_seen.connected,
            router,
            routes_version: self.sent.as_ref().map_or(0, |sent| sent.table().version),
            routes_in_force,
            problems,
        };
        self.publish.send_replace(Arc::new(view));
    }

    /// Carries out a request and returns its answer. Whoever asked may be gone by then; what was recorded stays.
    fn answer(&mut self, request: Request) -> Answer {
        let now = self.clock.now();
        match request {
            Request::Plan { desired, reply } => {
                answer(reply, plan(&desired, &self.state).map_err(ControllerError::from))
            }
            Request::Apply { desired, base, reply } => answer(reply, self.apply(now, &desired, base)),
            Request::Down { reply } => answer(reply, self.down(now)),
            Request::Command { service, command, reply } => answer(reply, self.command(now, service, &command)),
        }
    }

    fn apply(&mut self, now: Millis, desired: &Desired, base: Option<Digest>) -> Result<Plan, ControllerError> {
        if base.is_some_and(|base| base != state_digest(&self.state)) {
            return Err(ControllerError::Moved);
        }
        let plan = plan(desired, &self.state)?;
        let events = apply_events(&self.state, now, &plan, desired)?;
        if !events.is_empty() {
            self.record(now, &events)?;
        }
        Ok(plan)
    }

    fn down(&mut self, now: Millis) -> Result<Plan, ControllerError> {
        let plan = plan_down(&self.state).ok_or(ControllerError::NothingApplied)?;
        let events = down_events(&self.state, now, &plan)?;
        self.record(now, &events)?;
        Ok(plan)
    }

    fn command(&mut self, now: Millis, name: Name, asked: &Command) -> Result<(), ControllerError> {
        let Some(service) = self.state.services.get(&name) else {
            let known = self.state.services.keys().cloned().collect();
            return Err(ControllerError::UnknownService { name, known });
        };
        let events = command(&name, service, now, asked)?;
        if events.is_empty() { Ok(()) } else { self.record(now, &events) }
    }
}

/// The decisions about all services and jobs together.
#[derive(Default)]
struct Verdict {
    events: Vec<Event>,
    actions: Vec<Action>,
    waiting: BTreeMap<Name, Vec<Waiting>>,
    wake_at: Option<Millis>,
}

impl Verdict {
    fn add(&mut self, name: &Name, decision: basalt_rollout::Decision) {
        self.events.extend(decision.events);
        self.actions.extend(decision.actions);
        if !decision.waiting.is_empty() {
            self.waiting.insert(name.clone(), decision.waiting);
        }
        self.wake_at = match (self.wake_at, decision.wake_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Returns what is to be done with an instance of a service that is not recorded: nothing that runs unrecorded stays,
/// and it goes as all others go, once the gateway names it no more and nothing is in flight.
fn discard(id: &InstanceId, instance: &InstanceSeen, seen: &Observation<'_>) -> Option<Action> {
    let (id, generation) = (id.clone(), instance.generation);
    match instance.life {
        Life::Ended { .. } => Some(Action::Forget { instance: id, generation }),
        Life::Starting => Some(Action::Stop { instance: id, generation, within: UNRECORDED_STOP }),
        Life::Running { .. } if seen.cut_off(&id, instance) => {
            Some(Action::Stop { instance: id, generation, within: UNRECORDED_STOP })
        }
        Life::Running { .. } | Life::Absent => None,
    }
}

fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T, ControllerError>) -> Answer {
    Box::new(|| drop(reply.send(result)))
}
