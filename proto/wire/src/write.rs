//! Answers of the runner, written as whole frames into a buffer that is kept.
//!
//! A buffer is built back to front, so the frame's header is written last: the
//! builder leaves room for a length in front of the buffer, and the header takes
//! that room. The frame goes to the socket without another copy. Rewrites, the answers to
//! nearly all calls, are laid out by hand (`rewrite.rs`).

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

use crate::frame::{HEADER_LEN, Header, MAX_LEN};
use crate::generated::a6;
use crate::{ErrorCode, FrameType};

/// What a writer holds on to between frames, at most.
const KEEP: usize = 64 * 1024;

/// The message does not fit into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is longer than a frame may be ({MAX_LEN} bytes)")]
pub struct TooLarge;

/// A name with a value, whoever owns the bytes.
pub trait Pair {
    /// The header's or argument's name. Only tests write entries without one.
    fn name(&self) -> Option<&[u8]>;
    /// Its value. In a [`Rewrite`] none means: delete the name.
    fn value(&self) -> Option<&[u8]>;
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Pair for (N, Option<V>) {
    fn name(&self) -> Option<&[u8]> {
        Some(self.0.as_ref())
    }

    fn value(&self) -> Option<&[u8]> {
        self.1.as_ref().map(AsRef::as_ref)
    }
}

/// The client is answered by the runner itself (`A6.HTTPReqCall.Stop`).
#[derive(Clone, Copy, Debug)]
pub struct Stop<'a, P> {
    /// APISIX takes 0 for 200 and mishandles what lies outside 200 to 599.
    pub status: u16,
    /// Set one by one; a repeated name is added.
    pub headers: &'a [P],
    /// An empty body counts as none.
    pub body: Option<&'a [u8]>,
}

/// The request goes on, changed (`A6.HTTPReqCall.Rewrite`).
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a, P> {
    /// The new path, decoded: APISIX encodes it.
    pub path: Option<&'a [u8]>,
    /// Request headers to set; the last of a name wins, no value deletes.
    pub headers: &'a [P],
    /// Arguments to set; no value deletes, a repeated name becomes a list.
    pub args: &'a [P],
    /// Headers to set on the response, beside the upstream's.
    pub resp_headers: &'a [P],
    /// The new body; an empty one leaves the client's.
    pub body: Option<&'a [u8]>,
}

impl<P> Default for Rewrite<'_, P> {
    fn default() -> Self {
        Self {
            path: None,
            headers: &[],
            args: &[],
            resp_headers: &[],
            body: None,
        }
    }
}

/// The upstream's answer, changed (`A6.HTTPRespCall.Resp`).
#[derive(Clone, Copy, Debug)]
pub struct Respond<'a, P> {
    /// The new status; 0 keeps the upstream's.
    pub status: u16,
    /// If there is any, only these are sent and the upstream's are dropped.
    pub headers: &'a [P],
    /// The new body; none keeps the upstream's.
    pub body: Option<&'a [u8]>,
}

/// What a runner asks for during a call (`A6.ExtraInfo.Info`).
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// An nginx variable, by its name without `$`.
    Var(&'a [u8]),
    /// The request's body, all of it.
    ReqBody,
    /// The response's body, all of it.
    RespBody,
}

pub(crate) type Text = WIPOffset<Vector<'static, u8>>;
pub(crate) type Texts = WIPOffset<Vector<'static, ForwardsUOffset<a6::TextEntry<'static>>>>;

/// Writes frames, one after the other, into the same memory.
#[derive(Default)]
pub struct Writer {
    pub(crate) builder: FlatBufferBuilder<'static>,
    entries: Vec<WIPOffset<a6::TextEntry<'static>>>,
    /// The last frame that was written without the builder.
    by_hand: Vec<u8>,
}

impl Writer {
    /// A writer that holds no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An error in place of an answer; APISIX closes the connection on it.
    pub fn error(&mut self, code: ErrorCode) -> Result<&[u8], TooLarge> {
        use a6::err::{Code, Resp, RespArgs};
        self.begin();
        let code = match code {
            ErrorCode::BadRequest => Code::BAD_REQUEST,
            ErrorCode::ServiceUnavailable => Code::SERVICE_UNAVAILABLE,
            ErrorCode::ConfTokenNotFound => Code::CONF_TOKEN_NOT_FOUND,
        };
        let root = Resp::create(&mut self.builder, &RespArgs { code });
        self.finish(FrameType::Error, root)
    }

    /// The token for a prepared configuration. APISIX takes 0 for none.
    pub fn conf_token(&mut self, conf_token: u32) -> Result<&[u8], TooLarge> {
        use a6::prepare_conf::{Resp, RespArgs};
        self.begin();
        let root = Resp::create(&mut self.builder, &RespArgs { conf_token });
        self.finish(FrameType::PrepareConf, root)
    }

    /// The request goes on unchanged.
    pub fn no_action(&mut self, id: u32) -> Result<&[u8], TooLarge> {
        use a6::httpreq_call::{Resp, RespArgs};
        self.begin();
        let root = Resp::create(
            &mut self.builder,
            &RespArgs {
                id,
                ..Default::default()
            },
        );
        self.finish(FrameType::HttpReqCall, root)
    }

