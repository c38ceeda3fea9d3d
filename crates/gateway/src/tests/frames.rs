//! A client that speaks HTTP/2 frame by frame (RFC 9113), well or badly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Types of frames (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Kind, flags, stream, payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

/// An HTTP/2 connection, frame by frame.
pub(crate) struct Frames {
    pub(crate) stream: TcpStream,
}

impl Frames {
    /// Connects and begins well.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&Self::frame(kind::SETTINGS, 0, 0, &[])).await.unwrap();
        Self { stream }
    }

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A whole request for `http://a/`, with `GET`.
    pub(crate) fn get(&self, stream: u32) -> Vec<u8> {
        Self::frame(kind::HEADERS, 0x5, stream, &[0x82, 0x84, 0x86, 0x41, 0x01, b'a'])
    }

    /// The head of a call of gRPC.
    pub(crate) fn call(stream: u32) -> Vec<u8> {
        let kind = b"application/grpc";
        let head = [&[0x83, 0x84, 0x86, 0x41, 0x01, b'a', 0x0f, 0x10, kind.len() as u8], &kind[..]].concat();
        Self::frame(kind::HEADERS, 0x4, stream, &head)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads until the first frame of this stream that says how it ends, or the connection does.
    pub(crate) async fn answer(&mut self, stream: u32) -> Frame {
        let read = async {
            loop {
                match self.read().await {
                    Ok(frame) if frame.0 == kind::GOAWAY => return frame,
                    Ok(frame) if frame.2 == stream && [kind::HEADERS, kind::RST_STREAM].contains(&frame.0) => {
                        return frame;
                    }
                    Ok(_) => {}
                    Err(_) => return (kind::GOAWAY, 0, 0, Vec::new()),
                }
            }
        };
        timeout(Duration::from_secs(10), read).await.expect("there is an answer")
    }

    /// Reads until the gateway ends the connection.
    pub(crate) async fn until_closed(&mut self) -> Vec<Frame> {
        let mut seen = Vec::new();
        let read = async {
            while let Ok(frame) = self.read().await {
                seen.push(frame);
            }
        };
        timeout(Duration::from_secs(10), read).await.expect("the connection is ended");
        seen
    }
}
