//! An answer that the runner gives the client itself.
//!
//! A plugin says what it refuses and why; [`Reply::finish`] makes of it what the
//! gateway can send: the envelope with the correlation id, the rate-limit headers
//! known so far, a content type, a body wherever the gateway would put its own page.

use std::borrow::Cow;

use bytes::Bytes;
use postern_contract::{Code, Detail, Envelope, header};
use postern_wire::write::Stop;

use crate::edits::{Edit, put, size};
use crate::facts::{Facts, rate_limit_headers};

/// An answer to the client in place of the upstream's.
///
/// Headers that frame the message (`Content-Length`, `Connection`, `Transfer-Encoding`)
/// and `Server` are the gateway's and are left out even if a plugin names them.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<Edit>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Bytes(Bytes),
    Error {
        code: Code,
        message: Cow<'static, str>,
        details: Vec<Detail>,
    },
}

/// The gateway uses these as they are, cutting bodies and connections.
const FRAMING: [&str; 4] = [
    "content-length",
    "connection",
    "transfer-encoding",
    "server",
];

impl Reply {
    /// An answer without headers and body. A status outside 200–599 hangs the
    /// client or is sent as 200 by the gateway, and at 408, 444 and 499 it closes
    /// the connection without an answer; these become a 500.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status: checked(status),
            headers: Vec::new(),
            body: Body::Bytes(Bytes::new()),
        }
    }

    /// A refusal: the error envelope with `code`, sent with the code's status.
    /// The message names the thing and the mend.
    #[must_use]
    pub fn refuse(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        let body = Body::Error {
            code,
            message: message.into(),
            details: Vec::new(),
        };
        Self {
            status: code.status(),
            headers: Vec::new(),
            body,
        }
    }

    /// Another status than the code's own (see [`Code::statuses`]).
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = checked(status);
        self
    }

    /// The fields that are wrong, in a refusal's `details`.
    #[must_use]
    pub fn with_details(mut self, list: Vec<Detail>) -> Self {
        if let Body::Error { details, .. } = &mut self.body {
            *details = list;
        }
        self
    }

    /// Adds a header; a name may come several times.
    #[must_use]
    pub fn with_header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Bytes>,
    ) -> Self {
        self.headers.push(Edit::set(name, value));
        self
    }

    /// The body and its `Content-Type`.
    #[must_use]
    pub fn with_body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.retain(|header| !header.is("Content-Type"));
        self.body = Body::Bytes(body.into());
        self.with_header("Content-Type", content_type.as_bytes())
    }

    /// The body alone; the content type stands among the headers already (a replay).
    #[must_use]
    pub fn with_bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// The status the client will see.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match &self.body {
            Body::Error { code, .. } => Some(*code),
            Body::Bytes(_) => None,
        }
    }

    /// A refusal's message.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match &self.body {
            Body::Error { message, .. } => Some(message),
            Body::Bytes(_) => None,
        }
    }

    /// The first value of a header, by any spelling of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|edit| edit.is(name))?
            .value
            .as_deref()
    }

    /// What goes to the gateway: facts that the client may see are added, what the
    /// gateway would trip over is taken out.
    pub(crate) fn finish(self, facts: &Facts<'_>) -> Finished {
        let Self {
            status,
            mut headers,
            body,
        } = self;
        headers.retain(|header| !FRAMING.iter().any(|name| header.is(name)));
        // Even a request without a usable id gets one, so that its refusal can be reported.
        let correlation_id = match &facts.correlation_id {
            Some(id) => id.to_string(),
            None => header::new_correlation_id(),
        };
        let body = match body {
            Body::Bytes(body) if body.is_empty() && status >= 300 && status != 304 => {
                // The gateway would put its HTML page here.
                put(&mut headers, Edit::set("Content-Type", "text/plain"));
                let reason = http::StatusCode::from_u16(status).ok();
                let reason = reason.and_then(|status| status.canonical_reason());
                Bytes::from_static(reason.unwrap_or("error").as_bytes())
            }
            Body::Bytes(body) => body,
            Body::Error {
                code,
                message,
                details,
            } => {
                put(&mut headers, Edit::set("Content-Type", "application/json"));
                let envelope = Envelope::new(code, &message, &correlation_id, &details);
                envelope.to_json().into()
            }
        };
        let mut default = |name: &'static str, value: Bytes| {
            if !headers.iter().any(|header| header.is(name)) {
                headers.push(Edit::set(name, value));
            }
        };
        if !body.is_empty() {
            default("Content-Type", "application/octet-stream".into());
        }
        default("X-Correlation-Id", correlation_id.into());
        if let Some(version) = &facts.api_version {
            default("X-API-Version", version.to_string().into());
        }
        if let Some(state) = &facts.rate_limit {
            rate_limit_headers(state, |name, value| default(name, value.into()));
        }
        Finished {
            status,
            headers,
            body,
        }
    }
}

/// A reply as it is encoded.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Edit>,
    pub(crate) body: Bytes,
}

impl Finished {
    /// As the gateway is told.
    pub(crate) fn encodable(&self) -> Stop<'_, Edit> {
        let body = (!self.body.is_empty()).then_some(&*self.body);
        Stop {
            status: self.status,
            headers: &self.headers,
            body,
        }
    }

    /// What it costs in a frame, at most.
    pub(crate) fn size(&self) -> usize {
        size(&self.headers) + self.body.len()
    }
}

fn checked(status: u16) -> u16 {
    match status {
        408 | 444 | 499 => 500,
        200..=599 => status,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_that_the_gateway_cannot_send_are_500() {
        for status in [0, 101, 199, 408, 444, 499, 600, u16::MAX] {
            assert_eq!(Reply::new(status).status(), 500, "{status}");
        }
        for status in [200, 204, 404, 409, 445, 498, 500, 599] {
            assert_eq!(Reply::new(status).status(), status);
        }
    }
}
