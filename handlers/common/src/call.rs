//! One admitted request, as a family's code sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use postern_contract::idempotency::{self, FINGERPRINTED, IdempotencyKey, query_pairs, sha256};
use postern_contract::{Code, Params, Route, TenantId, WorkspaceId, header};

use crate::etag::IfMatch;
use crate::fields::Fields;
use crate::idempotency::{Begun, Keyed};
use crate::query::Query;
use crate::unseal::Admitted;
use crate::{Caller, Failure, Scope};

/// The body while nobody has read it. The chain keeps a second handle: a client
/// that is still sending would not see an answer that came before its body was
/// taken, because the connection is reset under it.
#[derive(Clone, Debug)]
pub(crate) struct UnreadBody(Arc<Mutex<Option<Incoming>>>);

/// At most so much of an unwanted body is taken.
const DRAIN: usize = 8 << 20;
/// And for at most so long.
const DRAIN_TIME: Duration = Duration::from_secs(2);

impl UnreadBody {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, body: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// Takes and forgets what is left, within bounds.
    pub(crate) async fn drain(&self) {
        let Some(mut body) = self.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let drain = async {
            let mut taken = 0;
            while let Some(Ok(frame)) = body.frame().await {
                taken += frame.data_ref().map_or(0, Bytes::len);
                if taken > DRAIN {
                    return;
                }
            }
        };
        // Whatever remains beyond the bounds is the client's loss.
        let _ = tokio::time::timeout(DRAIN_TIME, drain).await;
    }
}

/// A workspace that is not there, or another tenant's: the two are told alike.
#[must_use]
pub fn no_workspace(id: &str) -> Failure {
    Failure::new(
        Code::WorkspaceNotFound,
        postern_contract::id::not_found("Workspace", id),
    )
}

/// A request that may be carried out.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// The row of the routes table.
    pub route: &'static Route,
    params: Params<'static>,
    head: Parts,
    body: UnreadBody,
    body_time: Duration,
    begun: Begun,
}

impl Call {
    pub(crate) fn new(
        admitted: Admitted,
        head: Parts,
        body: UnreadBody,
        body_time: Duration,
        begun: Begun,
    ) -> Self {
        let Admitted {
            caller,
            route,
            params,
        } = admitted;
        Self {
            caller,
            route,
            params,
            head,
            body,
            body_time,
            begun,
        }
    }

    /// How far the caller reaches.
    ///
    /// # Errors
    /// See [`Caller::scope`].
    pub fn scope(&self) -> Result<Scope, Failure> {
        self.caller.scope()
    }

