//! Messages read where they lie, as the runner receives them.
//!
//! Each `read` sends the library's verifier over the buffer once; every getter
//! after that is a few loads and cannot fail. What the schema's writer may leave
//! out comes back as its default: no bytes, no entries, 0.
//!
//! A buffer is a graph, and a hostile one may point at the same kilobytes from
//! many places. The verifier's bounds are therefore set from the buffer's length:
//! any honest writer stays far below them, and going over all of a message costs
//! time linear in its length.

use flatbuffers::{Follow, ForwardsUOffset, InvalidFlatbuffer, Vector, VectorIter, Verifiable};
use flatbuffers::{VerifierOptions, root_with_opts};

use crate::generated::a6;
use crate::{FrameType, Method, Side};

/// A buffer that is not the message it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Offsets, lengths or alignment are wrong: reading on would leave the buffer.
    #[error("{message}: not a valid FlatBuffers buffer ({})", one_line(cause))]
    Invalid {
        /// Which message it should have been.
        message: &'static str,
        /// What the verifier found.
        cause: Box<InvalidFlatbuffer>,
    },
    /// The number of a method that the protocol does not have.
    #[error("http-req-call: {0} is the number of no method")]
    UnknownMethod(u8),
    /// The number of an error code that the protocol does not have.
    #[error("error frame: {0} is the number of no error code")]
    UnknownErrorCode(u8),
    /// This side never sends frames of this type.
    #[error("the {0} sends no frame of type {1}")]
    Unexpected(Side, FrameType),
}

/// The verifier's findings come with a trace over several lines; a log takes one.
fn one_line(cause: &InvalidFlatbuffer) -> String {
    cause
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Tables on the longest way down: an answer, its action, a header.
const MAX_DEPTH: usize = 3;

pub(crate) fn root<'a, T>(message: &'static str, body: &'a [u8]) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + Verifiable + 'a,
{
    let bounds = VerifierOptions {
        max_depth: MAX_DEPTH,
        // Each visit to a table takes an offset of four bytes to get there.
        max_tables: body.len() / 4,
        // A short entry counts its shared vtable again: at most 1.5 bytes per
        // byte of an honest buffer.
        max_apparent_size: 4 * body.len(),
        ignore_missing_null_terminator: true,
    };
    root_with_opts::<T>(&bounds, body).map_err(|cause| DecodeError::Invalid {
        message,
        cause: Box::new(cause),
    })
}

pub(crate) fn text(field: Option<Vector<'_, u8>>) -> &[u8] {
    field.map_or(&[], |bytes| bytes.bytes())
}

/// A name and, if there is one, its value.
pub type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// Names with values, in the order of the wire.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a>(Option<VectorIter<'a, ForwardsUOffset<a6::TextEntry<'a>>>>);

impl<'a> Entries<'a> {
    pub(crate) fn new(field: Option<Vector<'a, ForwardsUOffset<a6::TextEntry<'a>>>>) -> Self {
        Self(field.map(|entries| entries.iter()))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let entry = self.0.as_mut()?.next()?;
        Some((text(entry.name()), entry.value().map(|value| value.bytes())))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0
            .as_ref()
            .map_or((0, Some(0)), |entries| entries.size_hint())
    }
}

impl ExactSizeIterator for Entries<'_> {}

/// A route's plugins, to be exchanged for a token (`A6.PrepareConf.Req`).
#[derive(Clone, Copy, Debug)]
pub struct PrepareConf<'a>(a6::prepare_conf::Req<'a>);

impl<'a> PrepareConf<'a> {
    /// Reads the buffer of a prepare-conf frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        root::<a6::prepare_conf::Req<'_>>("prepare-conf", body).map(Self)
    }

    /// Each plugin's name and configuration, in execution order.
    #[must_use]
    pub fn conf(&self) -> Entries<'a> {
        Entries::new(self.0.conf())
    }

    /// Names route, plugin and version of the configuration
    /// (`route#<id>#<plugin>#<version>`): the same key means the same content.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        text(self.0.key())
    }
}

/// A request before it goes upstream (`A6.HTTPReqCall.Req`).
#[derive(Clone, Copy, Debug)]
pub struct HttpReqCall<'a> {
    call: a6::httpreq_call::Req<'a>,
    method: Method,
}

impl<'a> HttpReqCall<'a> {
    /// Reads the buffer of an http-req-call frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let call = root::<a6::httpreq_call::Req<'_>>("http-req-call", body)?;
        let method = call.method();
        let method = Method::from_wire(method).ok_or(DecodeError::UnknownMethod(method.0))?;
        Ok(Self { call, method })
    }

    /// The gateway worker's number for the call; the answer repeats it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.call.id()
    }

    /// The client's address: 4 or 16 bytes in network order.
    #[must_use]
    pub fn src_ip(&self) -> &'a [u8] {
        text(self.call.src_ip())
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as nginx judged it: percent-decoded, `..` and `//` resolved. The
    /// upstream gets the client's own spelling unless the answer sets a path.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        text(self.call.path())
    }

    /// The query's arguments, decoded; one without `=` has no value.
    #[must_use]
    pub fn args(&self) -> Entries<'a> {
        Entries::new(self.call.args())
    }

    /// The first hundred headers, in no order, names in lower case; a repeated
    /// name comes repeatedly.
    #[must_use]
    pub fn headers(&self) -> Entries<'a> {
        Entries::new(self.call.headers())
    }

    /// The token that prepare-conf gave for the route's configuration.
    #[must_use]
    pub fn conf_token(&self) -> u32 {
        self.call.conf_token()
    }
}

/// The gateway's answer to an extra-info request (`A6.ExtraInfo.Resp`).
#[derive(Clone, Copy, Debug)]
pub struct ExtraInfoResp<'a>(a6::extra_info::Resp<'a>);

impl<'a> ExtraInfoResp<'a> {
    /// Reads the buffer of an extra-info frame from the gateway.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        root::<a6::extra_info::Resp<'_>>("extra-info", body).map(Self)
    }

    /// The variable's value or the body; none when there is no such variable, or
    /// no body.
    #[must_use]
    pub fn result(&self) -> Option<&'a [u8]> {
        self.0.result().map(|bytes| bytes.bytes())
    }
}

/// An upstream's answer before it goes to the client (`A6.HTTPRespCall.Req`).
#[derive(Clone, Copy, Debug)]
pub struct HttpRespCall<'a>(a6::httpresp_call::Req<'a>);

impl<'a> HttpRespCall<'a> {
    /// Reads the buffer of an http-resp-call frame.
    pub fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        root::<a6::httpresp_call::Req<'_>>("http-resp-call", body).map(Self)
    }

    /// The gateway worker's number for the call; the answer repeats it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The upstream's status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// The upstream's headers, names as the upstream spelled them.
    #[must_use]
    pub fn headers(&self) -> Entries<'a> {
        Entries::new(self.0.headers())
    }

    /// The token that prepare-conf gave for the route's configuration.
    #[must_use]
    pub fn conf_token(&self) -> u32 {
        self.0.conf_token()
    }
}
