//! Accept loops, which come and go with the table: one for requests from outside and one for each virtual address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use basalt_model::{Protocol, RouteTable};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::Error;
use crate::connections::Connections;
use crate::gently::gently;
use crate::plane::Plane;
use crate::sockets::Sockets;

/// Pause after a failure to accept: descriptors may be short, and come back by themselves.
const PAUSE: Duration = Duration::from_millis(20);
/// How long connections are still accepted where the gateway before this one has listened and this one does not: some wait there.
const LAST: Duration = Duration::from_secs(1);
/// The name under which the keeper holds the socket for requests from outside.
const OUTSIDE: &str = "http";
/// The same for requests over TLS.
const SECURE: &str = "https";

/// All accept loops.
#[derive(Debug)]
pub(crate) struct Listeners {
    plane: Arc<Plane>,
    connections: Arc<Connections>,
    sockets: Sockets,
    /// `None` once this has stopped: work on a table that goes on then must not listen again beside a successor.
    running: Mutex<Option<BTreeMap<String, Running>>>,
}

/// A socket and its accept loops, if they run.
#[derive(Debug)]
struct Running {
    socket: Arc<TcpListener>,
    address: SocketAddr,
    accepting: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.iter().for_each(AbortHandle::abort);
    }
}

impl Listeners {
    /// Listens for requests from outside; they wait until [`Listeners::accept`].
    ///
    /// # Errors
    /// If the address can't be listened on.
    pub(crate) fn new(
        plane: Arc<Plane>,
        connections: Arc<Connections>,
        sockets: Sockets,
        outside: SocketAddr,
        secure: Option<SocketAddr>,
    ) -> Result<Self, Error> {
        let listen = |name: &str, address: SocketAddr| -> io::Result<Running> {
            let socket = sockets.listen(name, address)?;
            let address = socket.local_addr()?;
            Ok(Running { socket: Arc::new(socket), address, accepting: Vec::new() })
        };
        let mut running = BTreeMap::new();
        for (name, address) in [(OUTSIDE, Some(outside)), (SECURE, secure)] {
            let Some(address) = address else { continue };
            let one = listen(name, address).map_err(|source| Error::Listen { address, source })?;
            running.insert(name.to_owned(), one);
        }
        plane.set_http(running[OUTSIDE].address.to_string());
        if let Some(one) = running.get(SECURE) {
            // Nothing else sets it.
            let _ = plane.edge.https_port.set(one.address.port());
        }
        Ok(Self { plane, connections, sockets, running: Mutex::new(Some(running)) })
    }

    /// Listens on the [`wanted`] addresses of a table that is about to be in force; connections wait until
    /// [`Listeners::accept`]. What can't be listened on is told as a problem and tried again with each call.
    pub(crate) fn prepare(&self, wanted: &BTreeSet<SocketAddrV4>) {
        let mut running = self.running();
        let Some(running) = &mut *running else { return };
        for &address in wanted {
            let name = address.to_string();
            if running.contains_key(&name) {
                continue;
            }
            let socket = self.sockets.listen_beside(&name, address.into());
            let problem = socket.as_ref().err().map(|error| format!("can't listen on `{address}`: {error}"));
            self.plane.set_problem(format!("listen {name}"), problem);
            if let Ok(socket) = socket {
                let address = address.into();
                running.insert(name, Running { socket: Arc::new(socket), address, accepting: Vec::new() });
            }
        }
    }

    /// Accepts on the [`wanted`] addresses of the table in force, and closes the others.
    pub(crate) fn accept(&self, wanted: &BTreeSet<SocketAddrV4>) {
        let wanted: BTreeSet<String> = wanted.iter().map(ToString::to_string).collect();
        let mut running = self.running();
        let Some(running) = &mut *running else { return };
        let before = running.len();
        running.retain(|name, _| name == OUTSIDE || name == SECURE || wanted.contains(name));
        let mut changed = running.len() < before;
        for (name, one) in running.iter_mut().filter(|(_, one)| one.accepting.is_empty()) {
            self.start(name, one);
            changed = true;
        }
        self.plane.keep_problems(|what| what.strip_prefix("listen ").is_none_or(|name| wanted.contains(name)));
        if changed {
            self.keep(running);
        }
    }

    /// Has the keeper hold all sockets: it may have been restarted.
    pub(crate) fn keep_all(&self) {
        if let Some(running) = &*self.running() {
            self.keep(running);
        }
    }

