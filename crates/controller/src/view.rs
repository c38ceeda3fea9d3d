//! What the controller shows: one consistent moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{InstanceId, Millis, Name, ReleaseNumber, State, Weight};
use basalt_rollout::{InstanceSeen, Waiting};
use basalt_seam::RouterSeen;

/// What is recorded and seen at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// When.
    pub at: Millis,
    /// The number of the last row of the journal.
    pub seq: u64,
    /// What is recorded.
    pub state: Arc<State>,
    /// What is seen of instances.
    pub instances: Arc<BTreeMap<InstanceId, InstanceSeen>>,
    /// Why it isn't moving, by service or job. A service that waits for nothing is not in it.
    pub waiting: BTreeMap<Name, Vec<Waiting>>,
    /// Whether the keeper is reached.
    pub backend_connected: bool,
    /// What the gateway sees.
    pub router: Arc<RouterSeen>,
    /// The version of the newest route table.
    pub routes_version: u64,
    /// Whether that table is in force at the gateway.
    pub routes_in_force: bool,
    /// What is wrong and needs a person, in sentences.
    pub problems: Vec<String>,
}

impl View {
    /// Returns the shares of traffic of a service's releases; empty if there is no such service.
    pub fn weights(&self, service: &Name) -> BTreeMap<ReleaseNumber, Weight> {
        self.state.services.get(service).map(basalt_rollout::weights).unwrap_or_default()
    }

    /// Returns whether everything is as recorded: no rollout, nothing waited for, every job ended, the routes in force.
    pub fn settled(&self) -> bool {
        self.waiting.is_empty()
            && self.routes_in_force
            && self.state.services.values().all(|s| s.rollout.is_none() && !s.removing)
            && self.state.jobs.values().all(|j| !j.removing)
    }
}
