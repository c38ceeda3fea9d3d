//! The whole loop against adapters held in memory: what it records, does, and takes up again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_controller::{Controller, ControllerError, Parts, View};
use basalt_model::{
    Digest, Event, Exit, ImageConfig, InstanceId, Kind, Millis, Name, Outcome, Release, RolloutSpec, RouteTable,
    Settings, Strategy,
};
use basalt_plan::{Desired, DesiredJob, DesiredService};
use basalt_rollout::Command;
use basalt_seam::{
    Backend, BackendInstance, BackendSeen, BackendState, Clock, Depot, DepotError, InstanceAction, InstanceTraffic,
    Journal, JournalError, MountPoints, PinnedImage, Router, RouterSeen, Row, SecretBytes, Secrets, SecretsError, Wake,
};
use tokio::sync::Notify;

/// Adapters that do at once what they are asked.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    backend: BackendSeen,
    router: RouterSeen,
    rows: Vec<Row>,
    wake: Option<Wake>,
    /// Jobs and services whose instances end as soon as they start.
    ending: BTreeMap<Name, Exit>,
    missing_image: bool,
}

impl World {
    fn new() -> Self {
        let world = Self::default();
        world.with(|w| (w.backend.connected, w.router.connected) = (true, true));
        world
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.0.lock().unwrap();
        let result = act(&mut inner);
        let wake = inner.wake.clone();
        drop(inner);
        if let Some(wake) = wake {
            wake();
        }
        result
    }

    /// Starts a controller on what the world holds: a fresh one, or one that takes up where another was killed.
    fn controller(&self) -> Controller {
        let notify = Arc::new(Notify::new());
        let wake = notify.clone();
        self.with(|w| w.wake = Some(Arc::new(move || wake.notify_one())));
        Controller::start(Parts {
            journal: Box::new(self.clone()),
            reader: Box::new(self.clone()),
            backend: Arc::new(self.clone()),
            router: Arc::new(self.clone()),
            depot: Arc::new(self.clone()),
            secrets: Arc::new(self.clone()),
            clock: Arc::new(self.clone()),
            address: Box::new(|slot| Ipv4Addr::from(0x0a40_0000 + u32::from(slot))),
            wake: notify,
        })
        .unwrap()
    }

    fn kinds(&self) -> Vec<&'static str> {
        self.with(|w| w.rows.iter().map(|row| row.event.kind()).collect())
    }

    fn running(&self) -> Vec<String> {
        let runs = |i: &BackendInstance| matches!(i.state, BackendState::Running { .. });
        self.with(|w| w.backend.instances.iter().filter(|(_, i)| runs(i)).map(|(id, _)| id.to_string()).collect())
    }
}

impl Backend for World {
    fn perform(&self, action: InstanceAction) {
        self.with(|w| match action {
            InstanceAction::Start(start) => {
                let state = match w.ending.get(start.id.service()) {
                    Some(exit) => {
                        BackendState::Ended { exit: exit.clone(), at: Millis(1), last_lines: vec!["bye".to_owned()] }
                    }
                    None => BackendState::Running { pid: 1, since: Millis(1) },
                };
                let address = Some(Ipv4Addr::new(10, 64, 16, start.id.ordinal() as u8));
                let instance =
                    BackendInstance { generation: start.generation, state, address, healthy: None, last_probe: None };
                w.backend.instances.insert(start.id.clone(), instance);
            }
            InstanceAction::Stop { id, .. } => {
                let routed = w.router.instances.get(&id).is_some_and(|t| t.named);
                assert!(!routed, "law 3: {id} is stopped while the gateway names it");
                if let Some(instance) = w.backend.instances.get_mut(&id) {
                    instance.state = BackendState::Ended { exit: Exit::Code(0), at: Millis(2), last_lines: Vec::new() };
                }
            }
            InstanceAction::Forget { id, .. } => {
                w.backend.instances.remove(&id);
            }
        });
    }

    fn seen(&self) -> Arc<BackendSeen> {
        Arc::new(self.0.lock().unwrap().backend.clone())
    }
}

impl Router for World {
    fn set(&self, table: Arc<RouteTable>) {
        self.with(|w| {
            assert!(table.version > w.router.version, "versions only grow");
            w.router.version = table.version;
            let named = table.services.values().flat_map(|s| s.releases.values()).flat_map(|r| &r.instances);
            w.router.instances = named
                .map(|(id, route)| {
                    let generation = route.generation;
                    (id.clone(), InstanceTraffic { generation, named: true, healthy: Some(true), ..Default::default() })
                })
                .collect();
        });
    }

