//! A client of the API with the headers that every request needs, each of which
//! a test can change or leave out.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::RngExt as _;
use serde_json::Value;

use crate::http::{Http, Reply, append};
use crate::token::unique;

/// The API version that requests ask for.
pub const API_VERSION: &str = "2024-01-01";

/// Looks at every exchange of the clients that have it; what it finds fails the call.
#[derive(Clone)]
pub struct Witness(Arc<Look>);

type Look = dyn Fn(&Exchange<'_>) -> Result<()> + Send + Sync;

/// A request and its answer.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, as sent.
    pub target: &'a str,
    /// What the request's `Content-Type` says.
    pub content_type: &'a str,
    /// The request's body.
    pub body: &'a Bytes,
    /// The answer.
    pub reply: &'a Reply,
}

impl Witness {
    /// Of this function.
    pub fn new(look: impl Fn(&Exchange<'_>) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// Somebody who uses the API.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    base: String,
    token: Option<String>,
    witness: Option<Witness>,
}

impl Client {
    /// A client of the gateway at `base`, with this bearer token or none. On
    /// loopback it has a source address of its own: the limit by address would
    /// count all tests of a process together otherwise.
    #[must_use]
    pub fn new(base: &str, token: Option<String>) -> Self {
        let local = base.contains("//127.").then(own_address);
        Self {
            http: Http::from_address(local),
            base: base.trim_end_matches('/').to_owned(),
            token,
            witness: None,
        }
    }

    /// The same before a witness.
    #[must_use]
    pub fn watched(self, witness: Option<Witness>) -> Self {
        Self { witness, ..self }
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The same connections and source address with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<String>) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    /// `GET path`; the path goes out as it is written.
    #[must_use]
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// `HEAD path`.
    #[must_use]
    pub fn head(&self, path: &str) -> Call {
        self.call(Method::HEAD, path)
    }

    /// `POST path` with a JSON body.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    /// `PATCH path` with a merge patch.
    #[must_use]
    pub fn patch(&self, path: &str, body: &Value) -> Call {
        self.call(Method::PATCH, path)
            .json(body)
            .set("content-type", "application/merge-patch+json")
    }

    /// `DELETE path`.
    #[must_use]
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Any method, with the standard headers: token, version, a correlation id
    /// of its own, and for mutations an idempotency key of its own.
    #[must_use]
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mutation = matches!(
            method,
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        );
        let call = Call {
            http: self.http.clone(),
            url: format!("{}{path}", self.base),
            target: self.base.len(),
            witness: self.witness.clone(),
            method,
            headers: Ok(HeaderMap::new()),
            body: Bytes::new(),
        };
        let call = call
            .set("x-api-version", API_VERSION)
            .set("x-correlation-id", &format!("test-{}", unique()));
        let call = match &self.token {
            Some(token) => call.set("authorization", &format!("Bearer {token}")),
            None => call,
        };
        if mutation {
            call.set("idempotency-key", &unique())
        } else {
            call
        }
    }
}

/// A request before it is sent; `.await` sends it.
#[derive(Debug)]
pub struct Call {
    http: Http,
    method: Method,
    url: String,
    /// Where path and query begin in it.
    target: usize,
    witness: Option<Witness>,
    /// An impossible header is told when the call is sent.
    headers: Result<HeaderMap>,
    body: Bytes,
}

impl Call {
    /// With this header instead of those of its name.
    #[must_use]
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).add(name, value.as_bytes())
    }

    /// With this header beside those of its name; any bytes.
    #[must_use]
    pub fn add(mut self, name: &str, value: &[u8]) -> Self {
        self.headers = self.headers.and_then(|mut headers| {
            append(&mut headers, name, value)?;
            Ok(headers)
        });
        self
    }

    /// Without the headers of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        if let Ok(headers) = &mut self.headers {
            headers.remove(name);
        }
        self
    }

    /// The one value of a header so far.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.headers.as_ref().ok()?;
        headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// With as many headers more as it takes to send `lines` of them, `Host` and
    /// `Content-Length` included, behind those that are there.
    #[must_use]
    pub fn filled(self, lines: usize) -> Self {
        let there = self.headers.as_ref().map_or(0, HeaderMap::len);
        let host = 1;
        // hyper tells the length of every body, and that there is none where one is usual.
        let usual = matches!(self.method, Method::POST | Method::PUT | Method::PATCH);
        let length = usize::from(usual || !self.body.is_empty());
        let missing = lines.saturating_sub(there + host + length);
        (0..missing).fold(self, |call, n| call.add(&format!("x-filler-{n}"), b"x"))
    }

    /// With this idempotency key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.set("idempotency-key", key)
    }

    /// With this JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
            .set("content-type", "application/json")
    }

    /// With these bytes for a body, whatever the content type says.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    async fn send(self) -> Result<Reply> {
        let headers = self.headers?;
        let sent = headers
            .get_all("x-correlation-id")
            .iter()
            .collect::<Vec<_>>();
        let correlation_id = match sent.as_slice() {
            [one] => one.to_str().ok().map(str::to_owned),
            _ => None,
        };
        let mut reply = self
            .http
            .send(&self.method, &self.url, &headers, self.body.clone())
            .await?;
        reply.correlation_id_sent = correlation_id;
        if let Some(Witness(look)) = &self.witness {
            let content_type = headers.get("content-type");
            look(&Exchange {
                method: &self.method,
                target: self.url.get(self.target..).unwrap_or_default(),
                content_type: content_type.map_or("", |value| value.to_str().unwrap_or_default()),
                body: &self.body,
                reply: &reply,
            })?;
        }
        Ok(reply)
    }
}

