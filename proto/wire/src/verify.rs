//! The library's verifier, with bounds set from the buffer's length.
//!
//! A buffer is a graph, and a hostile one may point at the same kilobytes from many
//! places: any honest writer stays far below the bounds, and going over all of a
//! message that keeps them costs time linear in its length.

use flatbuffers::{Follow, InvalidFlatbuffer, Verifiable, VerifierOptions, root_with_opts};

use crate::generated::a6;
use crate::read::Fault;
use crate::{FrameType, Side};

/// A buffer that is not the message it should be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Offsets, lengths or alignment are wrong: reading on would leave the buffer.
    /// Said of this message by its checked reader.
    #[error("{0}: not a valid FlatBuffers buffer ({1})")]
    Fault(&'static str, Fault),
    /// The same, said by the library's verifier.
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

/// Verifies a buffer and gives its root table.
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

/// Verifies the buffer of an http-req-call frame and gives its id: what a runner has
/// to do at least, for benchmarks to compare with.
///
/// # Errors
/// What the verifier finds.
pub fn http_req_call(body: &[u8]) -> Result<u32, DecodeError> {
    Ok(root::<a6::httpreq_call::Req<'_>>("http-req-call", body)?.id())
}
