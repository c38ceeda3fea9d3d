//! Images of registries over HTTP(S) (OCI distribution spec): tags become digests, images come into an OCI image layout,
//! and go from content-addressed files to a registry with the same bytes.
//!
//! Every byte is checked against its digest while it streams; what was fetched before a break is hashed again and the rest
//! asked for. It must not know where images are kept, nor who runs them. Main type: [`Registry`].

#![forbid(unsafe_code)]

mod cache;
mod challenge;
mod credentials;
mod download;
mod error;
mod helper;
mod http;
mod patience;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod remote;
mod rules;
mod settings;
mod token;
mod upload;

pub use error::{Error, Result};
pub use patience::Patience;
pub use progress::Progress;
pub use pull::Pulled;
pub use push::Image;
pub use reference::Reference;
pub use registry::{Registry, Resolved};
pub use settings::Settings;
