//! A client's connection, its two directions apart, so that an answer can be
//! written while a body still comes in.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Bytes asked for at once.
const PIECE: usize = 16 * 1024;

/// What the client sends.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    /// Bytes that have arrived and were not used yet.
    pub held: BytesMut,
}

/// What the client gets.
#[derive(Debug)]
pub struct Writer {
    half: OwnedWriteHalf,
    wait: Duration,
}

/// Takes a connection apart. A write that makes no progress for `send_timeout`
/// fails, and so ends the connection.
#[must_use]
pub fn split(stream: TcpStream, send_timeout: Duration) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let reader = Reader {
        half: read,
        held: BytesMut::new(),
    };
    let writer = Writer {
        half: write,
        wait: send_timeout,
    };
    (reader, writer)
}

impl Reader {
    /// Waits for more bytes. The end of the stream is an `UnexpectedEof`, a
    /// client that keeps silent a `TimedOut`.
    pub async fn fill(&mut self, wait: Duration) -> io::Result<()> {
        self.held.reserve(PIECE);
        match timeout(wait, self.half.read_buf(&mut self.held)).await {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read.map(drop),
        }
    }

    /// Comes back once the client has closed the connection or broken it; never
    /// as long as bytes wait to be read.
    pub async fn gone(&mut self) {
        match self.half.peek(&mut [0]).await {
            Ok(0) | Err(_) => {}
            Ok(_) => std::future::pending().await,
        }
    }
}

impl Writer {
    /// Sends as much as goes at once, and says how much.
    pub async fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = timeout(self.wait, self.half.write(bytes)).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Sends all of it.
    pub async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.send_some(bytes).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        let _already_gone = self.half.shutdown().await;
    }

    /// Both halves again, for a connection that stops speaking HTTP.
    pub fn half(&mut self) -> &mut OwnedWriteHalf {
        &mut self.half
    }
}

impl Reader {
    /// The half itself, for a connection that stops speaking HTTP.
    pub fn half(&mut self) -> &mut OwnedReadHalf {
        &mut self.half
    }
}