    /// A path parameter; empty where the template has none of the name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).unwrap_or_default()
    }

    /// A path parameter that is an id. What is no id cannot be found.
    ///
    /// # Errors
    /// `not_found`, naming the text.
    pub fn id<T: std::str::FromStr>(
        &self,
        name: &str,
        not_found: impl Fn(&str) -> Failure,
    ) -> Result<T, Failure> {
        let text = self.param(name);
        text.parse().map_err(|_| not_found(text))
    }

    /// Whose workspace a data route names. The runner has judged it; what can be judged
    /// again is.
    ///
    /// # Errors
    /// `WORKSPACE_NOT_FOUND` when it is no id, or not the one that the token is pinned to;
    /// `PERMISSION_DENIED` without a tenant.
    pub fn workspace(&self) -> Result<(TenantId, WorkspaceId), Failure> {
        let workspace: WorkspaceId = self.id("workspaceId", no_workspace)?;
        let Some(tenant) = self.caller.tenant() else {
            return Err(Failure::new(
                Code::PermissionDenied,
                "a token without a tenant has no access to data",
            ));
        };
        match self.caller.pinned() {
            Some(pinned) if pinned != workspace => Err(no_workspace(&workspace.to_string())),
            _ => Ok((tenant, workspace)),
        }
    }

    /// The request's headers. Only for what the client may say: preconditions, media types.
    #[must_use]
    pub fn headers(&self) -> &http::HeaderMap {
        &self.head.headers
    }

    /// The arguments of the query.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` when they are not UTF-8.
    pub fn query(&self) -> Result<Query, Failure> {
        Query::parse(self.head.uri.query())
    }

    /// The precondition of a change.
    #[must_use]
    pub fn if_match(&self) -> IfMatch {
        IfMatch::of(&self.head.headers)
    }

    /// Reads the whole body, within the route's limit and time.
    ///
    /// # Errors
    /// `BODY_TOO_LARGE` beyond the limit (told from Content-Length before a byte is
    /// read where there is one), `VALIDATION_ERROR` when it breaks off or stalls.
    pub async fn body(&mut self) -> Result<Bytes, Failure> {
        let limit = match self.caller.context().body_limit {
            0 => self.route.body_limit,
            sealed => sealed.min(self.route.body_limit),
        };
        let too_large = || {
            Failure::new(
                Code::BodyTooLarge,
                format!("the body may have at most {limit} bytes"),
            )
        };
        let length = self
            .single(&CONTENT_LENGTH)?
            .and_then(|value| value.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let Some(mut body) = self.body.take() else {
            return Err(Failure::internal("the body was read twice"));
        };
        let unread = self.body.clone();
        let read = async {
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame
                    .map_err(|_| Failure::invalid_field("body", "broke off before its end"))?;
                if let Ok(data) = frame.into_data() {
                    if (bytes.len() + data.len()) as u64 > limit {
                        unread.put(body);
                        return Err(too_large());
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(bytes.freeze())
        };
        let stalled = |_| Failure::invalid_field("body", "took too long to arrive");
        tokio::time::timeout(self.body_time, read)
            .await
            .map_err(stalled)?
    }

    /// Reads a body that has to be one JSON object.
    ///
    /// # Errors
    /// As [`Self::body`]; `UNSUPPORTED_MEDIA_TYPE`; `VALIDATION_ERROR` when it is not an object.
    pub async fn json(&mut self) -> Result<(Bytes, Fields), Failure> {
        let content_type = self.single(&CONTENT_TYPE)?.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let encoding = self.single(&CONTENT_ENCODING)?.unwrap_or("identity");
        if !self.route.takes(media_type) || !encoding.eq_ignore_ascii_case("identity") {
            return Err(Failure::unsupported(&self.route.media_types));
        }
        let body = self.body().await?;
        let fields = Fields::parse(&body)?;
        Ok((body, fields))
    }

    /// Whose action this is, for a mutation whose body has been read and which begins
    /// now: it answers for the claim from here on. Without an Idempotency-Key (the
    /// operator may allow that) there is nothing to replay.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_INVALID`, `HEADER_REPEATED`.
    pub fn keyed(&self, body: &[u8]) -> Result<Option<Keyed>, Failure> {
        let name = HeaderName::from_static(header::IDEMPOTENCY_KEY);
        let Some(value) = self.single(&name)? else {
            return Ok(None);
        };
        let invalid = |error: idempotency::KeyError| {
            Failure::new(
                Code::IdempotencyKeyInvalid,
                format!("Idempotency-Key {error}"),
            )
        };
        let key = IdempotencyKey::parse(value.as_bytes()).map_err(invalid)?;
        let context = self.caller.context();
        let scope = idempotency::Scope {
            issuer: &context.issuer,
            tenant: &context.tenant,
            subject: &context.subject,
            family: self.route.family,
            workspace: self.param("workspaceId"),
        };
        let headers = self
            .head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let request = idempotency::Request {
            method: self.route.method.as_str(),
            route: &self.route.id,
            params: self.params.clone(),
            query: query_pairs(self.head.uri.query().unwrap_or_default()),
            headers: headers
                .filter(|(name, _)| FINGERPRINTED.contains(name))
                .collect(),
        };
        self.begun.set();
        Ok(Some(Keyed {
            scope: scope.digest(&key),
            fingerprint: request.fingerprint(&sha256(body)),
            tenant: context.tenant.clone(),
            holder: context
                .claim
                .as_ref()
                .map(|claim| claim.holder.clone())
                .unwrap_or_default(),
        }))
    }

    /// The value of a header that may stand once.
    fn single(&self, name: &HeaderName) -> Result<Option<&str>, Failure> {
        let mut values = self.head.headers.get_all(name).iter();
        let (first, second) = (values.next(), values.next());
        if second.is_some() {
            return Err(Failure::new(
                Code::HeaderRepeated,
                format!("{name} may be sent once"),
            ));
        }
        let not_text = |_| Failure::invalid_field(name.as_str(), "must be visible ASCII");
        first
            .map(|value| value.to_str().map_err(not_text))
            .transpose()
    }
}
