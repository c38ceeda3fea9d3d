//! Pieces of a body on their way through `h2`, which keeps each until the other side takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

/// How many pieces of a body may be on their way at once: each costs some 300 bytes beside what it holds, which may be a few.
const MOST: usize = 64;
const HALF: usize = MOST / 2;

/// The pieces of one stream that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    count: AtomicUsize,
    /// Who waits until there is room for more, or none is left.
    sender: AtomicWaker,
    /// Counts a stream of a client as long as anybody has it: who serves it, or its pieces.
    #[expect(unused, reason = "it is there to be dropped")]
    place: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    /// Returns those of a client's stream, which has a place until the client has taken all, or has left.
    pub(crate) fn of(place: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self { place: Some(place), ..Self::default() })
    }

    /// Is ready when there may be one more. One task may wait for anything here.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_at_most(MOST - 1, cx)
    }

    /// Is ready when none is left.
    pub(crate) fn poll_none(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_at_most(0, cx)
    }

    fn poll_at_most(&self, most: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.count.load(SeqCst) <= most {
            return Poll::Ready(());
        }
        self.sender.register(cx.waker());
        // Looked at again: one may have gone just before anybody was registered.
        if self.count.load(SeqCst) <= most { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Piece {
    content: Bytes,
    of: Arc<Pieces>,
}

impl Piece {
    pub(crate) fn new(content: Bytes, of: &Arc<Pieces>) -> Self {
        of.count.fetch_add(1, SeqCst);
        Self { content, of: of.clone() }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // Not at the first of many: who waits is to send many at once.
        if let HALF | 1 = self.of.count.fetch_sub(1, SeqCst) {
            self.of.sender.wake();
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn small_pieces_are_not_many() {
        let pieces = Arc::new(Pieces::default());
        let mut taken: Vec<Piece> = (0..MOST).map(|_| Piece::new(Bytes::new(), &pieces)).collect();
        let room = || timeout(Duration::from_secs(1), poll_fn(|cx| pieces.poll_room(cx)));
        assert!(room().await.is_err());
        let (waited, ()) = tokio::join!(room(), async { taken.truncate(HALF - 1) });
        assert!(waited.is_ok() && room().await.is_ok());
        let none = || timeout(Duration::from_secs(1), poll_fn(|cx| pieces.poll_none(cx)));
        assert!(none().await.is_err());
        let (waited, ()) = tokio::join!(none(), async { taken.clear() });
        assert!(waited.is_ok());
    }
}