    /// The runner answers the client itself.
    pub fn stop<P: Pair>(&mut self, id: u32, stop: &Stop<'_, P>) -> Result<&[u8], TooLarge> {
        use a6::httpreq_call::{Action, Resp, RespArgs, Stop, StopArgs};
        self.begin();
        let body = self.bytes(stop.body)?;
        let headers = self.entries(stop.headers)?;
        let stop = StopArgs {
            status: stop.status,
            headers,
            body,
        };
        let action = Some(Stop::create(&mut self.builder, &stop).as_union_value());
        let root = RespArgs {
            id,
            action_type: Action::Stop,
            action,
        };
        let root = Resp::create(&mut self.builder, &root);
        self.finish(FrameType::HttpReqCall, root)
    }

    /// The request goes on, changed.
    pub fn rewrite<P: Pair>(
        &mut self,
        id: u32,
        rewrite: &Rewrite<'_, P>,
    ) -> Result<&[u8], TooLarge> {
        if self.by_hand.capacity() > KEEP {
            self.by_hand = Vec::new();
        }
        crate::rewrite::write(&mut self.by_hand, id, rewrite)?;
        Ok(&self.by_hand)
    }

    /// Asks the gateway for something during a call.
    pub fn extra_info(&mut self, ask: Ask<'_>) -> Result<&[u8], TooLarge> {
        use a6::extra_info::{Info, Req, ReqArgs, ReqBody, ReqBodyArgs};
        use a6::extra_info::{RespBody, RespBodyArgs, Var, VarArgs};
        self.begin();
        let (info_type, info) = match ask {
            Ask::Var(name) => {
                let name = Some(self.text(name)?);
                (
                    Info::Var,
                    Var::create(&mut self.builder, &VarArgs { name }).as_union_value(),
                )
            }
            Ask::ReqBody => (
                Info::ReqBody,
                ReqBody::create(&mut self.builder, &ReqBodyArgs {}).as_union_value(),
            ),
            Ask::RespBody => {
                let body = RespBody::create(&mut self.builder, &RespBodyArgs {});
                (Info::RespBody, body.as_union_value())
            }
        };
        let root = ReqArgs {
            info_type,
            info: Some(info),
        };
        let root = Req::create(&mut self.builder, &root);
        self.finish(FrameType::ExtraInfo, root)
    }

    /// The answer to an http-resp-call.
    pub fn respond<P: Pair>(
        &mut self,
        id: u32,
        respond: &Respond<'_, P>,
    ) -> Result<&[u8], TooLarge> {
        use a6::httpresp_call::{Resp, RespArgs};
        self.begin();
        let body = self.bytes(respond.body)?;
        let headers = self.entries(respond.headers)?;
        let root = RespArgs {
            id,
            status: respond.status,
            headers,
            body,
        };
        let root = Resp::create(&mut self.builder, &root);
        self.finish(FrameType::HttpRespCall, root)
    }

    /// Forgets the last frame, finished or not.
    pub(crate) fn begin(&mut self) {
        if self.builder.mut_finished_buffer().0.len() > KEEP {
            self.builder = FlatBufferBuilder::default();
            self.entries = Vec::new();
        }
        self.builder.reset();
    }

    /// What the protocol's own schema calls a string: its bytes, and the NUL that
    /// FlatBuffers strings end with and do not count.
    pub(crate) fn text(&mut self, bytes: &[u8]) -> Result<Text, TooLarge> {
        self.check(bytes.len())?;
        Ok(WIPOffset::new(
            self.builder.create_byte_string(bytes).value(),
        ))
    }

    /// What the protocol's own schema calls `[ubyte]`: bytes, and no NUL.
    pub(crate) fn bytes(&mut self, bytes: Option<&[u8]>) -> Result<Option<Text>, TooLarge> {
        let Some(bytes) = bytes else { return Ok(None) };
        self.check(bytes.len())?;
        Ok(Some(self.builder.create_vector(bytes)))
    }

    /// A list of entries; an empty one is left out.
    pub(crate) fn entries<P: Pair>(&mut self, pairs: &[P]) -> Result<Option<Texts>, TooLarge> {
        if pairs.is_empty() {
            return Ok(None);
        }
        self.entries.clear();
        for pair in pairs {
            let value = pair.value().map(|value| self.text(value)).transpose()?;
            let name = pair.name().map(|name| self.text(name)).transpose()?;
            let entry = a6::TextEntryArgs { name, value };
            self.entries
                .push(a6::TextEntry::create(&mut self.builder, &entry));
        }
        Ok(Some(self.builder.create_vector(&self.entries)))
    }

    /// Ends the buffer and puts the frame's header in front of it.
    pub(crate) fn finish<T>(
        &mut self,
        frame_type: FrameType,
        root: WIPOffset<T>,
    ) -> Result<&[u8], TooLarge> {
        self.builder.finish_size_prefixed(root, None);
        let (buffer, start) = self.builder.mut_finished_buffer();
        let frame = buffer.get_mut(start..).ok_or(TooLarge)?;
        let len = frame.len().checked_sub(HEADER_LEN).ok_or(TooLarge)?;
        let header = Header::encode(frame_type, len).ok_or(TooLarge)?;
        *frame.first_chunk_mut().ok_or(TooLarge)? = header;
        Ok(frame)
    }

    /// Stops before memory is spent on a frame that could never be sent.
    fn check(&self, more: usize) -> Result<(), TooLarge> {
        match self.builder.unfinished_data().len().checked_add(more) {
            Some(len) if len <= MAX_LEN => Ok(()),
            _ => Err(TooLarge),
        }
    }
}
