//! A piece of an answer on its way through `h2`, which keeps it until the client takes it.

use bytes::{Buf, Bytes};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Counts a stream of a client as long as anybody has it: who serves it, or its pieces.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// A piece of an answer. Its stream has its place until the client has taken it, or has left.
#[derive(Debug)]
pub(crate) struct Piece {
    content: Bytes,
    #[expect(unused, reason = "it is there to be dropped")]
    place: Place,
}

impl Piece {
    pub(crate) fn new(content: Bytes, place: &Place) -> Self {
        Self { content, place: place.clone() }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.content.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.content.chunk()
    }

    fn advance(&mut self, taken: usize) {
        self.content.advance(taken);
    }
}
