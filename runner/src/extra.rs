//! Questions to the gateway while a call runs: variables and bodies.

use bytes::Bytes;
use futures::future::BoxFuture;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question<'q> {
    /// A variable by its name.
    Var(&'q str),
    /// The body of the request.
    RequestBody,
    /// The body of the upstream's answer.
    ResponseBody,
}

/// Why there is no answer to a question.
#[derive(Debug, thiserror::Error)]
pub enum ExtraError {
    /// The answer is longer than the caller wants.
    #[error("longer than {limit} bytes")]
    TooLarge {
        /// What the caller allowed.
        limit: usize,
    },
    /// The gateway sent something that is no answer.
    #[error("the gateway's answer cannot be read: {0}")]
    Malformed(String),
    /// The connection broke.
    #[error("the gateway went away: {0}")]
    Gone(#[from] std::io::Error),
}

/// The other end of a call: a connection, or a table of answers in tests.
pub(crate) trait Extra: Send {
    /// One question, one answer of at most `limit` bytes; `None` if there is no such thing.
    fn ask<'s>(
        &'s mut self,
        question: Question<'s>,
        limit: usize,
    ) -> BoxFuture<'s, Result<Option<Bytes>, ExtraError>>;
}
