//! A seeded simulation of the heart in virtual time, with faults. It checks the laws at every step.

mod backend;
mod laws;
mod rng;
mod router;
mod scenario;
mod world;

pub use backend::{Fate, SimBackend, SimInstance};
pub use rng::Rng;
pub use router::SimRouter;
pub use scenario::{any_fate, any_spec, for_seeds, http, name, release};
pub use world::World;
