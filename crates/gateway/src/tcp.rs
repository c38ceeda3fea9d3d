//! Connections on which anything is spoken: they are passed on byte by byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::choice::Attempts;
use crate::plane::{Begun, Plane};
use crate::proxy_header;
use crate::waiting;

/// An instance on the same machine accepts within microseconds; a second is for one whose queue is full.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a connection is tried at most: each failure leaves one instance out.
const ATTEMPTS: usize = 16;

/// Passes a connection on to an instance until both sides have ended.
pub(crate) async fn serve(mut client: TcpStream, (peer, local): (SocketAddr, SocketAddr), plane: &Plane) {
    let Some((mut instance, mut begun)) = connect(peer, local, plane).await else { return };
    begun.in_flight.identify(|| format!("{} tcp {local}", peer.ip()));
    // Small messages are not to wait for larger ones; on a socket that is gone this fails, and so does the rest.
    let _ = (client.set_nodelay(true), instance.set_nodelay(true));
    // Either side may break the connection at any time: that is theirs to deal with.
    let _ = copy_bidirectional(&mut client, &mut instance).await;
    drop(begun);
}

async fn connect(peer: SocketAddr, local: SocketAddr, plane: &Plane) -> Option<(TcpStream, Begun)> {
    let SocketAddr::V4(local) = local else { return None };
    let mut attempts = Attempts::default();
    let mut until = None;
    for _ in 0..ATTEMPTS {
        let find = |routing: &crate::routing::Routing| routing.listener(local).map(|(to, _)| to);
        let begun = waiting::begin(plane, find, &mut attempts, &mut until).await.ok()?;
        begun.in_flight.count_request();
        let instance = begun.in_flight.instance();
        let greeting = begun.proxy_protocol.map(|version| proxy_header::header(version, Some((peer, local.into()))));
        let connecting = async {
            let mut stream = TcpStream::connect(begun.address).await?;
            stream.write_all(&greeting.unwrap_or_default()).await?;
            Ok(stream)
        };
        match timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => return Some((stream, begun)),
            Ok(Err(error)) if is_gone(&error) => instance.suspect(begun.address.port(), &error.to_string()),
            Ok(Err(_)) | Err(_) => {}
        }
        begun.in_flight.count_error();
        attempts.failed.push(instance.clone());
    }
    None
}

/// Whether an error means that the instance is not there.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
