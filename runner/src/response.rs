//! The upstream's answer as a plugin sees it (`ext-plugin-post-resp`).

use bytes::Bytes;
use postern_wire::read::HttpRespCall;
use postern_wire::write::Respond;

use crate::edits::size;
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
    extra: &'a mut dyn Extra,
    body: Option<Option<Bytes>>,
    edits: ResponseEdits,
    /// Whom the chain asked last; the culprit when it panics or is too slow.
    pub(crate) asked: &'static str,
    /// What the plugins before found out about this answer.
    pub facts: Facts<'a>,
}

/// What the chain changed on an answer.
#[derive(Debug, Default)]
pub(crate) struct ResponseEdits {
    /// 0 keeps the upstream's.
    status: u16,
    /// `None` keeps the upstream's.
    headers: Option<Vec<(Bytes, Option<Bytes>)>>,
    /// `None` keeps the upstream's.
    body: Option<Bytes>,
}

impl ResponseEdits {
    /// As the gateway is told.
    pub(crate) fn respond(&self) -> Respond<'_, (Bytes, Option<Bytes>)> {
        Respond {
            status: self.status,
            headers: self.headers.as_deref().unwrap_or_default(),
            body: self.body.as_deref(),
        }
    }

    /// What they cost in a frame, at most.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.as_deref().map_or(0, size);
        headers + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// Headers of the message's framing, which the gateway makes itself.
const FRAMING: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

impl<'a> Response<'a> {
    pub(crate) fn new(call: &HttpRespCall<'a>, extra: &'a mut dyn Extra) -> Self {
        Self {
            status: call.status(),
            sent: call.headers().collect(),
            extra,
            body: None,
            edits: ResponseEdits::default(),
            asked: "",
            facts: Facts::default(),
        }
    }

    /// The upstream's status, or the one set before.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.edits.status {
            0 => self.status,
            changed => changed,
        }
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
            self.edits.status = status;
        }
    }

    /// Sets a header, replacing every one of that name.
    pub fn set_header(&mut self, name: &'static str, value: impl Into<Bytes>) {
        let headers = self.changed();
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
        headers.push((Bytes::from_static(name.as_bytes()), Some(value.into())));
    }

    /// Deletes every header of a name.
    pub fn remove_header(&mut self, name: &str) {
        self.changed()
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Another body.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.edits.body = Some(body.into());
    }

    /// The headers as they will be sent, copied from the upstream's at the first change.
    fn changed(&mut self) -> &mut Vec<(Bytes, Option<Bytes>)> {
        let framing = |name: &[u8]| {
            FRAMING
                .iter()
                .any(|f| name.eq_ignore_ascii_case(f.as_bytes()))
        };
        let sent = &self.sent;
        self.edits.headers.get_or_insert_with(|| {
            let kept = sent.iter().filter(|(name, _)| !framing(name));
            let copy = |(name, value): &Entry<'_>| {
                (
                    Bytes::copy_from_slice(name),
                    value.map(Bytes::copy_from_slice),
                )
            };
            kept.map(copy).collect()
        })
    }

    /// What came of it: the edits, and the facts an answer shows.
    pub(crate) fn into_parts(self) -> (ResponseEdits, Facts<'a>) {
        (self.edits, self.facts)
    }
}
