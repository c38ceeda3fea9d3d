//! Open descriptors kept by the keeper for another process, so that its listening sockets outlive it (SCM_RIGHTS, unix(7)).

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;

/// The longest message: a name and some punctuation; what is longer is not from a friend.
const LONGEST_MESSAGE: usize = 4096;

/// How many descriptors are kept at most: a gateway of 4,000 services has one each; the default limit of open files is higher for root.
const MOST_KEPT: usize = 8192;

/// How long the client waits for an answer: the keeper answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    TakeAll,
    Put(String),
    Drop(String),
}

/// What the server answers: for `TakeAll` one `Kept` with a descriptor each and then `Done`, for the others `Done`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Kept(String),
    Done,
    Refused(String),
}

/// The client: hands descriptors to the keeper and gets them back after a restart. Blocking; answers come from memory.
#[derive(Debug)]
pub struct FdStore {
    socket: UnixStream,
}

impl FdStore {
    /// Connects to the keeper's socket (`DATA/run/fdstore.sock`).
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Returns a copy of every descriptor that is kept, with its name. They stay kept.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn take_all(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut inbox = Inbox::default();
        send(self.socket.as_fd(), &Request::TakeAll, None)?;
        let mut kept = Vec::new();
        loop {
            match self.answer(&mut inbox)? {
                Answer::Kept(name) => kept.push((name, inbox.fd()?)),
                Answer::Done => return Ok(kept),
                Answer::Refused(why) => return Err(io::Error::other(why)),
            }
        }
    }

    /// Keeps a copy of a descriptor under a name; one kept under the same name before is closed.
    ///
    /// # Errors
    /// If the connection breaks or the store is full.
    pub fn put(&self, name: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.ask(&Request::Put(name.to_owned()), Some(fd))
    }

    /// Closes the descriptor kept under a name, if there is one.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn drop(&self, name: &str) -> io::Result<()> {
        self.ask(&Request::Drop(name.to_owned()), None)
    }

    fn ask(&self, request: &Request, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        send(self.socket.as_fd(), request, fd)?;
        match self.answer(&mut Inbox::default())? {
            Answer::Done => Ok(()),
            Answer::Refused(why) => Err(io::Error::other(why)),
            Answer::Kept(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn answer(&self, inbox: &mut Inbox) -> io::Result<Answer> {
        loop {
            if let Some(answer) = inbox.next()? {
                return Ok(answer);
            }
            if inbox.receive(self.socket.as_fd())? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The server's side: the descriptors that are kept.
#[derive(Debug, Default)]
pub struct Kept(std::cell::RefCell<BTreeMap<String, OwnedFd>>);

impl Kept {
    /// Closes all of them.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    fn handle(&self, request: Request, inbox: &mut Inbox) -> io::Result<Vec<(Answer, Option<OwnedFd>)>> {
        let mut kept = self.0.borrow_mut();
        let done = vec![(Answer::Done, None)];
        Ok(match request {
            Request::Drop(name) => {
                kept.remove(&name);
                done
            }
            Request::Put(name) => {
                let fd = inbox.fd()?;
                if kept.len() >= MOST_KEPT && !kept.contains_key(&name) {
                    vec![(Answer::Refused(format!("{MOST_KEPT} descriptors are kept already")), None)]
                } else {
                    kept.insert(name, fd);
                    done
                }
            }
            Request::TakeAll => {
                let copies = kept.iter().map(|(name, fd)| Ok((Answer::Kept(name.clone()), Some(fd.try_clone()?))));
                copies.collect::<io::Result<Vec<_>>>()?.into_iter().chain(done).collect()
            }
        })
    }
}

/// Serves one client until it closes the connection.
///
/// # Errors
/// If the connection breaks or the client says something unexpected.
pub async fn serve(stream: tokio::net::UnixStream, kept: Rc<Kept>) -> io::Result<()> {
    let mut inbox = Inbox::default();
    loop {
        while let Some(request) = inbox.next()? {
            for (answer, fd) in kept.handle(request, &mut inbox)? {
                loop {
                    stream.writable().await?;
                    let fd = fd.as_ref().map(AsFd::as_fd);
                    match stream.try_io(Interest::WRITABLE, || send(stream.as_fd(), &answer, fd)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => break result?,
                    }
                }
            }
        }
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || inbox.receive(stream.as_fd())) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// What has arrived: bytes of lines, and descriptors in the order of the lines that speak of them.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    fds: std::collections::VecDeque<OwnedFd>,
}

impl Inbox {
    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut bytes = [0; LONGEST_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let iov = &mut [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(socket, iov, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&bytes[..got.bytes]);
        Ok(got.bytes)
    }

    fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.bytes.iter().position(|b| *b == b'\n') {
            Some(end) => {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                Ok(Some(serde_json::from_slice(&line)?))
            }
            None if self.bytes.len() > LONGEST_MESSAGE => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }

    fn fd(&mut self) -> io::Result<OwnedFd> {
        self.fds.pop_front().ok_or_else(|| io::Error::other("a message came without its descriptor"))
    }
}

/// Sends one line, with a descriptor beside its bytes. A line is far smaller than a socket's buffer, so it goes whole or not at all.
fn send<T: Serialize>(socket: BorrowedFd<'_>, value: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    if line.len() > LONGEST_MESSAGE {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&line)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Runs `client` in a thread against a server that lives as long as it does.
    fn with_store(client: impl FnOnce(&Path) + Send + 'static) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fdstore.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let kept = Rc::new(Kept::default());
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(stream, kept.clone()));
                }
            });
            tokio::task::spawn_blocking(move || client(&path)).await.unwrap();
        });
    }

    #[test]
    fn a_listening_socket_outlives_who_opened_it() {
        with_store(|path| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let store = FdStore::connect(path).unwrap();
            assert!(store.take_all().unwrap().is_empty());
            store.put("http", listener.as_fd()).unwrap();
            store.put("other", listener.as_fd()).unwrap();
            drop((store, listener));

            let waiting = TcpStream::connect(address).expect("the kept socket still listens");
            let mut kept = FdStore::connect(path).unwrap().take_all().unwrap();
            let (name, fd) = kept.remove(0);
            assert_eq!((name.as_str(), kept.len()), ("http", 1));
            let (_, peer) = TcpListener::from(fd).accept().unwrap();
            assert_eq!(peer, waiting.local_addr().unwrap());
        });
    }

    #[test]
    fn what_is_dropped_is_closed() {
        with_store(|path| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let store = FdStore::connect(path).unwrap();
            for n in 0..300 {
                store.put(&n.to_string(), listener.as_fd()).unwrap();
            }
            assert_eq!(store.take_all().unwrap().len(), 300);
            drop(listener);
            for n in 0..300 {
                store.drop(&n.to_string()).unwrap();
            }
            assert!(store.take_all().unwrap().is_empty());
            assert!(TcpStream::connect(address).is_err());
        });
    }
}
