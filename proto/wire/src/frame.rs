//! Frames: one byte of type, three bytes of length (big-endian), then that many
//! bytes of one FlatBuffers buffer. Source: `apisix/plugins/ext-plugin/init.lua`.
//!
//! Bytes are read into [`Decoder::room`], whole frames taken out with
//! [`Decoder::next_frame`]. A length is only a claim: room grows with the bytes
//! that have arrived, so a header that promises 16 MiB costs a few KiB.

use bytes::{Buf as _, Bytes, BytesMut};

/// Bytes in front of every buffer: type and length.
pub const HEADER_LEN: usize = 4;
/// The longest buffer that three bytes can announce.
pub const MAX_LEN: usize = (1 << 24) - 1;

/// How much more than it already holds a decoder makes room for, at least.
const ROOM: usize = 4 * 1024;
/// A buffer that a longer frame has blown up is given back, not kept.
const KEEP: usize = 64 * 1024;

/// What a frame is about. An answer has its call's type, or [`FrameType::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// `RPC_ERROR`: an error in place of an answer.
    Error = 0,
    /// `RPC_PREPARE_CONF`: a route's plugins, exchanged for a token.
    PrepareConf = 1,
    /// `RPC_HTTP_REQ_CALL`: a request before it goes upstream.
    HttpReqCall = 2,
    /// `RPC_EXTRA_INFO`: a variable or a body, asked for by the runner during a call.
    ExtraInfo = 3,
    /// `RPC_HTTP_RESP_CALL`: an upstream's answer before it goes to the client.
    HttpRespCall = 4,
}

impl TryFrom<u8> for FrameType {
    type Error = FrameError;

    fn try_from(number: u8) -> Result<Self, FrameError> {
        match number {
            0 => Ok(Self::Error),
            1 => Ok(Self::PrepareConf),
            2 => Ok(Self::HttpReqCall),
            3 => Ok(Self::ExtraInfo),
            4 => Ok(Self::HttpRespCall),
            other => Err(FrameError::UnknownType(other)),
        }
    }
}

impl std::fmt::Display for FrameType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::PrepareConf => "prepare-conf",
            Self::HttpReqCall => "http-req-call",
            Self::ExtraInfo => "extra-info",
            Self::HttpRespCall => "http-resp-call",
        })
    }
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte names no type of the protocol. What follows cannot be
    /// understood either: the connection is lost.
    #[error("frame type {0} is not one of the protocol's, 0 to 4")]
    UnknownType(u8),
    /// The bytes end before the frame does.
    #[error("the frame ends early: {got} bytes of {expected}")]
    Truncated {
        /// Bytes there are, header included.
        got: usize,
        /// Bytes there should be, header included.
        expected: usize,
    },
    /// Bytes follow where a single frame was due.
    #[error("{0} bytes follow the frame")]
    Trailing(usize),
}

/// A frame's first four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the buffer is about.
    pub frame_type: FrameType,
    /// Length of the buffer that follows, at most [`MAX_LEN`].
    pub len: usize,
}

impl Header {
    /// Reads a header.
    pub fn parse([kind, high, middle, low]: [u8; HEADER_LEN]) -> Result<Self, FrameError> {
        Ok(Self {
            frame_type: FrameType::try_from(kind)?,
            len: u32::from_be_bytes([0, high, middle, low]) as usize,
        })
    }

    /// The header of a buffer of `len` bytes; none beyond [`MAX_LEN`].
    #[must_use]
    pub fn encode(frame_type: FrameType, len: usize) -> Option<[u8; HEADER_LEN]> {
        if len > MAX_LEN {
            return None;
        }
        let [_, high, middle, low] = u32::try_from(len).ok()?.to_be_bytes();
        Some([frame_type as u8, high, middle, low])
    }
}

/// Splits bytes that should be exactly one frame into its type and its buffer.
pub fn split(whole: &[u8]) -> Result<(FrameType, &[u8]), FrameError> {
    let Some((header, body)) = whole.split_first_chunk::<HEADER_LEN>() else {
        return Err(FrameError::Truncated {
            got: whole.len(),
            expected: HEADER_LEN,
        });
    };
    let Header { frame_type, len } = Header::parse(*header)?;
    match body.len() {
        got if got < len => Err(FrameError::Truncated {
            got: HEADER_LEN + got,
            expected: HEADER_LEN + len,
        }),
        got if got > len => Err(FrameError::Trailing(got - len)),
        _ => Ok((frame_type, body)),
    }
}

/// A whole frame, cut out of a connection's bytes without copying them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the buffer is about.
    pub frame_type: FrameType,
    /// The FlatBuffers buffer, not yet looked at.
    pub body: Bytes,
}

/// Cuts a connection's bytes into frames.
///
/// Once a frame has been dropped its memory is used for the next one, so a
/// connection at work allocates nothing.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// A decoder at a frame's boundary, holding no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the next bytes are to be appended: spare capacity for a few KiB between
    /// frames, so that most calls take one read, and else for at least one byte and
    /// at most as much again as has arrived.
    pub fn room(&mut self) -> &mut BytesMut {
        let held = self.buffer.len();
        if held == 0 {
            // Takes the memory of frames that are gone back, from its start.
            self.buffer.reserve(ROOM);
        } else if self.buffer.capacity() == held {
            let missing = match self.header() {
                Some(Ok(header)) => (HEADER_LEN + header.len).saturating_sub(held),
                _ => ROOM,
            };
            self.buffer.reserve(missing.clamp(1, ROOM.max(held)));
        }
        &mut self.buffer
    }

    /// The next whole frame, if all of its bytes are there.
    ///
    /// An error is final: nothing tells where the next frame would begin.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.header() else {
            return Ok(None);
        };
        let Header { frame_type, len } = header?;
        if self.buffer.len() - HEADER_LEN < len {
            return Ok(None);
        }
        let mut body = self.buffer.split_to(HEADER_LEN + len).freeze();
        body.advance(HEADER_LEN);
        if len > KEEP && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(Frame { frame_type, body }))
    }

    /// Bytes that have arrived and belong to no frame yet: 0 between frames.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    fn header(&self) -> Option<Result<Header, FrameError>> {
        self.buffer.first_chunk().map(|bytes| Header::parse(*bytes))
    }
}
