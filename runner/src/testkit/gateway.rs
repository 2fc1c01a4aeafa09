//! A gateway's end of the RPC, with the runner in the same process.

use std::sync::Arc;

use anyhow::Context as _;
use postern_wire::Side;
use postern_wire::frame::{Decoder, Frame};
use postern_wire::message::{Entry, Info, Message, PrepareConfReq};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::Simulated;
use crate::RunnerConfig;
use crate::extra::Question;
use crate::registry::Registry;
use crate::rpc::connection;
use crate::rpc::prepare::Ledger;
use crate::rpc::tokens::Tokens;
use crate::worker::Worker;
use crate::worker::peers::Peers;

/// A connection as APISIX has it: one call at a time, questions answered in between.
pub struct Gateway {
    stream: UnixStream,
    decoder: Decoder,
    /// Whoever answers, where that is in this process.
    worker: Option<Arc<Worker>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Gateway");
        shown.field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Serves the plugins in this process, on the current runtime, until the
    /// connection is dropped.
    ///
    /// # Errors
    /// When no socket pair can be made.
    pub fn serving(registry: Registry, config: &RunnerConfig) -> anyhow::Result<Self> {
        let ledger = Ledger::Own(std::sync::Mutex::new(Tokens::new(
            config.limits.configurations,
        )));
        let stop = CancellationToken::new();
        let worker = Worker::new(config, Peers::default(), registry, ledger, &stop);
        Self::of(worker, stop)
    }

    fn of(worker: Arc<Worker>, stop: CancellationToken) -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let serving = Arc::clone(&worker);
        tokio::spawn(async move {
            connection::serve(&serving.service, theirs, &CancellationToken::new()).await;
            stop.cancel();
        });
        let mut gateway = Self::over(ours);
        gateway.worker = Some(worker);
        Ok(gateway)
    }

    /// A second connection to the plugins of [`Gateway::serving`], for as long as the first.
    ///
    /// # Errors
    /// When no socket pair can be made, or the runner is a process of its own.
    pub fn beside(&self) -> anyhow::Result<Self> {
        let worker = self.worker.clone().context("connect to its socket")?;
        Self::of(worker, CancellationToken::new())
    }

    /// Speaks over a connection that is there already.
    #[must_use]
    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            worker: None,
        }
    }

    /// Exchanges a route's `conf` for a token.
    ///
    /// # Errors
    /// When the runner answers with an error, or not at all.
    pub async fn prepare(&mut self, key: &str, conf: &[(&str, &str)]) -> anyhow::Result<u32> {
        let conf = conf
            .iter()
            .map(|(name, value)| Entry::new(*name, *value))
            .collect();
        let request = PrepareConfReq {
            conf,
            key: key.into(),
        };
        match self.exchange(&Message::PrepareConfReq(request)).await? {
            Message::PrepareConfResp { conf_token } => Ok(conf_token),
            other => anyhow::bail!("no token but {other:?}"),
        }
    }

    /// Has a request judged, answering the runner's questions about it.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no message.
    pub async fn call(&mut self, token: u32, request: &Simulated) -> anyhow::Result<Message> {
        let mut answer = self
            .exchange(&Message::HttpReqCallReq(request.call(token)?))
            .await?;
        while let Message::ExtraInfoReq(info) = answer {
            let result = match &info {
                Info::Var(Some(name)) => request.answer(Question::Var(std::str::from_utf8(name)?)),
                Info::ReqBody => request.answer(Question::RequestBody),
                Info::Var(None) | Info::RespBody | Info::Bare(_) | Info::Unknown(_) => None,
            };
            let result = result.map(|bytes| bytes.to_vec());
            answer = self.exchange(&Message::ExtraInfoResp { result }).await?;
        }
        Ok(answer)
    }

    /// Sends a message and waits for the next one.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no message.
    pub async fn exchange(&mut self, message: &Message) -> anyhow::Result<Message> {
        self.send(&message.encode()?).await?;
        self.receive()
            .await?
            .context("the runner closed the connection")
    }

    /// Sends bytes, whatever they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next message; `None` if the runner has closed the connection.
    ///
    /// # Errors
    /// When what comes is no message, or ends early.
    pub async fn receive(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some(Frame { frame_type, body }) = self.decoder.next_frame()? {
                return Ok(Some(Message::decode(Side::Runner, frame_type, &body)?));
            }
            if self.stream.read_buf(self.decoder.room()).await? == 0 {
                anyhow::ensure!(
                    self.decoder.pending() == 0,
                    "the runner closed inside a frame"
                );
                return Ok(None);
            }
        }
    }
}
