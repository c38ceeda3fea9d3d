//! Pulling and pushing, from and to a registry in this process that can be made to misbehave.

#![allow(missing_docs)]

mod fake;
mod logins;
mod pulls;
mod pushes;
