//! Messages with descriptors between two processes of one program: a length, JSON, and descriptors beside it (unix(7)).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many descriptors the kernel passes with one message at most (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// The longest message: what a program can be given as arguments and environment is less (execve(2)).
const LONGEST: usize = 16 << 20;

/// One end of a channel.
#[derive(Debug)]
pub(crate) struct Channel(UnixStream);

impl Channel {
    /// Makes a channel; both ends are closed when another program is executed.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        UnixStream::pair().map(|(a, b)| (Self(a), Self(b)))
    }

    /// Sends a message with descriptors.
    pub(crate) fn send<T: Serialize>(&mut self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::Error::other(format!(
                "there are {} configs, secrets and volumes, and {MOST_DESCRIPTORS} are possible",
                descriptors.len()
            )));
        }
        let length = u32::try_from(text.len()).map_err(io::Error::other)?.to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // Four bytes go at once or not at all.
        rustix::net::sendmsg(self.0.as_fd(), &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
        self.0.write_all(&text)
    }

    /// Receives a message; `None` if the other end is closed.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut length)];
        let got = rustix::net::recvmsg(self.0.as_fd(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if got.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        self.0.read_exact(&mut length[got.bytes..])?;
        let length = u32::from_ne_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::Error::other("a message is too long"));
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text)?;
        Ok(Some((serde_json::from_slice(&text)?, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (mut here, mut there) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        here.send(&"one", &[write.as_fd()]).unwrap();
        here.send(&"two", &[]).unwrap();
        drop((write, here));
        let (text, descriptors) = there.receive::<String>().unwrap().unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("one", 1));
        File::from(descriptors.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x", "the pipe is closed with its last descriptor");
        assert_eq!(there.receive::<String>().unwrap().unwrap().0, "two");
        assert!(there.receive::<String>().unwrap().is_none());
    }
}