impl IntoFuture for Call {
    type Output = Result<Reply>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl Reply {
    /// The `error` object of a refusal, after a look at everything that every
    /// refusal must have.
    ///
    /// # Errors
    /// Another status or code, or something about the envelope is not right.
    pub fn refused(&self, status: u16, code: &str) -> Result<Value> {
        let check = || {
            ensure!(self.status == status, "the status is not {status}");
            ensure!(
                self.header("content-type") == Some("application/json"),
                "it is not application/json"
            );
            let body = self.json()?;
            let error = body.get("error").context("it has no error")?;
            let text = |name: &str| error.get(name).and_then(Value::as_str);
            ensure!(text("code") == Some(code), "the code is not {code}");
            ensure!(
                text("message").is_some_and(|message| !message.is_empty()),
                "it says nothing"
            );
            let correlation_id = text("correlationId").context("it has no correlation id")?;
            ensure!(
                self.header("x-correlation-id") == Some(correlation_id),
                "header and body have two correlation ids"
            );
            if let Some(sent) = self.correlation_id_sent.as_deref()
                && !code.starts_with("CORRELATION_ID_")
            {
                ensure!(
                    sent == correlation_id,
                    "the correlation id is not the request's"
                );
            }
            let timestamp = text("timestamp").context("it has no timestamp")?;
            ensure!(
                is_timestamp(timestamp),
                "{timestamp} is not a timestamp in ms, UTC"
            );
            if status == 401 && code.starts_with("TOKEN_") {
                ensure!(
                    self.header("www-authenticate")
                        .is_some_and(|value| value.starts_with("Bearer")),
                    "WWW-Authenticate is missing"
                );
            }
            Ok(error.clone())
        };
        check().with_context(|| format!("expected {status} {code}, got {self:?}"))
    }

    /// The value at a JSON pointer (`/data/0/id`).
    ///
    /// # Errors
    /// The body is no JSON or has nothing there.
    pub fn at(&self, pointer: &str) -> Result<Value> {
        self.json()?
            .pointer(pointer)
            .cloned()
            .with_context(|| format!("nothing at {pointer} of {self:?}"))
    }

    /// The whole body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text at a JSON pointer.
    ///
    /// # Errors
    /// As [`Reply::at`], or it is no text.
    pub fn text_at(&self, pointer: &str) -> Result<String> {
        let value = self.at(pointer)?;
        value
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("{value} at {pointer} is no text"))
    }

    /// A header's one value.
    ///
    /// # Errors
    /// It is missing or repeated.
    pub fn one(&self, name: &str) -> Result<&str> {
        self.header(name)
            .with_context(|| format!("not exactly one {name} in {self:?}"))
    }
}

/// RFC 3339 with milliseconds, UTC: `2024-01-15T10:00:00.000Z`.
#[must_use]
pub fn is_timestamp(text: &str) -> bool {
    let form = b"dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

/// Any of the sixteen million addresses of loopback.
fn own_address() -> IpAddr {
    let [a, b, c] = rand::rng().random::<[u8; 3]>();
    IpAddr::V4(Ipv4Addr::new(127, a, b, c.clamp(2, 254)))
}

/// Headers of a request that no [`Client`] makes, such as a preflight.
///
/// # Errors
/// A name or value cannot be sent.
pub fn headers(pairs: &[(&str, &str)]) -> Result<HeaderMap> {
    pairs
        .iter()
        .map(|(name, value)| {
            Ok((
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            ))
        })
        .collect()
}
