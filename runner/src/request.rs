//! A request as a plugin sees it: read in place from the gateway's frame.
//!
//! What a plugin reads is what the client sent and the gateway judged; edits are
//! collected aside and never change what plugins further down read. Variables and
//! bodies are not in the frame: each costs a round trip to the gateway.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use postern_contract::path::PathError;
use postern_contract::{Match, header, routes};
pub use postern_wire::read::Entry;
use postern_wire::read::HttpReqCall;

use crate::edits::{Edit, Edits, put};
use crate::extra::{Extra, ExtraError, Question};
use crate::facts::Facts;
use crate::singles::{Repeated, Single, Singles};

/// A request on its way upstream.
pub struct Request<'a> {
    call: HttpReqCall<'a>,
    singles: Singles,
    /// Since 1970.
    arrived: Duration,
    method: Method,
    route: OnceLock<Result<Match<'a>, PathError>>,
    extra: &'a mut dyn Extra,
    body: Option<Option<Bytes>>,
    edits: Edits,
    /// Whom the chain asked last; the culprit when it panics or is too slow.
    pub(crate) asked: &'static str,
    /// What the plugins before found out.
    pub facts: Facts<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(call: HttpReqCall<'a>, extra: &'a mut dyn Extra) -> Self {
        Self {
            method: method(call.method()),
            singles: Singles::find(call.headers()),
            call,
            arrived: UNIX_EPOCH.elapsed().unwrap_or_default(),
            route: OnceLock::new(),
            extra,
            body: None,
            edits: Edits::default(),
            asked: "",
            facts: Facts::default(),
        }
    }

    /// When the call arrived: one reading of the clock for all plugins.
    #[must_use]
    pub fn arrived(&self) -> SystemTime {
        UNIX_EPOCH + self.arrived
    }

    /// The same as a time since 1970.
    pub(crate) fn arrived_since_1970(&self) -> Duration {
        self.arrived
    }

    /// The method; the gateway itself refuses those the protocol cannot name.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The row of the contract's routes table that method and path name: looked up
    /// once, for all plugins.
    ///
    /// # Errors
    /// When the path is no text.
    pub fn route(&self) -> Result<&Match<'a>, PathError> {
        let find = || routes().find(&self.method, self.path());
        self.route
            .get_or_init(find)
            .as_ref()
            .map_err(|error| *error)
    }

    /// The path as the gateway judged it: normalised and percent-decoded, any bytes.
    /// The upstream gets the client's own bytes unless [`Request::set_path`] pins these.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.call.path()
    }

    /// The query's arguments in order, decoded.
    pub fn args(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        self.call.args()
    }

    /// The first argument of this name; `Some(None)` if it came without `=`.
    #[must_use]
    pub fn arg(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.args()
            .find(|(n, _)| *n == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// All headers that the gateway shows: the first 100, in no order, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        self.call.headers().iter().copied()
    }

    /// How many header lines the gateway showed. At 100 there may be more that nobody saw.
    #[must_use]
    pub fn header_count(&self) -> usize {
        self.call.headers().len()
    }

    /// The first value of a header, by any spelling of its name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_values(name).next()
    }

    /// Every value of a header, by any spelling of its name.
    pub fn header_values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        let named = move |n: &[u8]| same_name(n, name.as_bytes());
        self.headers()
            .filter(move |(n, _)| named(n))
            .map(|(_, value)| value.unwrap_or_default())
    }

    /// The value of a header that means one thing only.
    pub(crate) fn single(&self, single: Single) -> Result<Option<&'a [u8]>, Repeated> {
        self.singles.get(single, self.call.headers())
    }

    /// The name of a header that means one thing only, and came more than once.
    pub(crate) fn repeated(&self) -> Option<&'static str> {
        self.singles.repeated()
    }

    /// The client's address as the gateway knows it (after `real-ip`), 4 or 16 bytes.
    #[must_use]
    pub fn src_ip(&self) -> Option<std::net::IpAddr> {
        if let Ok(v4) = <[u8; 4]>::try_from(self.call.src_ip()) {
            return Some(v4.into());
        }
        <[u8; 16]>::try_from(self.call.src_ip())
            .ok()
            .map(Into::into)
    }

    /// A variable of the gateway (`remote_addr`, `request_uri`, `http_host`, …): one round trip.
    ///
    /// # Errors
    /// When the gateway goes away or answers something else; the call is lost then.
    pub async fn var(&mut self, name: &str) -> Result<Option<Bytes>, ExtraError> {
        self.extra.ask(Question::Var(name), MAX_VAR).await
    }

    /// The request's body, at most `limit` bytes of it: one round trip, for which the
    /// gateway reads the whole body first. Fetched once, whoever asks again.
    ///
    /// # Errors
    /// [`ExtraError::TooLarge`] beyond `limit`; otherwise as [`Request::var`].
    pub async fn body(&mut self, limit: usize) -> Result<Option<Bytes>, ExtraError> {
        let body = match &self.body {
            Some(body) => body.clone(),
            None => {
                let body = self.extra.ask(Question::RequestBody, limit).await?;
                self.body.insert(body).clone()
            }
        };
        match body {
            Some(bytes) if bytes.len() > limit => Err(ExtraError::TooLarge { limit }),
            body => Ok(body),
        }
    }

    /// Sets a header on the way upstream, replacing every copy the client sent.
    /// An empty value deletes, as the gateway has it.
    pub fn set_header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        put(&mut self.edits.headers, Edit::set(name, value));
    }

    /// Deletes every copy of a header on the way upstream. `X_Name` is another header
    /// than `X-Name` to the gateway; delete both where it matters.
    pub fn remove_header(&mut self, name: impl Into<Cow<'static, str>>) {
        put(&mut self.edits.headers, Edit::delete(name));
    }

    /// The path the upstream gets, decoded: the gateway encodes it again.
    pub fn set_path(&mut self, path: impl Into<Bytes>) {
        self.edits.path = Some(path.into());
    }

    /// Sets an argument of the query.
    pub fn set_arg(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.edits.args.push(Edit::set(name, value));
    }

    /// Deletes an argument of the query.
    pub fn remove_arg(&mut self, name: impl Into<Cow<'static, str>>) {
        self.edits.args.push(Edit::delete(name));
    }

    /// Replaces the body; the gateway ignores an empty one.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        self.edits.body = Some(body.into());
    }

    /// Adds a header to the upstream's answer, *beside* one of the same name: leave to
    /// the upstream what the upstream sends.
    pub fn set_resp_header(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        put(&mut self.edits.response_headers, Edit::set(name, value));
    }

    pub(crate) fn edits(&self) -> &Edits {
        &self.edits
    }

    /// The id of the matched row, if anybody has looked for it.
    pub(crate) fn known_route(&self) -> Option<&'static str> {
        match self.route.get()?.as_ref() {
            Ok(Match::Found(route, _)) => Some(&route.id),
            _ => None,
        }
    }

    /// What came of it: the edits, and the facts an answer shows.
    pub(crate) fn into_parts(mut self) -> (Edits, Facts<'a>) {
        if self.facts.correlation_id.is_none() {
            // A chain that never came to `correlation-id` still answers under the
            // client's id, if there is exactly one good one.
            if let Ok(Some(id)) = self.single(Single::CorrelationId) {
                let id = std::str::from_utf8(id).ok();
                let id = id.filter(|id| header::is_correlation_id(id.as_bytes()));
                self.facts.correlation_id = id.map(Cow::Borrowed);
            }
        }
        (self.edits, self.facts)
    }
}

/// Whether two names are one header's. Names come in lower case, and are equal then; most
/// that are not differ in length or in their first letter.
pub(crate) fn same_name(one: &[u8], other: &[u8]) -> bool {
    // Two cases of a letter differ in one bit.
    let start = |name: &[u8]| name.first().map(|letter| letter | 0x20);
    one.len() == other.len()
        && start(one) == start(other)
        && (one == other || one.eq_ignore_ascii_case(other))
}

/// Variables are short; what is longer is a mistake or an attack.
const MAX_VAR: usize = 64 * 1024;

fn method(wire: postern_wire::Method) -> Method {
    use postern_wire::Method as Wire;
    match wire {
        Wire::Get => Method::GET,
        Wire::Head => Method::HEAD,
        Wire::Post => Method::POST,
        Wire::Put => Method::PUT,
        Wire::Delete => Method::DELETE,
        Wire::Options => Method::OPTIONS,
        Wire::Patch => Method::PATCH,
        Wire::Trace => Method::TRACE,
        // WebDAV's: names of letters, which the type takes.
        other => Method::from_bytes(other.as_str().as_bytes()).unwrap_or_default(),
    }
}
