//! One connection as frames, with its reusable buffers.
//!
//! Between frames a connection may be silent for any time: the gateway keeps idle
//! ones for 180 s, and one that we close costs it a request. Inside a frame, time is
//! bounded, and memory follows the bytes that have arrived.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use postern_wire::frame::{Decoder, Frame};
use postern_wire::read::ExtraInfoResp;
use postern_wire::write::{Ask, Writer};
use postern_wire::{FrameError, FrameType, TooLarge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::WaitForCancellationFuture;

use crate::extra::{Extra, ExtraError, Question};

/// What a connection reads at once: most calls fit, and take one system call.
const READ: usize = 4 * 1024;

/// One connection.
pub(crate) struct Link {
    stream: UnixStream,
    decoder: Decoder,
    /// For our questions; answers are written aside, while the call still borrows this.
    questions: Writer,
    /// How long the rest of a frame may take, in and out.
    patience: Duration,
    /// A question has been sent and its answer not been read to its end.
    asking: bool,
}

/// What came between two frames.
pub(crate) enum Next {
    /// A whole frame.
    Frame(Frame),
    /// The peer closed at a frame's boundary.
    Closed,
    /// The connection is idle and has been called back.
    Recalled,
}

/// Why a connection ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer closed inside a frame")]
    Cut,
    #[error("the peer took longer over a frame than limits.frameMs allows")]
    Slow,
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Link {
    pub(crate) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            questions: Writer::new(),
            patience,
            asking: false,
        }
    }

    /// The socket again. Only sound at a frame's boundary, which [`Next::Recalled`] is.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// The next frame. `recall` is looked at only while the connection is idle.
    pub(crate) async fn next(
        &mut self,
        mut recall: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Result<Next, LinkError> {
        if let Some(frame) = self.decoder.next_frame()? {
            return Ok(Next::Frame(frame));
        }
        if self.decoder.pending() == 0 {
            let read = tokio::select! {
                biased;
                read = fill(&mut self.stream, &mut self.decoder) => read?,
                () = recall.as_mut() => return Ok(Next::Recalled),
            };
            if read == 0 {
                return Ok(Next::Closed);
            }
        }
        self.rest().await.map(Next::Frame)
    }

    /// The frame that has begun to arrive.
    async fn rest(&mut self) -> Result<Frame, LinkError> {
        if let Some(frame) = self.decoder.next_frame()? {
            return Ok(frame);
        }
        // From the first byte on: a byte a second is slow, too.
        let deadline = Instant::now() + self.patience;
        loop {
            let fill = fill(&mut self.stream, &mut self.decoder);
            let read = timeout_at(deadline, fill)
                .await
                .map_err(|_| LinkError::Slow)??;
            if read == 0 {
                return Err(LinkError::Cut);
            }
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(frame);
            }
        }
    }

    /// Sends a frame, with one system call where the peer keeps up.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> Result<(), LinkError> {
        send(&mut self.stream, frame, self.patience).await
    }

    /// Whether an answer is still to come that nobody waits for any more: the next
    /// frame would be taken for something else, so the connection must end.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.asking
    }

    async fn ask(
        &mut self,
        question: Question<'_>,
        limit: usize,
    ) -> Result<Option<Bytes>, ExtraError> {
        // One call at a time: bytes before our question are no answer to it.
        if self.decoder.pending() > 0 {
            return Err(ExtraError::Malformed(
                "bytes came ahead of the question".into(),
            ));
        }
        let ask = match question {
            Question::Var(name) => Ask::Var(name.as_bytes()),
            Question::RequestBody => Ask::ReqBody,
            Question::ResponseBody => Ask::RespBody,
        };
        self.asking = true;
        let frame = self
            .questions
            .extra_info(ask)
            .map_err(|error| gone(error.into()))?;
        send(&mut self.stream, frame, self.patience)
            .await
            .map_err(gone)?;
        // The gateway may wait for a slow client before it answers with a body: the
        // chain's deadline bounds the beginning, the frame's patience the rest.
        let read = fill(&mut self.stream, &mut self.decoder).await?;
        if read == 0 {
            return Err(ExtraError::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        let frame = self.rest().await.map_err(gone)?;
        if frame.frame_type != FrameType::ExtraInfo {
            return Err(ExtraError::Malformed(format!(
                "a frame of type {}",
                frame.frame_type
            )));
        }
        let answer = ExtraInfoResp::read(&frame.body);
        let answer = answer.map_err(|error| ExtraError::Malformed(error.to_string()))?;
        self.asking = false;
        match answer.result() {
            Some(bytes) if bytes.len() > limit => Err(ExtraError::TooLarge { limit }),
            // A part of the frame: no copy, and the frame's memory lives as long as it.
            Some(bytes) => Ok(Some(frame.body.slice_ref(bytes))),
            None => Ok(None),
        }
    }
}

async fn send(stream: &mut UnixStream, frame: &[u8], patience: Duration) -> Result<(), LinkError> {
    let sent = match stream.try_write(frame) {
        Ok(sent) => sent,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error.into()),
    };
    match frame.get(sent..) {
        None | Some([]) => Ok(()),
        Some(rest) => {
            let write = stream.write_all(rest);
            Ok(timeout(patience, write)
                .await
                .map_err(|_| LinkError::Slow)??)
        }
    }
}

async fn fill(stream: &mut UnixStream, decoder: &mut Decoder) -> io::Result<usize> {
    let idle = decoder.pending() == 0;
    let room = decoder.room();
    if idle {
        // Takes the whole of the last frame's memory back instead of what was left behind it.
        room.reserve(READ);
    }
    stream.read_buf(room).await
}

fn gone(error: LinkError) -> ExtraError {
    match error {
        LinkError::Io(error) => ExtraError::Gone(error),
        other => ExtraError::Malformed(other.to_string()),
    }
}

impl Extra for Link {
    fn ask<'s>(
        &'s mut self,
        question: Question<'s>,
        limit: usize,
    ) -> BoxFuture<'s, Result<Option<Bytes>, ExtraError>> {
        Link::ask(self, question, limit).boxed()
    }
}
