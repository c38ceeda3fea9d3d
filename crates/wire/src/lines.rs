//! JSON values, one a line.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest line sent and taken: a route table of 10,000 instances has about 3 MiB, so this leaves room and still bounds memory.
pub const LONGEST_LINE: u64 = 64 << 20;

/// Why a value could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// The other side sent something that is not the value expected.
    #[error("the other side sent something unexpected")]
    Json(#[from] serde_json::Error),
    /// A line is longer than [`LONGEST_LINE`].
    #[error("a message has more than {} MiB", LONGEST_LINE >> 20)]
    TooLong,
}

/// Splits a connection into its two directions.
pub fn split(stream: UnixStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    (Reader { read: BufReader::new(read), line: Vec::new() }, Writer { write })
}

/// A line with a value in it.
#[derive(Debug)]
pub struct Line(Vec<u8>);

impl Line {
    /// Returns the line of a value.
    ///
    /// # Errors
    /// If it can't be written as JSON, or nobody would take so long a line.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, WireError> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        if line.len() as u64 > LONGEST_LINE { Err(WireError::TooLong) } else { Ok(Self(line)) }
    }

    /// Returns its length in bytes.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// Returns the value.
    ///
    /// # Errors
    /// If it is not a `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        Ok(serde_json::from_slice(&self.0)?)
    }
}

/// The receiving direction.
#[derive(Debug)]
pub struct Reader {
    read: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
}

impl Reader {
    /// Returns the next value, or `None` if the other side has closed the connection.
    ///
    /// Cancel safe: a part of a line that was read stays for the next call.
    ///
    /// # Errors
    /// If the connection breaks or the line is not a `T`.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        self.line().await?.as_ref().map(Line::value).transpose()
    }

    /// Returns the line of the next value, for whoever reads it elsewhere. The rest is as for [`Reader::next`].
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn line(&mut self) -> Result<Option<Line>, WireError> {
        let room = LONGEST_LINE.saturating_sub(self.line.len() as u64);
        (&mut self.read).take(room).read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(Line(std::mem::take(&mut self.line)))),
            Some(_) if self.line.len() as u64 >= LONGEST_LINE => Err(WireError::TooLong),
            Some(_) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// The sending direction.
#[derive(Debug)]
pub struct Writer {
    write: OwnedWriteHalf,
}

impl Writer {
    /// Sends a value.
    ///
    /// # Errors
    /// If the connection breaks, the value can't be written as JSON, or nobody would take so long a line.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), WireError> {
        self.send_line(&Line::of(value)?).await
    }

    /// Sends a value whose line was made elsewhere.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn send_line(&mut self, line: &Line) -> Result<(), WireError> {
        self.write.write_all(&line.0).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_arrive_in_order_and_then_the_end() {
        let (here, there) = UnixStream::pair().unwrap();
        let (_, mut out) = split(here);
        let (mut back, _keep) = split(there);
        out.send(&"one\nline").await.unwrap();
        out.send(&2).await.unwrap();
        drop(out);
        assert_eq!(back.next::<String>().await.unwrap().as_deref(), Some("one\nline"));
        assert_eq!(back.next::<u32>().await.unwrap(), Some(2));
        assert_eq!(back.next::<u32>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn half_a_line_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"{\"a\"").await.unwrap();
        drop(here);
        let (mut back, _keep) = split(there);
        assert!(matches!(back.next::<u32>().await, Err(WireError::Io(_))));
    }
}
