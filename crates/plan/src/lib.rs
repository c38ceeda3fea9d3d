//! Desired stack + recorded state → plan, as data. The same value is printed and performed.
//!
//! It must not know effects. Where to start: [`pin`] makes a [`Desired`] of a stack, [`plan`] compares it with what is recorded.

#![forbid(unsafe_code)]

mod compare;
mod desired;
mod fields;

pub use compare::{Change, JobChange, Plan, PlanError, PlannedRelease, ServiceChange, plan, plan_down, state_digest};
pub use desired::{Desired, DesiredJob, DesiredService, PinError, pin};
pub use fields::{FieldChange, field_changes};
