//! What carries requests to instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_model::{InstanceId, RouteTable};
use serde::{Deserialize, Serialize};

/// Routes requests by a table and says what it sees.
pub trait Router: Send + Sync {
    /// Takes a table and returns at once. Once it is in force, [`Router::seen`] shows its version.
    /// A table older than the one in force is refused.
    fn set(&self, table: Arc<RouteTable>);

    /// Returns what is there now.
    fn seen(&self) -> Arc<RouterSeen>;
}

/// What a router sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterSeen {
    /// Whether the rest is true now.
    pub connected: bool,
    /// The version of the table in force: no request that arrives from now on is handled by an older one.
    pub version: u64,
    /// Every instance that the table in force names, and every other one that still has requests in flight.
    pub instances: BTreeMap<InstanceId, InstanceTraffic>,
    /// Where it takes HTTP requests from outside.
    pub http: Option<String>,
    /// What is wrong, for people: for example an address that could not be listened on.
    pub problems: Vec<String>,
}

/// An instance as the router sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceTraffic {
    /// Which start of the instance the table names.
    pub generation: u64,
    /// Whether the table in force names it.
    pub named: bool,
    /// Whether it is healthy; `None` before the first verdict.
    pub healthy: Option<bool>,
    /// For people: how the last check ended.
    pub last_probe: Option<String>,
    /// Requests and connections under way to it.
    pub in_flight: u64,
    /// Requests sent to it so far.
    pub requests: u64,
    /// Requests that it answered with a status of 500 or more, or not at all.
    pub errors: u64,
}
