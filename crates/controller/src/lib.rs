//! The control loop: observe → decide → append → perform, and recovery.
//!
//! It knows adapters only through `basalt-seam`, and must not know transports or terminals. Main types: [`Controller`],
//! the handle that everything else talks to, and [`Parts`], what it is made of.

#![forbid(unsafe_code)]

mod apply;
mod error;
mod handle;
mod heart;
mod observe;
mod perform;
mod recover;
mod view;

pub use error::ControllerError;
pub use handle::{Controller, Parts};
pub use view::View;