    fn seen(&self) -> Arc<RouterSeen> {
        Arc::new(self.0.lock().unwrap().router.clone())
    }
}

impl Journal for World {
    fn append(&mut self, at: Millis, events: &[Event]) -> Result<Vec<Row>, JournalError> {
        let mut inner = self.0.lock().unwrap();
        let first = inner.rows.len() as u64 + 1;
        let hash = Digest::from_bytes([0; 32]);
        let rows: Vec<Row> =
            events.iter().zip(first..).map(|(event, seq)| Row { seq, at, event: event.clone(), hash }).collect();
        inner.rows.extend(rows.clone());
        Ok(rows)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<Row>, JournalError> {
        let inner = self.0.lock().unwrap();
        Ok(inner.rows.iter().skip(after as usize).take(limit).cloned().collect())
    }
}

impl Depot for World {
    fn image(&self, digest: &Digest, _: &MountPoints) -> Result<PinnedImage, DepotError> {
        if self.0.lock().unwrap().missing_image {
            return Err(DepotError { digest: *digest, what: "it is not in the depot".to_owned(), source: None });
        }
        Ok(PinnedImage {
            digest: *digest,
            erofs: "/depot/image".into(),
            objects: "/depot/objects".into(),
            config: ImageConfig::default(),
        })
    }
}

impl Secrets for World {
    fn latest(&self, _: &Name) -> Result<Option<u64>, SecretsError> {
        Ok(Some(1))
    }

    fn reveal(&self, _: &Name, _: u64) -> Result<SecretBytes, SecretsError> {
        Ok(SecretBytes::new(b"hush".to_vec()))
    }
}

impl Clock for World {
    #[allow(clippy::disallowed_methods)] // the loop sleeps in real time here
    fn now(&self) -> Millis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Millis(since.as_millis() as u64)
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn release(kind: Kind, version: &str) -> Arc<Release> {
    Arc::new(Release {
        env: BTreeMap::from([("VERSION".to_owned(), version.to_owned())]),
        ..Release::new(kind, Digest::from_bytes([1; 32]))
    })
}

/// A stack with `web`, two instances, after the job `migrate`.
fn desired(version: &str) -> Desired {
    let rollout = RolloutSpec { strategy: Strategy::BlueGreen, ..RolloutSpec::default() };
    let settings = Settings { instances: 2, depends_on: vec![name("migrate")], rollout, ..Settings::default() };
    let web = DesiredService { release: release(Kind::Service, version), settings };
    let timeout = Millis::seconds(60);
    let migrate = DesiredJob { release: release(Kind::Job, "1"), retries: 0, timeout, depends_on: Vec::new() };
    Desired {
        stack: name("shop"),
        services: BTreeMap::from([(name("web"), web)]),
        jobs: BTreeMap::from([(name("migrate"), migrate)]),
    }
}

/// Waits until the view is as wanted.
async fn until(controller: &Controller, what: &str, wanted: impl Fn(&View) -> bool) -> Arc<View> {
    let mut views = controller.watch();
    let waited = tokio::time::timeout(Duration::from_secs(10), views.wait_for(|view| wanted(view))).await;
    match waited {
        Ok(view) => view.unwrap().clone(),
        Err(_) => panic!("not within 10 s: {what}; the view is {:#?}", controller.view()),
    }
}

fn serves(number: u32) -> impl Fn(&View) -> bool {
    move |view| view.settled() && view.state.services.get(&name("web")).is_some_and(|s| s.stable == Some(number))
}

fn world_where_jobs_end() -> World {
    let world = World::new();
    world.with(|w| w.ending.insert(name("migrate"), Exit::Code(0)));
    world
}

#[tokio::test]
async fn from_nothing_to_an_update_and_back_and_to_nothing() {
    let world = world_where_jobs_end();
    let controller = world.controller();
    controller.apply(desired("1"), None).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
    assert_eq!(world.running(), ["web-1-1", "web-1-2"]);
    let kinds = world.kinds();
    let place = |kind| kinds.iter().position(|k| *k == kind).unwrap();
    assert!(place("job_succeeded") < place("instance_requested"), "{kinds:?}");

    // Law 6: the second apply writes nothing.
    let before = world.kinds().len();
    assert!(!controller.apply(desired("1"), None).await.unwrap().has_changes());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.kinds().len(), before, "{:?}", &world.kinds()[before..]);

    controller.apply(desired("2"), None).await.unwrap();
    until(&controller, "the second release serves", serves(2)).await;
    assert_eq!(world.running(), ["web-2-1", "web-2-2"]);

