//! HTTP and JSON over a unix socket: the controller's handlers, their client, and the public JSON.
//!
//! It alone knows the public JSON; it must not know how anything is decided, nor terminals. Where to start: [`Status`]
//! (what is shown), [`serve`] (who answers) and [`Client`] (how to ask).

#![forbid(unsafe_code)]

mod client;
mod hooks;
mod public;
mod server;
mod show;

pub use client::{Client, ClientError, Feed};
pub use hooks::{Hooks, LogLines, LogSource};
pub use public::*;
pub use server::{openapi, router, serve};
pub use show::{event, releases, sentence, status};