    fn keep(&self, running: &BTreeMap<String, Running>) {
        // Without any table, nobody knows yet which of those for virtual addresses are wanted.
        let is_known = self.plane.routing().version > 0;
        let is_outside = |name: &str| name == OUTSIDE || name == SECURE;
        let left = self.sockets.take_left(|name| is_known || is_outside(name));
        let copies = running.iter().filter_map(|(name, one)| Some((name.as_str(), copy(&one.socket).ok()?)));
        self.sockets.keep(copies);
        for (name, left) in left {
            // Inside, nobody is there any more who could answer.
            if is_outside(&name)
                && let Err(error) = self.accept_last(&name, left.into())
            {
                tracing::warn!("connections that wait at `{name}` of before are lost: {error}");
            }
        }
    }

    /// Accepts at a socket.
    fn start(&self, name: &str, one: &mut Running) {
        let secure = name == SECURE;
        one.accepting = self
            .connections
            .accept(|| accept(one.socket.clone(), one.address, secure, self.plane.clone(), self.connections.clone()));
    }

    /// Accepts what waits at a socket that is no longer wanted.
    fn accept_last(&self, name: &str, socket: TcpListener) -> io::Result<()> {
        let address = socket.local_addr()?;
        let mut one = Running { socket: Arc::new(socket), address, accepting: Vec::new() };
        self.start(name, &mut one);
        self.plane.runtime.spawn(async move {
            sleep(LAST).await;
            drop(one);
        });
        Ok(())
    }

    /// Stops accepting. The keeper's copies go on listening for the next gateway.
    pub(crate) fn stop(&self) {
        *self.running() = None;
    }

    fn running(&self) -> MutexGuard<'_, Option<BTreeMap<String, Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the virtual addresses of a table.
pub(crate) fn wanted(table: &RouteTable) -> BTreeSet<SocketAddrV4> {
    gently(table.services.values()).flat_map(|service| &service.listeners).map(|listener| listener.address).collect()
}

fn copy(socket: &TcpListener) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// Accepts until the task is ended.
async fn accept(
    socket: Arc<TcpListener>,
    address: SocketAddr,
    secure: bool,
    plane: Arc<Plane>,
    connections: Arc<Connections>,
) {
    let socket = loop {
        // Each thread waits by itself.
        match socket.try_clone().and_then(tokio::net::TcpListener::from_std) {
            Ok(socket) => break socket,
            Err(error) => tracing::warn!("can't accept on `{address}`: {error}"),
        }
        sleep(PAUSE).await;
    };
    loop {
        let (stream, peer) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A client that has left already is no problem; all else may be.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!("can't accept on `{address}`: {error}");
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        let local = local(&stream, address);
        if secure {
            connections.serve_https(stream, peer, local);
            continue;
        }
        match protocol_inside(&plane, local) {
            Some(Protocol::Tcp) => connections.serve_tcp(stream, peer, local),
            http => connections.serve_http(stream, peer, local, http.is_some()),
        }
    }
}

/// Returns the address that a client has connected to.
fn local(stream: &TcpStream, address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() { stream.local_addr().unwrap_or(address) } else { address }
}

/// Returns what is spoken at an address, if it is a virtual one.
fn protocol_inside(plane: &Plane, local: SocketAddr) -> Option<Protocol> {
    let SocketAddr::V4(local) = local else { return None };
    plane.routing().listener(local).map(|(_, protocol)| protocol)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use tokio::runtime::Handle;

    use super::*;
    use crate::forwarded::Trust;
    use crate::limits::Limits;

    #[tokio::test]
    async fn who_has_stopped_listens_no_more() {
        let data = tempfile::tempdir().unwrap();
        let plane = Plane::new(Handle::current());
        let trust = Trust { networks: vec![], proxy_protocol: false };
        let connections = Connections::new(plane.clone(), 1, Limits::default(), trust).unwrap();
        let sockets = Sockets::take_back(data.path().join("fdstore.sock"));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = Listeners::new(plane, connections, sockets, any, None).unwrap();
        let free = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let SocketAddr::V4(virtual_address) = free else { unreachable!("it is one of IPv4") };
        let wanted = BTreeSet::from([virtual_address]);
        listeners.prepare(&wanted);
        assert!(TcpStream::connect(free).is_ok());
        listeners.stop();
        // A table that was on its way.
        listeners.prepare(&wanted);
        listeners.accept(&wanted);
        assert!(TcpStream::connect(free).is_err());
    }
}
