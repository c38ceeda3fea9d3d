//! The nouns of Basalt, and the one way each is written down.
//!
//! Everything here is plain data: no I/O, no clock, no randomness, no async. Higher floors decide with these
//! values ([`State`], [`Event`]), adapters carry them out ([`Release`], [`RouteTable`]).
//! [`manifest`] is how images are described on their way.
//! Where to start: [`Stack`] (what is wanted), [`Release`] (how one instance runs), [`State`] (what is recorded).

#![forbid(unsafe_code)]

mod canonical;
mod debian;
mod event;
mod exit;
mod id;
mod image;
pub mod manifest;
mod release;
mod rollout;
mod route;
mod routes;
mod stack;
mod state;
mod units;

pub use canonical::{canonical_bytes, digest_of};
pub use debian::{Debian, DebianLock, DebianPin, InvalidLock, LockedName};
pub use event::{Event, Outcome, StopReason};
pub use exit::Exit;
pub use id::{Digest, Generation, InstanceId, InvalidDigest, InvalidInstanceId, InvalidName, Name, ReleaseNumber};
pub use image::{
    Bake, BakeFrom, BakeStep, CopyFrom, CopyStep, Dockerfile, FileStep, ImageConfig, ImageSource, RunInput, RunStep,
    Tools,
};
pub use release::{
    ConfigFile, Health, HealthCheck, Kind, Limits, Port, Protocol, ProxyProtocol, Release, SecretFile, SecretRef,
    Volume,
};
pub use rollout::{CanaryStep, Phase, Rollout, RolloutSpec, Share, Strategy};
pub use route::{
    CertificateSource, ClientCertificates, Eject, ErrorPage, HashOn, Page, Place, RateLimit, Redirect, Route, Rules,
    Sticky, Tls, Traffic,
};
pub use routes::{InstanceRoute, Listener, ReleaseRoutes, RouteTable, ServiceRoutes};
pub use stack::{JobSpec, ServiceSpec, Settings, Stack};
pub use state::{Instance, InstanceState, Job, JobState, LastRollout, Service, State, Warm};
pub use units::{Bytes, CpuMillis, Millis, Weight};
