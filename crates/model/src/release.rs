//! The release: everything that decides how an instance behaves (law 1), and nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Bytes, CpuMillis, Digest, Millis, Name, Route, digest_of};

/// An immutable description of how one service or job runs.
///
/// Its id is the SHA-256 of its canonical bytes. How many instances run, how a rollout proceeds, tags, clocks and host
/// names are not in it: they live in [`Settings`](crate::Settings).
///
/// Fields added later must be skipped when they are at their default, so that the ids of recorded releases stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// Whether it runs on and on, or to its end.
    pub kind: Kind,
    /// The digest of the image manifest. Before images are pinned: of nothing (all zeros).
    pub image: Digest,
    /// Replaces what the image says to run.
    pub command: Option<Vec<String>>,
    /// Environment variables; they win over those of the image.
    pub env: BTreeMap<String, String>,
    /// Replaces the user that the image names.
    pub user: Option<String>,
    /// Replaces the working directory that the image names.
    pub workdir: Option<String>,
    /// Ports by name.
    pub ports: BTreeMap<Name, Port>,
    /// Read-only files.
    pub configs: BTreeMap<String, ConfigFile>,
    /// Read-only files on tmpfs, each a pinned version of a secret, by path.
    pub secrets: BTreeMap<String, SecretFile>,
    /// Environment variables that are secrets, each a pinned version, by the variable's name; they win over those of `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_secrets: BTreeMap<String, SecretRef>,
    /// Paths that get an empty tmpfs which dies with the instance.
    pub scratch: Vec<String>,
    /// Directories that survive instances, by path.
    pub volumes: BTreeMap<String, Volume>,
    /// What it may use.
    pub limits: Limits,
    /// Capabilities it keeps, without the `CAP_` prefix; all others are dropped.
    pub capabilities: Vec<String>,
    /// Whether it may reach addresses outside the machine.
    pub egress: bool,
    /// Services it may reach by name.
    pub connects_to: Vec<Name>,
    /// When it counts as healthy.
    pub health: Health,
    /// The requests from outside that it answers.
    pub routes: Vec<Route>,
}

impl Release {
    /// Returns the names of the secrets that it needs; one that it needs twice stands twice.
    pub fn secret_names(&self) -> impl Iterator<Item = &Name> {
        let files = self.secrets.values().map(|file| &file.name);
        files.chain(self.env_secrets.values().map(|secret| &secret.name))
    }

    /// Returns the release that runs an image as it is: everything else is at its default.
    pub fn new(kind: Kind, image: Digest) -> Self {
        Self {
            kind,
            image,
            command: None,
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            ports: BTreeMap::new(),
            configs: BTreeMap::new(),
            secrets: BTreeMap::new(),
            env_secrets: BTreeMap::new(),
            scratch: Vec::new(),
            volumes: BTreeMap::new(),
            limits: Limits::default(),
            capabilities: Vec::new(),
            egress: false,
            connects_to: Vec::new(),
            health: Health::default(),
            routes: Vec::new(),
        }
    }

    /// Returns a volume that only one instance may have at a time, if there is one.
    pub fn exclusive_volume(&self) -> Option<&Volume> {
        self.volumes.values().find(|volume| !volume.shared)
    }

    /// Returns the id: the SHA-256 of the canonical bytes.
    pub fn id(&self) -> Digest {
        digest_of(self)
    }
}

/// Whether a release runs on and on, or to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Runs until it is replaced.
    Service,
    /// Runs to its end once.
    Job,
}

/// A port that an instance listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Port {
    /// The port inside the instance, 1 to 65535.
    pub container: u16,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The header that each connection begins with, so that the instance learns whose it is; `None` is none. Only over TCP:
    /// requests of HTTP say it themselves (`X-Forwarded-For`), and those of many clients share a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Port {
    /// Returns a port on which connections begin with what clients say.
    pub const fn new(container: u16, protocol: Protocol) -> Self {
        Self { container, protocol, proxy_protocol: None }
    }
}

/// A version of the PROXY protocol (HAProxy's `proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP: requests are balanced one by one and retried where that is safe.
    Http,
    /// Anything over TCP: connections are balanced.
    Tcp,
}

/// A read-only file given by the stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfigFile {
    /// What it holds.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

/// A file with one version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretFile {
    /// The secret.
    pub name: Name,
    /// Its version; 0 before it is pinned.
    pub version: u64,
    /// Permission bits.
    pub mode: u32,
}

/// One version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SecretRef {
    /// The secret.
    pub name: Name,
    /// Its version; 0 before it is pinned.
    pub version: u64,
}

/// A directory that survives instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Volume {
    /// The volume.
    pub name: Name,
    /// Whether several instances may have it at once.
    pub shared: bool,
}

/// What an instance may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limits {
    /// Processor time; `None` is no limit.
    pub cpu: Option<CpuMillis>,
    /// Memory, swap included; `None` is no limit.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for Limits {
    /// No limit on processor and memory; 1024 processes, which is far above what servers use and far below what hurts a machine.
    fn default() -> Self {
        Self { cpu: None, memory: None, pids: 1024 }
    }
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = HealthSettings))]
pub struct Health {
    /// What is asked.
    pub check: HealthCheck,
    /// Time between two checks.
    pub interval: Millis,
    /// Time after which a check has failed.
    pub timeout: Millis,
    /// Successes in a row that make an instance healthy.
    pub healthy_after: u32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: u32,
    /// Time from its start within which an instance must be healthy.
    pub start_within: Millis,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            check: HealthCheck::Running,
            interval: Millis::seconds(1),
            timeout: Millis(500),
            healthy_after: 2,
            unhealthy_after: 3,
            start_within: Millis::seconds(30),
        }
    }
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthCheck {
    /// `GET path` is answered with a status of 200 to 399.
    Http {
        /// The request target.
        path: String,
        /// The port's name.
        port: Name,
    },
    /// A connection is accepted.
    Tcp {
        /// The port's name.
        port: Name,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2 is answered with `SERVING`.
    Grpc {
        /// The service that is asked about; empty is the whole server.
        service: String,
        /// The port's name.
        port: Name,
    },
    /// A program of the image, run inside the instance, ends with status 0.
    Command(Vec<String>),
    /// The instance runs.
    Running,
}

impl HealthCheck {
    /// Returns the port that is asked over the network; `None` where nothing is.
    pub fn port(&self) -> Option<&Name> {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } | Self::Grpc { port, .. } => Some(port),
            Self::Command(_) | Self::Running => None,
        }
    }
}
