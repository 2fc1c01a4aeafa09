//! APISIX's end of the external-plugin RPC: connections, the token cache, one
//! call at a time. Source: `apisix/plugins/ext-plugin/init.lua`.

pub mod answer;
pub mod tokens;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postern_wire::frame::{FrameType, HEADER_LEN};
use postern_wire::message::Message;
use postern_wire::{ErrorCode, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::clock::Times;
use crate::exchange::End;
use crate::http::answer::LuaError;
use tokens::Tokens;

/// `setkeepalive(180 * 1000, 32)`.
const IDLE: usize = 32;
const IDLE_FOR: f64 = 180.0;
/// `settimeouts(1000, 60000, 60000)`.
const CONNECT: Duration = Duration::from_secs(1);
const SEND_RECEIVE: f64 = 60.0;
/// Call numbers of worker 0 run from 0 to here.
const MOST_IDS: u32 = 1 << 22;

/// Why a call failed.
#[derive(Debug)]
pub enum RpcError {
    /// A 503, or on with the request where degradation is allowed.
    Failed(String),
    /// `conf token not found`: all tokens are dropped and the call is made again.
    TokenNotFound,
    /// The request ends here, without regard to degradation.
    End(End),
}

impl From<LuaError> for RpcError {
    fn from(error: LuaError) -> Self {
        Self::End(End::Lua(error))
    }
}

/// The way to the runner.
#[derive(Debug)]
pub struct Rpc {
    socket: PathBuf,
    times: Times,
    idle: Mutex<VecDeque<(UnixStream, Instant)>>,
    ids: AtomicU32,
    /// What prepare-conf gave.
    pub tokens: Arc<Tokens>,
}

impl Rpc {
    /// No connection yet.
    #[must_use]
    pub fn new(socket: PathBuf, times: Times, tokens: Arc<Tokens>) -> Self {
        Self {
            socket,
            times,
            idle: Mutex::default(),
            ids: AtomicU32::new(0),
            tokens,
        }
    }

    /// The next call's number.
    pub fn next_id(&self) -> u32 {
        self.ids.fetch_add(1, Ordering::Relaxed) % MOST_IDS
    }

    /// An idle connection, the one used last, or a new one. An idle one is not
    /// looked at: if the runner has closed it, the call it serves fails.
    pub async fn connect(&self) -> Result<Connection, RpcError> {
        let wait = self.times.scaled(SEND_RECEIVE);
        if let Some(stream) = self.take_idle() {
            return Ok(Connection { stream, wait });
        }
        let socket = self.socket.display();
        let failed = |why: String| {
            RpcError::Failed(format!(
                "failed to connect to the unix socket {socket}: {why}"
            ))
        };
        match timeout(CONNECT, UnixStream::connect(&self.socket)).await {
            Err(_) => Err(failed("timeout".into())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Ok(Ok(stream)) => Ok(Connection { stream, wait }),
        }
    }

    fn take_idle(&self) -> Option<UnixStream> {
        let oldest = Instant::now().checked_sub(self.times.scaled(IDLE_FOR));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| oldest.is_none_or(|oldest| *since > oldest));
        idle.pop_back().map(|(stream, _)| stream)
    }

    /// Keeps a connection for later. One that holds bytes nobody asked for, or
    /// that is closed already, is dropped.
    pub fn keep(&self, connection: Connection) {
        let stream = connection.stream;
        let quiet = matches!(
            stream.try_read(&mut [0]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        );
        if quiet {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push_back((stream, Instant::now()));
            if idle.len() > IDLE {
                idle.pop_front();
            }
        }
    }
}

/// A connection to the runner.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    wait: Duration,
}

impl Connection {
    /// Sends one message.
    pub async fn send(&mut self, message: &Message) -> Result<(), RpcError> {
        let frame = message
            .encode()
            .map_err(|error| RpcError::Failed(error.to_string()))?;
        match timeout(self.wait, self.stream.write_all(&frame)).await {
            Err(_) => Err(RpcError::Failed("failed to send: timeout".into())),
            Ok(Err(error)) => Err(RpcError::Failed(format!("failed to send: {error}"))),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The next message, which must be of one of these types.
    pub async fn receive(&mut self, wanted: &[FrameType]) -> Result<Message, RpcError> {
        let mut header = Vec::new();
        self.read_to(&mut header, HEADER_LEN).await?;
        let [kind, high, middle, low] = *header.as_slice() else {
            return Err(RpcError::Failed("header too short".into()));
        };
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        let mut body = Vec::new();
        self.read_to(&mut body, len).await?;
        let frame_type = FrameType::try_from(kind).ok();
        let frame_type =
            frame_type.filter(|kind| *kind == FrameType::Error || wanted.contains(kind));
        let Some(frame_type) = frame_type else {
            return Err(RpcError::Failed(format!("unexpected type {kind}")));
        };
        match Message::decode(Side::Runner, frame_type, &body) {
            Ok(Message::Err(ErrorCode::ConfTokenNotFound)) => Err(RpcError::TokenNotFound),
            Ok(Message::Err(code)) => Err(RpcError::Failed(format!("the runner says {code:?}"))),
            Ok(message) => Ok(message),
            Err(postern_wire::DecodeError::UnknownErrorCode(code)) => {
                Err(RpcError::Failed(format!("unknown err {code}")))
            }
            // Lua reads past the end of its string, and throws.
            Err(error) => Err(LuaError::new(format!("a broken buffer: {error}")).into()),
        }
    }

    /// Reads so many bytes. The buffer grows with those that have arrived.
    async fn read_to(&mut self, buffer: &mut Vec<u8>, len: usize) -> Result<(), RpcError> {
        while buffer.len() < len {
            let missing = (len - buffer.len()) as u64;
            let mut rest = (&mut self.stream).take(missing);
            match timeout(self.wait, rest.read_buf(buffer)).await {
                Err(_) => return Err(RpcError::Failed("failed to receive: timeout".into())),
                Ok(Ok(0)) => return Err(RpcError::Failed("failed to receive: closed".into())),
                Ok(Err(error)) => {
                    return Err(RpcError::Failed(format!("failed to receive: {error}")));
                }
                Ok(Ok(_)) => {}
            }
        }
        Ok(())
    }
}
