//! Listening sockets: made, or taken back from the keeper, who holds a copy of each so that a restart refuses no connection.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use basalt_wire::fdstore::FdStore;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use socket2::SockRef;

/// Connections that may wait to be accepted: what arrives while the gateway restarts (the kernel's own limit,
/// net.core.somaxconn, is 4096 since Linux 5.4).
const BACKLOG: i32 = 4096;

/// How long a connection is silent before its peer is asked whether it is still there; four more answers may fail to come.
const SILENT: Duration = Duration::from_secs(60);

/// How much the kernel takes of an answer before it can send it. With its own bound, of some mebibytes, a slow client seems to take
/// nothing for minutes.
const UNSENT: u32 = 256 << 10;

/// Makes listening sockets, and keeps a copy of each at the keeper.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The keeper's socket. Nobody need listen there: then sockets are only not kept.
    store: PathBuf,
    /// Sockets of the gateway before this one, until they are wanted.
    left: Mutex<BTreeMap<String, OwnedFd>>,
}

impl Sockets {
    /// Takes back the sockets that the gateway before this one has left at the keeper.
    pub(crate) fn take_back(store: PathBuf) -> Self {
        let left = FdStore::connect(&store).and_then(|store| store.take_all()).unwrap_or_default();
        Self { store, left: Mutex::new(left.into_iter().collect()) }
    }

    /// Returns a socket that listens on an address: the one kept under this name, or a new one.
    ///
    /// # Errors
    /// If the address can't be listened on.
    pub(crate) fn listen(&self, name: &str, address: SocketAddr) -> io::Result<TcpListener> {
        self.listen_with(name, address, false)
    }

    /// Returns a socket that listens on a virtual address; a socket on all addresses may have the same port.
    ///
    /// # Errors
    /// If the address can't be listened on.
    pub(crate) fn listen_beside(&self, name: &str, address: SocketAddr) -> io::Result<TcpListener> {
        self.listen_with(name, address, true)
    }

    fn listen_with(&self, name: &str, address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
        let fits = |left: &OwnedFd| {
            let at = SockRef::from(left).local_addr().ok().and_then(|at| at.as_socket());
            at.is_some_and(|at| at == address || address.port() == 0 && at.ip() == address.ip())
        };
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = if all.get(name).is_some_and(fits) { all.remove(name) } else { None };
        drop(all);
        let listener = match left {
            Some(left) => left.into(),
            None => bind(address, beside)?,
        };
        if address.ip().is_unspecified() {
            // Only now: two gateways must not share an address.
            sockopt::set_socket_reuseport(&listener, true)?;
        }
        // Connections have this from their listener: whoever has vanished without a word is found, and holds up no drain.
        sockopt::set_socket_keepalive(&listener, true)?;
        sockopt::set_tcp_keepidle(&listener, SILENT)?;
        sockopt::set_tcp_keepintvl(&listener, SILENT / 4)?;
        sockopt::set_tcp_keepcnt(&listener, 4)?;
        // Small messages are not to wait for larger ones.
        sockopt::set_tcp_nodelay(&listener, true)?;
        SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Has the keeper hold copies of these sockets, and no others but those that may still be wanted. Does nothing without a keeper.
    pub(crate) fn keep<'a>(&self, wanted: impl Iterator<Item = (&'a str, OwnedFd)>) {
        let Ok(store) = FdStore::connect(&self.store) else { return };
        let wanted: BTreeMap<&str, OwnedFd> = wanted.collect();
        let result = store.take_all().and_then(|kept| {
            let kept: BTreeMap<String, OwnedFd> = kept.into_iter().collect();
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            for name in kept.keys().filter(|name| !wanted.contains_key(name.as_str()) && !left.contains_key(*name)) {
                store.drop(name)?;
            }
            for (name, socket) in &wanted {
                if !kept.get(*name).is_some_and(|kept| same(kept, socket)) {
                    store.put(name, socket.as_fd())?;
                }
            }
            Ok(())
        });
        if let Err(error) = result {
            tracing::warn!("the keeper does not hold the listening sockets: {error}");
        }
    }

    /// Returns what the gateway before this one has left and nobody wants, by name.
    pub(crate) fn take_left(&self, unwanted: impl Fn(&str) -> bool) -> BTreeMap<String, OwnedFd> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let taken;
        (taken, *left) = std::mem::take(&mut *left).into_iter().partition(|(name, _)| unwanted(name));
        taken
    }
}

/// Whether two descriptors are the same socket.
fn same(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Listens on an address, whether or not the machine has it already.
fn bind(address: SocketAddr, beside: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv4() {
        // A virtual address may be given to the machine only later.
        sockopt::set_ip_freebind(&socket, true)?;
    }
    match rustix::net::bind(&socket, &address) {
        // Beside a socket on all addresses, one on this address alone can be had if both allow it.
        Err(Errno::ADDRINUSE) if beside => {
            sockopt::set_socket_reuseport(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
        }
        result => result?,
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_machine_does_not_have_can_be_listened_on() {
        let data = tempfile::tempdir().unwrap();
        let sockets = Sockets::take_back(data.path().join("none"));
        let address = "192.0.2.77:8080".parse().unwrap();
        let listener = sockets.listen("x", address).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        let error = sockets.listen("y", address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn all_addresses_are_listened_on_once_and_one_of_them_beside() {
        let data = tempfile::tempdir().unwrap();
        let sockets = Sockets::take_back(data.path().join("none"));
        let all = sockets.listen("all", "0.0.0.0:0".parse().unwrap()).unwrap();
        let port = all.local_addr().unwrap().port();
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        for refused in ["0.0.0.0", "127.0.0.5"] {
            let error = sockets.listen("x", address(refused)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{refused}");
        }
        let one = sockets.listen_beside("x", address("127.0.0.5")).unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.5", port)).unwrap();
        one.set_nonblocking(false).unwrap();
        let (accepted, peer) = one.accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let is = SockRef::from(&accepted);
        assert!(is.tcp_nodelay().unwrap() && is.tcp_notsent_lowat().unwrap() == UNSENT);
    }
}
