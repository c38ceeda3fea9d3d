//! Blocks to nouns. Every fault is reported on the way and a placeholder taken, so that all faults are found at once;
//! what was decoded is used only if there were none.

mod health;
mod image;
mod job;
mod provision;
mod release;
mod rollout;
mod route;
mod rules;
mod service;
mod traffic;

use std::collections::BTreeMap;

use basalt_model::{Bake, JobSpec, Name, ServiceSpec};

use crate::check::Places;
use crate::eval::Evaluator;
use crate::reader::Reader;
use crate::sealed::Sealed;
use crate::tree::Block;
use crate::value::Kind;

/// A block that declares something, its name read.
pub(crate) struct Declared<'b> {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    pub(crate) block: &'b Block,
}

/// What a stack holds.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) images: BTreeMap<Name, Bake>,
    pub(crate) services: BTreeMap<Name, ServiceSpec>,
    pub(crate) jobs: BTreeMap<Name, JobSpec>,
    /// What secrets of the stack's own making hold.
    pub(crate) sealed: BTreeMap<Name, Sealed>,
}

/// Decodes one block.
pub(crate) fn block(ev: &Evaluator, declared: &Declared, content: &mut Content, places: &mut Places) {
    let name = declared.name.clone();
    let reader = Reader::block(ev, declared.block, format!("{} `{name}`", declared.kind));
    match declared.kind {
        Kind::Image => drop(content.images.insert(name.clone(), image::image(reader, &name, places))),
        Kind::Service => {
            drop(content.services.insert(name.clone(), service::service(reader, &name, places, &mut content.sealed)))
        }
        Kind::Job => drop(content.jobs.insert(name.clone(), job::job(reader, &name, places, &mut content.sealed))),
        // Secrets are referred to, never declared.
        Kind::Secret => {}
    }
}
