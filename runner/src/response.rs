//! The upstream's answer as a plugin sees it (`ext-plugin-post-resp`).

use std::borrow::Cow;

use bytes::Bytes;

use crate::extra::{Extra, ExtraError, Question};
use crate::facts::Facts;
use crate::request::Entry;

/// The upstream's answer on its way to the client.
///
/// The gateway shows no request headers here; ask for the variables `http_<name>`,
/// `request_method`, `uri`. If any header is changed all are sent anew, because the
/// gateway drops the upstream's as soon as it is given one.
pub struct Response<'a> {
    status: u16,
    sent: Vec<Entry<'a>>,
    extra: &'a mut (dyn Extra + 'a),
    body: Option<Option<Bytes>>,
    new_status: Option<u16>,
    new_headers: Option<Vec<(Cow<'a, [u8]>, Bytes)>>,
    new_body: Option<Bytes>,
    /// What the plugins before found out about this answer.
    pub facts: Facts<'a>,
}

/// Headers of the message's framing, which the gateway makes itself.
const FRAMING: [&[u8]; 3] = [b"connection", b"content-length", b"transfer-encoding"];

impl<'a> Response<'a> {
    pub(crate) fn new(status: u16, sent: Vec<Entry<'a>>, extra: &'a mut (dyn Extra + 'a)) -> Self {
        let (new_status, new_headers, new_body) = (None, None, None);
        let facts = Facts::default();
        Self {
            status,
            sent,
            extra,
            body: None,
            new_status,
            new_headers,
            new_body,
            facts,
        }
    }

    /// The upstream's status, or the one set before.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.new_status.unwrap_or(self.status)
    }

    /// The first value of a header of the upstream's answer, by any spelling of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let found = self
            .sent
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value.unwrap_or_default())
    }

    /// The headers of the upstream's answer.
    pub fn headers(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        self.sent.iter().copied()
    }

    /// A variable of the gateway: one round trip.
    ///
    /// # Errors
    /// When the gateway goes away or answers something else; the call is lost then.
    pub async fn var(&mut self, name: &str) -> Result<Option<Bytes>, ExtraError> {
        self.extra.ask(Question::Var(name), 64 * 1024).await
    }

    /// The upstream's body, at most `limit` bytes of it: one round trip, for which the
    /// gateway buffers the whole body.
    ///
    /// # Errors
    /// [`ExtraError::TooLarge`] beyond `limit`; otherwise as [`Response::var`].
    pub async fn body(&mut self, limit: usize) -> Result<Option<Bytes>, ExtraError> {
        let body = match &self.body {
            Some(body) => body.clone(),
            None => {
                let body = self.extra.ask(Question::ResponseBody, limit).await?;
                self.body.insert(body).clone()
            }
        };
        match body {
            Some(bytes) if bytes.len() > limit => Err(ExtraError::TooLarge { limit }),
            body => Ok(body),
        }
    }

    /// Another status; outside 200–599 it is ignored.
    pub fn set_status(&mut self, status: u16) {
        if (200..=599).contains(&status) {
            self.new_status = Some(status);
        }
    }

    /// Sets a header, replacing every one of that name.
    pub fn set_header(&mut self, name: &'static str, value: impl Into<Bytes>) {
        let headers = self.changed();
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
        headers.push((Cow::Borrowed(name.as_bytes()), value.into()));
    }

    /// Deletes every header of a name.
    pub fn remove_header(&mut self, name: &str) {
        self.changed()
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Another body.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.new_body = Some(body.into());
    }

    /// The headers as they will be sent, copied from the upstream's at the first change.
    fn changed(&mut self) -> &mut Vec<(Cow<'a, [u8]>, Bytes)> {
        let sent = &self.sent;
        self.new_headers.get_or_insert_with(|| {
            let kept = sent
                .iter()
                .filter(|(name, _)| !FRAMING.contains(&&*name.to_ascii_lowercase()));
            let copy = |value: Option<&[u8]>| Bytes::copy_from_slice(value.unwrap_or_default());
            kept.map(|(name, value)| (Cow::Borrowed(*name), copy(*value)))
                .collect()
        })
    }

    pub(crate) fn into_edits(self) -> ResponseEdits<'a> {
        let Self {
            new_status,
            new_headers,
            new_body,
            ..
        } = self;
        ResponseEdits {
            status: new_status,
            headers: new_headers.unwrap_or_default(),
            body: new_body,
        }
    }
}

/// What the chain changed on an answer.
pub(crate) struct ResponseEdits<'a> {
    /// `None` keeps the upstream's.
    pub(crate) status: Option<u16>,
    /// Empty keeps the upstream's.
    pub(crate) headers: Vec<(Cow<'a, [u8]>, Bytes)>,
    /// `None` keeps the upstream's.
    pub(crate) body: Option<Bytes>,
}
