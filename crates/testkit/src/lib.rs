//! What tests, the demo and the bench stand on: a load generator, and an app that misbehaves on demand.
//!
//! Nothing here is part of the shipped binary, and it knows of Basalt only the heart. Its main types are [`load::Load`]
//! and [`testapp::TestApp`].

#![forbid(unsafe_code)]

mod client;
mod clock;
pub mod load;
pub mod sim;
pub mod testapp;

pub use client::was_not_taken;