    controller.command(name("web"), Command::Rollback { to: None }).await.unwrap();
    until(&controller, "the first release serves again", serves(1)).await;
    assert_eq!(world.running(), ["web-1-1", "web-1-2"]);

    controller.down().await.unwrap();
    until(&controller, "nothing is left", |v| v.settled() && v.state.services.is_empty() && v.state.jobs.is_empty())
        .await;
    assert_eq!(world.running(), [""; 0]);
    assert!(world.with(|w| w.backend.instances.is_empty() && w.router.instances.is_empty()));
}

#[tokio::test]
async fn a_killed_controller_is_taken_up_without_a_new_event() {
    let world = world_where_jobs_end();
    let controller = world.controller();
    controller.apply(desired("1"), None).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
    drop(controller);
    let before = world.kinds().len();
    let controller = world.controller();
    until(&controller, "the first release serves still", serves(1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.kinds().len(), before, "{:?}", &world.kinds()[before..]);
    assert_eq!(world.running(), ["web-1-1", "web-1-2"]);
}

#[tokio::test]
async fn a_dead_instance_is_replaced() {
    let world = world_where_jobs_end();
    let controller = world.controller();
    controller.apply(desired("1"), None).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
    let id: InstanceId = "web-1-2".parse().unwrap();
    world.with(|w| {
        let exit = BackendState::Ended { exit: Exit::Signal(9), at: Millis(3), last_lines: vec!["ouch".to_owned()] };
        w.backend.instances.get_mut(&id).unwrap().state = exit;
    });
    let again = |view: &View| view.state.services[&name("web")].instances.get(&id).is_some_and(|i| i.generation == 3);
    until(&controller, "it runs again", |view| again(view) && view.settled()).await;
    assert_eq!(world.running(), ["web-1-1", "web-1-2"]);
    let exits = world.with(|w| w.rows.iter().filter(|row| matches!(&row.event, Event::InstanceExited { exit: Exit::Signal(9), last_lines, .. } if last_lines == &["ouch"])).count());
    assert_eq!(exits, 1);
}

#[tokio::test]
async fn a_release_that_can_not_start_leaves_the_old_one_serving() {
    let world = world_where_jobs_end();
    let controller = world.controller();
    controller.apply(desired("1"), None).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
    world.with(|w| w.missing_image = true);
    controller.apply(desired("2"), None).await.unwrap();
    let over = |view: &View| {
        view.settled() && view.state.services[&name("web")].last_rollout.as_ref().is_some_and(|r| r.target == 2)
    };
    let view = until(&controller, "the rollout is over", over).await;
    let web = &view.state.services[&name("web")];
    assert_eq!(web.stable, Some(1));
    match &web.last_rollout.as_ref().unwrap().outcome {
        Outcome::RolledBack { reason } => assert!(reason.contains("it is not in the depot"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.running(), ["web-1-1", "web-1-2"]);
}

#[tokio::test]
async fn a_failed_job_keeps_the_service_from_starting_and_the_next_apply_tries_again() {
    let world = World::new();
    world.with(|w| w.ending.insert(name("migrate"), Exit::Code(3)));
    let controller = world.controller();
    controller.apply(desired("1"), None).await.unwrap();
    let over =
        |view: &View| view.settled() && view.state.services.get(&name("web")).is_some_and(|s| s.last_rollout.is_some());
    until(&controller, "the rollout is over", over).await;
    assert!(!world.kinds().contains(&"instance_requested"), "{:?}", world.kinds());
    world.with(|w| w.ending.insert(name("migrate"), Exit::Code(0)));
    controller.apply(desired("1"), None).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
}

#[tokio::test]
async fn refusals_change_nothing() {
    let world = world_where_jobs_end();
    let controller = world.controller();
    assert!(matches!(controller.down().await, Err(ControllerError::NothingApplied)));
    let plan = controller.plan(desired("1")).await.unwrap();
    controller.apply(desired("1"), Some(plan.base)).await.unwrap();
    until(&controller, "the first release serves", serves(1)).await;
    let before = world.kinds().len();
    assert!(matches!(controller.apply(desired("2"), Some(plan.base)).await, Err(ControllerError::Moved)));
    let unknown = controller.command(name("wbe"), Command::Promote).await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no service `wbe`; there are: web");
    assert!(matches!(controller.command(name("web"), Command::Promote).await, Err(ControllerError::Refused(_))));
    assert_eq!(world.kinds().len(), before);
}
