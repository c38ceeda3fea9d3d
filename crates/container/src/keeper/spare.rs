//! Places that are prepared before anybody needs them: starting an instance then takes a fraction of the time.

use std::io;

use super::instance::clear;
use super::state::Shared;
use super::watch::Helper;
use crate::create;
use crate::order::Place;

/// How many are kept: one for the instance that replaces one, and one for the next.
const SPARES: usize = 2;

/// A process that has prepared a place, or is about to, and waits for its order.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) place: Place,
    pub(crate) helper: Helper,
}

impl Spare {
    /// Takes a free place and starts preparing it.
    pub(crate) fn start(keeper: &Shared) -> io::Result<Self> {
        let none = || io::Error::other("there are too many instances on this machine");
        let index = keeper.reserve_place().ok_or_else(none)?;
        let begin = || {
            let address = keeper.network.instance_address(index).ok_or_else(none)?;
            let place = Place { keeper: std::process::id(), network: keeper.network.clone(), index, address };
            let mut helper = Helper::start(&keeper.basalt, create::VERB)?;
            helper.tell(&place)?;
            Ok(Self { place, helper })
        };
        begin().inspect_err(|_| keeper.return_place(index))
    }

    /// Ends it and takes away what it has prepared.
    pub(crate) async fn end(self, keeper: &Shared) {
        let index = self.place.index;
        self.helper.kill().await;
        clear(keeper, index).await;
        keeper.return_place(index);
    }
}

/// Returns a place for an instance: a spare one, or one that is prepared now.
pub(crate) async fn take(keeper: &Shared) -> io::Result<Spare> {
    while let Some(mut spare) = keeper.pop_spare() {
        if spare.helper.is_alive() {
            return Ok(spare);
        }
        tracing::warn!(index = spare.place.index, "a spare place was lost");
        spare.end(keeper).await;
    }
    Spare::start(keeper)
}

/// Prepares places until there are enough, unless there is more urgent work: whoever does that comes back here.
pub(crate) fn refill(keeper: &Shared) {
    while !keeper.is_closing() && !keeper.is_busy() && keeper.spares() < SPARES {
        match Spare::start(keeper) {
            Ok(spare) => keeper.push_spare(spare),
            Err(error) => {
                tracing::warn!(%error, "could not prepare a place");
                return;
            }
        }
    }
}

/// Ends all spare places.
pub(crate) async fn drop_all(keeper: &Shared) {
    while let Some(spare) = keeper.pop_spare() {
        spare.end(keeper).await;
    }
}
