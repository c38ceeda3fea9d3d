//! A seeded simulation of the heart in virtual time, with faults. It checks the laws at every step.

mod backend;
mod laws;
mod rng;
mod router;
mod world;

pub use backend::{Fate, SimBackend, SimInstance};
pub use rng::Rng;
pub use router::SimRouter;
pub use world::World;
