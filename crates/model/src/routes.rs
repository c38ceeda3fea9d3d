//! The route table: what the gateway does, as one versioned value.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Health, InstanceId, Millis, Name, Port, Protocol, ReleaseNumber, Route, Traffic, Weight};

/// Everything the gateway needs to know. It replaces the table before it as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Grows with every change; the gateway acknowledges it.
    pub version: u64,
    /// By service. One that does not change is shared by all tables that have it.
    pub services: BTreeMap<Name, Arc<ServiceRoutes>>,
}

/// One service in the route table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoutes {
    /// Requests from outside that it answers.
    pub routes: Vec<Route>,
    /// Its virtual address, where other instances reach it.
    pub listeners: Vec<Listener>,
    /// How its instances share requests.
    #[serde(default)]
    pub traffic: Traffic,
    /// Its releases that have instances. Weights add up to [`Weight::ALL`], or are all zero.
    pub releases: BTreeMap<ReleaseNumber, ReleaseRoutes>,
}

/// One port of a service's virtual address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Where the gateway listens.
    pub address: SocketAddrV4,
    /// The port's name.
    pub port: Name,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// One release in the route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRoutes {
    /// Share of the service's traffic. An instance of a release with weight zero is only checked.
    pub weight: Weight,
    /// The release's ports.
    pub ports: BTreeMap<Name, Port>,
    /// How its instances are checked.
    pub health: Health,
    /// Time that requests and connections to an instance have once the table no longer names it.
    #[serde(default)]
    pub drain: Millis,
    /// Its instances that may get traffic.
    pub instances: BTreeMap<InstanceId, InstanceRoute>,
}

/// One instance in the route table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRoute {
    /// Where it is reached.
    pub address: Ipv4Addr,
    /// Which start of the instance this is: its health begins anew with each.
    pub generation: u64,
    /// For checks that the gateway can't make itself (command, running): whether it is healthy.
    pub healthy: Option<bool>,
}
