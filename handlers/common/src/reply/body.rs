//! The body of an answer: bytes that are all there, or the first of them and a stream of
//! what follows.
//!
//! A stream that fails or does not end in time is broken off: the connection closes
//! without the end of the body, which no client takes for a whole answer.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt as _};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Reply;
use crate::Failure;

/// What follows the first bytes; whoever sends it takes it.
#[derive(Clone)]
pub(super) struct Rest(Arc<Mutex<Option<Bits>>>);

type Bits = BoxStream<'static, Result<Bytes, Failure>>;

impl Rest {
    pub(super) fn new(rest: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(rest.boxed()))))
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rest")
    }
}

/// The body of an answer.
pub struct Body {
    first: Option<Bytes>,
    rest: Option<Flow>,
}

/// A stream, until when it may last, and whose it is.
struct Flow {
    stream: Bits,
    deadline: Pin<Box<Sleep>>,
    correlation_id: String,
}

/// An answer that was broken off.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

impl Body {
    /// The body of this answer, which has to be out by the deadline.
    pub(crate) fn of(reply: &mut Reply, deadline: Instant, correlation_id: &str) -> Self {
        let taken = |rest: Rest| {
            let mut rest = rest.0.lock().unwrap_or_else(PoisonError::into_inner);
            rest.take()
        };
        let rest = reply.rest.take().and_then(taken).map(|stream| Flow {
            stream,
            deadline: Box::pin(sleep_until(deadline)),
            correlation_id: correlation_id.to_owned(),
        });
        let first = std::mem::take(&mut reply.body);
        Self {
            first: (!first.is_empty()).then_some(first),
            rest,
        }
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Failure::Deadline)));
        }
        self.stream.poll_next_unpin(cx)
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(flow) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let next = ready!(flow.poll(cx));
        if let Some(Err(failure)) = &next {
            let correlation_id = &flow.correlation_id;
            tracing::warn!(correlation_id, cause = %failure, "an answer was broken off");
        }
        if !matches!(next, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(next.map(|next| next.map(Frame::data).map_err(|_| BrokenOff)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        let mut hint = SizeHint::with_exact(first);
        if self.rest.is_some() {
            hint = SizeHint::new();
            hint.set_lower(first);
        }
        hint
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::time::Duration;

    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;

    use super::*;

    fn flowing(rest: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static) -> Body {
        let json = HeaderValue::from_static("application/json");
        let mut reply = Reply::flowing(StatusCode::OK, json, "[1", rest);
        let deadline = Instant::now() + Duration::from_secs(5);
        Body::of(&mut reply, deadline, "corr-1234")
    }

    #[tokio::test]
    async fn what_follows_comes_behind() {
        let rest = futures::stream::iter([Ok(Bytes::from(",2")), Ok(Bytes::from("]"))]);
        let body = flowing(rest).collect().await.unwrap().to_bytes();
        assert_eq!(body, "[1,2]");
        let mut whole = Reply::bytes(StatusCode::OK, HeaderValue::from_static("a/b"), "[1]");
        let whole = Body::of(&mut whole, Instant::now(), "corr-1234");
        assert_eq!(hyper::body::Body::size_hint(&whole).exact(), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_a_deadline_break_it_off() {
        let failing = futures::stream::iter([Ok(Bytes::from(",2")), Err(Failure::Deadline)]);
        assert!(flowing(failing).collect().await.is_err());
        let began = Instant::now();
        assert!(flowing(futures::stream::pending()).collect().await.is_err());
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
