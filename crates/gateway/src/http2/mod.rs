//! HTTP/2 (RFC 9113): connections from clients, and gRPC to instances. Frames are the business of `h2`.

pub(crate) mod connection;
pub(crate) mod grpc;
pub(crate) mod piece;
pub(crate) mod pool;
pub(crate) mod stream;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use piece::{Piece, Pieces};

/// How much of one stream's body may wait here; the rest waits at its sender.
const WINDOW: u32 = 128 << 10;
/// The largest header list, as over HTTP/1.
const LARGEST_HEAD: u32 = crate::http1::head::LARGEST_HEAD as u32;

/// Sends as much as the other side has room for, until nothing is left; with its last piece, the stream's end if it is `last`.
fn poll_send(
    stream: &mut SendStream<Piece>,
    pieces: &Arc<Pieces>,
    data: &mut Bytes,
    last: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    while !data.is_empty() {
        ready!(pieces.poll_room(cx));
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            ready!(stream.poll_capacity(cx)).unwrap_or_else(|| Err(Reason::CANCEL.into()))?;
        }
        let room = stream.capacity().min(data.len());
        if room > 0 {
            let piece = data.split_to(room);
            stream.send_data(Piece::new(piece, pieces), last && data.is_empty())?;
        }
    }
    Poll::Ready(Ok(()))
}
