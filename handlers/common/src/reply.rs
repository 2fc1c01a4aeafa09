//! What a handler answers: complete, so that it can be kept for replays. A long list may
//! follow as it comes ([`Reply::flowing`]); that is for reads only.

mod body;

use bytes::Bytes;
use futures::Stream;
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use postern_contract::Envelope;
use serde::Serialize;

use crate::Failure;

pub use body::Body;
use body::Rest;

/// Headers that a record keeps beside status and body.
pub(crate) const KEPT_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, LOCATION, ETAG];

/// An answer without the headers that every answer carries.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The family's own headers.
    pub headers: HeaderMap,
    /// The body, or how it begins.
    pub body: Bytes,
    /// What follows it.
    rest: Option<Rest>,
    /// Whether it is the kept outcome of an earlier request.
    pub replayed: bool,
}

impl Reply {
    /// A JSON answer.
    ///
    /// # Errors
    /// When the value has no JSON form (a map with keys that are not text).
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value).map_err(Failure::internal)?;
        Ok(Self::bytes(
            status,
            HeaderValue::from_static("application/json"),
            body,
        ))
    }

    /// An answer of any media type.
    pub fn bytes(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        Self {
            status,
            headers,
            body: body.into(),
            rest: None,
            replayed: false,
        }
    }

    /// An answer that goes on behind these bytes. Whoever raises a failure on the way
    /// breaks the body off: a part is never taken for the whole.
    pub fn flowing(
        status: StatusCode,
        content_type: HeaderValue,
        begin: impl Into<Bytes>,
        rest: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    ) -> Self {
        let mut reply = Self::bytes(status, content_type, begin);
        reply.rest = Some(Rest::new(rest));
        reply
    }

    /// Whether the body is all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            rest: None,
            replayed: false,
        }
    }

    /// The envelope of a failure. `correlation_id` is the request's.
    #[must_use]
    pub fn refusal(failure: &Failure, correlation_id: &str) -> Self {
        let verdict = failure.verdict();
        let body = Envelope::new(
            verdict.code,
            &verdict.message,
            correlation_id,
            verdict.details,
        )
        .to_json();
        let status =
            StatusCode::from_u16(verdict.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = Self::bytes(status, HeaderValue::from_static("application/json"), body);
        reply.headers.extend(verdict.headers);
        reply
    }

    /// Adds a header; a value that no header can hold is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}
