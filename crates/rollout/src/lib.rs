//! The rollout machine: pure decisions about services, jobs and their instances.
//!
//! It must not know effects, nor any time other than what it is told.

#![forbid(unsafe_code)]

mod observation;

pub use observation::{Action, Decision, IllegalEvent, InstanceSeen, Life, Observation, Waiting};
