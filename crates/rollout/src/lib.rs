//! The rollout machine: pure decisions about services, jobs and their instances.
//!
//! It must not know effects, nor any time other than what it is told. [`decide`] looks at what is recorded and seen and
//! answers with a [`Decision`]; [`evolve`] alone changes what is recorded. Between the two stands the shape: how many
//! instances each release should have, and which [`weights`], as a pure function of what is recorded. A rollout's
//! phases only change the shape, and one reconciler makes instances match it, in rollouts and in steady state alike.

#![forbid(unsafe_code)]

mod act;
mod callers;
mod command;
mod decide;
mod evolve;
mod evolve_instance;
mod evolve_job;
mod evolve_service;
mod failure;
mod job;
mod lifecycle;
mod machine;
mod observation;
mod pause;
mod reconcile;
mod routes;
mod sent;
mod shape;
mod view;

pub use callers::{Caller, callers};
pub use command::{Command, Refused, command, start_rollout};
pub use decide::decide;
pub use evolve::evolve;
pub use job::decide_job;
pub use observation::{Action, Decision, IllegalEvent, InstanceSeen, Life, Observation, Waiting};
pub use routes::routes;
pub use sent::{InForce, SentRoutes};
pub use shape::weights;
