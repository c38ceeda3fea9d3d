//! The store of secrets: encrypted files, a version each, under one key.
//!
//! XChaCha20-Poly1305 with a random nonce; name and version are bound to the content, so that files can't be swapped. It
//! keeps secrets from who reads the disk or a backup without the key, not from root on the running machine.
//!
//! It must not know what a secret is for, nor which release pins it. Main type: [`SecretStore`].

#![forbid(unsafe_code)]

mod error;
mod file;
mod key;
mod store;

pub use error::{Error, Result};
pub use store::{SecretInfo, SecretStore};
