//! A plain HTTP/1.1 client that sends what it is told to.
//!
//! Paths go out as they are written (`..%2f` stays), a header may repeat, and
//! each client may have a loopback address of its own, so that limits by
//! address judge it alone.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// The slowest answer a test waits for: nothing here is that slow unless it hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// The largest answer a test reads.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// Connections to one or more servers, from one local address.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Http {
    /// A client that connects from `local`, or from wherever the kernel likes.
    #[must_use]
    pub fn from_address(local: Option<IpAddr>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(local);
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// There was no answer within 30 s, or the connection broke.
    pub async fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Reply> {
        let asked = format!("{method} {url}");
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .body(Full::new(body))
            .with_context(|| format!("not a request: {asked}"))?;
        *request.headers_mut() = headers.clone();
        let exchange = async {
            let response = self.client.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
                .to_bytes();
            Ok::<_, anyhow::Error>(Reply {
                asked: asked.clone(),
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
                correlation_id_sent: None,
            })
        };
        tokio::time::timeout(LIMIT, exchange)
            .await
            .with_context(|| format!("{asked}: no answer in {LIMIT:?}"))?
            .with_context(|| asked.clone())
    }

    /// A GET without any header.
    ///
    /// # Errors
    /// As [`Http::send`].
    pub async fn get(&self, url: &str) -> Result<Reply> {
        self.send(&Method::GET, url, &HeaderMap::new(), Bytes::new())
            .await
    }
}

/// A whole answer.
#[derive(Clone, Default)]
pub struct Reply {
    asked: String,
    /// The status code.
    pub status: u16,
    /// Every header.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    pub(crate) correlation_id_sent: Option<String>,
}

impl Reply {
    /// The one value of a header; none when it is missing or repeated.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }

    /// This answer, if its status is `status`.
    ///
    /// # Errors
    /// It is another one: the message shows the whole answer.
    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status == status {
            Ok(self)
        } else {
            bail!("expected {status}, got {self:?}")
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}", self.asked, self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "  {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        let shown = self.body.get(..2000).unwrap_or(&self.body);
        write!(f, "  {}", String::from_utf8_lossy(shown))
    }
}

/// Adds a header beside those of the same name.
///
/// # Errors
/// Name or value cannot be sent.
pub fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<()> {
    headers.append(
        HeaderName::from_bytes(name.as_bytes())?,
        HeaderValue::from_bytes(value)?,
    );
    Ok(())
}
