//! Connections on which anything is spoken: they are passed on byte by byte.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::choice::Attempts;
use crate::http1::attempt::{self, ATTEMPTS};
use crate::http1::tunnel::Both;
use crate::plane::{Begun, Plane};
use crate::proxy_header;
use crate::waiting;

/// Passes a connection on to an instance until both sides have ended, or its instance has to.
pub(crate) async fn serve(mut client: TcpStream, (peer, local): (SocketAddr, SocketAddr), plane: &Plane) {
    let Some((mut instance, mut begun)) = connect(peer, local, plane).await else { return };
    begun.in_flight.identify(|| format!("{} tcp {local}", peer.ip()));
    let mut both = Both::default();
    let mut cut = pin!(begun.in_flight.instance().cut());
    // Either side may break the connection at any time: that is theirs to deal with.
    let whole = poll_fn(|cx| match both.poll(cx, &mut client, &mut instance) {
        Poll::Pending => cut.as_mut().poll(cx).map(|()| false),
        Poll::Ready(ended) => Poll::Ready(ended.is_ok()),
    })
    .await;
    if !whole {
        // An instance must not take what was cut short for whole: it gets a reset. A client gets an end, behind all that was for it.
        let _ = SockRef::from(&instance).set_linger(Some(Duration::ZERO));
    }
}

async fn connect(peer: SocketAddr, local: SocketAddr, plane: &Plane) -> Option<(TcpStream, Begun)> {
    let SocketAddr::V4(local) = local else { return None };
    let mut attempts = Attempts::default();
    let mut until = None;
    for _ in 0..ATTEMPTS {
        let find = |routing: &crate::routing::Routing| routing.listener(local).map(|(to, _)| to);
        let begun = waiting::begin(plane, find, &mut attempts, &mut until).await.ok()?;
        begun.in_flight.count_request();
        let greeting = begun.proxy_protocol.map(|version| proxy_header::header(version, Some((peer, local.into()))));
        let opening = async {
            let mut stream = attempt::connect(begun.address).await?;
            // A connection that is new takes it at once.
            stream.write_all(&greeting.unwrap_or_default()).await?;
            Ok(stream)
        };
        match opening.await {
            Ok(stream) => return Some((stream, begun)),
            Err(error) => attempt::note_refused(&begun, &mut attempts, &error, false),
        };
    }
    None
}
