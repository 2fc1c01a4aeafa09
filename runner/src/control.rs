//! What supervisor and worker say to each other, over one socket pair.
//!
//! A message is a byte of kind, four bytes of length, a body, and for some kinds a
//! descriptor that travels with the first byte. The two are the same build: a
//! worker runs the file its supervisor was started from.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::descriptors;

/// Longer than any configuration may be; beyond it the other side is broken.
const MAX_BODY: usize = 64 << 20;

/// A message without its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// To the worker: the configuration's text, to be checked.
    Config(Bytes),
    /// To the supervisor: the configuration can be served.
    Ready,
    /// To the worker, with the listening socket: accept.
    Listen,
    /// To the worker, with a socket from which connections come: serve those too.
    Adopt,
    /// To the worker, with a socket that takes connections: stop accepting, pass on
    /// every connection at its next frame's boundary, end.
    HandOver,
    /// To the worker: serve for a little while, then end.
    Drain,
    /// To the supervisor: the token of this `conf`?
    Assign(Bytes),
    /// To the supervisor: the `conf` of this token?
    Find(u32),
    /// To the worker: the token asked for.
    Token(u32),
    /// To the worker: the `conf` asked for.
    Conf(Option<Bytes>),
    /// To the worker, with the admin endpoint's listening socket: answer there, too.
    Admin,
    /// To the worker: still at work?
    Beat,
    /// To the supervisor: still at work.
    Alive,
    /// To the worker: what is to outlive it?
    Leave,
    /// To the supervisor, what was asked for; to its successor, before `Listen`.
    Left(Bytes),
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Config(text) => (0, text.to_vec()),
            Self::Ready => (1, Vec::new()),
            Self::Listen => (2, Vec::new()),
            Self::Adopt => (3, Vec::new()),
            Self::HandOver => (4, Vec::new()),
            Self::Drain => (5, Vec::new()),
            Self::Assign(conf) => (6, conf.to_vec()),
            Self::Find(token) => (7, token.to_le_bytes().to_vec()),
            Self::Token(token) => (8, token.to_le_bytes().to_vec()),
            Self::Conf(Some(conf)) => (9, conf.to_vec()),
            Self::Conf(None) => (10, Vec::new()),
            Self::Beat => (11, Vec::new()),
            Self::Alive => (12, Vec::new()),
            Self::Leave => (13, Vec::new()),
            Self::Left(legacies) => (14, legacies.to_vec()),
            Self::Admin => (15, Vec::new()),
        };
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        [&[kind], &len.to_le_bytes()[..], &body].concat()
    }

    fn decode(kind: u8, body: Bytes) -> Option<Self> {
        let number = || Some(u32::from_le_bytes(*body.first_chunk()?));
        Some(match kind {
            0 => Self::Config(body),
            1 => Self::Ready,
            2 => Self::Listen,
            3 => Self::Adopt,
            4 => Self::HandOver,
            5 => Self::Drain,
            6 => Self::Assign(body),
            7 => Self::Find(number()?),
            8 => Self::Token(number()?),
            9 => Self::Conf(Some(body)),
            10 => Self::Conf(None),
            11 => Self::Beat,
            12 => Self::Alive,
            13 => Self::Leave,
            14 => Self::Left(body),
            15 => Self::Admin,
            _ => return None,
        })
    }

    fn carries_descriptor(&self) -> bool {
        matches!(
            self,
            Self::Listen | Self::Admin | Self::Adopt | Self::HandOver
        )
    }
}

/// One end of the pair, for sending.
#[derive(Debug)]
pub(crate) struct Sender<'s>(pub(crate) &'s UnixStream);

impl Sender<'_> {
    /// Sends a message. Not to be dropped half-way: the other side would lose its place.
    pub(crate) async fn send(
        &mut self,
        message: &Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let encoded = message.encode();
        let mut rest = encoded.as_slice();
        let mut descriptor = descriptor;
        while !rest.is_empty() {
            let send = || descriptors::send(self.0, rest, descriptor);
            let sent = self.0.async_io(Interest::WRITABLE, send).await?;
            descriptor = None;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// What one end of the pair has received so far.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    bytes: BytesMut,
    descriptors: VecDeque<OwnedFd>,
}

impl Receiver {
    /// The next message with its descriptor; `None` when the other side is gone.
    /// May be dropped while it waits.
    pub(crate) async fn receive(
        &mut self,
        stream: &UnixStream,
    ) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        loop {
            if let Some(message) = self.take()? {
                let descriptor = message.carries_descriptor();
                let descriptor = descriptor.then(|| self.descriptors.pop_front()).flatten();
                return Ok(Some((message, descriptor)));
            }
            let mut chunk = [0; 4096];
            let receive = || descriptors::receive(stream, &mut chunk, &mut self.descriptors);
            match stream.async_io(Interest::READABLE, receive).await {
                Ok(0) => return Ok(None),
                Ok(got) => self
                    .bytes
                    .extend_from_slice(chunk.get(..got).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Message>> {
        let Some([kind, len @ ..]) = self.bytes.first_chunk::<5>() else {
            return Ok(None);
        };
        let (kind, len) = (*kind, u32::from_le_bytes(*len) as usize);
        if len > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.bytes.len() < 5 + len {
            return Ok(None);
        }
        self.bytes.advance(5);
        let body = self.bytes.split_to(len).freeze();
        Message::decode(kind, body)
            .map(Some)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// A socket pair, both ends ready for a runtime.
pub(crate) fn pair() -> io::Result<(StdStream, StdStream)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// Passes one connection on, with a byte that says so.
pub(crate) async fn pass_on(to: &UnixStream, connection: impl AsFd) -> io::Result<()> {
    let send = || descriptors::send(to, &[0], Some(connection.as_fd()));
    to.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Receives connections that are passed on; `None` when there are no more.
pub(crate) async fn take_over(
    from: &UnixStream,
    waiting: &mut VecDeque<OwnedFd>,
) -> io::Result<Option<OwnedFd>> {
    loop {
        if let Some(connection) = waiting.pop_front() {
            return Ok(Some(connection));
        }
        let mut chunk = [0; 16];
        let receive = || descriptors::receive(from, &mut chunk, waiting);
        if from.async_io(Interest::READABLE, receive).await? == 0 && waiting.is_empty() {
            return Ok(None);
        }
    }
}
