//! The client: a request in the making, and what came back.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use postern_contract::TenantId;
use serde_json::Value;

use crate::{Endpoint, Place, context, seal};

/// A request in the making.
#[derive(Debug)]
#[must_use]
pub struct Ask {
    tenant: TenantId,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Ask {
    /// `below` is what follows the place in the path, as a person would write it.
    /// Whatever changes something gets a key of its own.
    pub fn new(place: &impl Place, method: Method, below: &str) -> Self {
        let mut headers = Vec::new();
        if method != Method::GET {
            let key = postern_harness::token::unique();
            headers.push(("idempotency-key".to_owned(), key));
        }
        Self {
            tenant: place.tenant(),
            method,
            path: place.path(below).chars().map(encoded).collect(),
            headers,
            body: Bytes::new(),
        }
    }

    /// With this header, instead of one that was there.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With this body.
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// With these bytes, whatever they are.
    pub fn body(self, media_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = self.header("content-type", media_type);
        ask.body = body.into();
        ask
    }

    /// As somebody of another tenant.
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = tenant;
        self
    }

    /// Sends it and waits for all of the answer.
    pub async fn send(self, to: &impl AsRef<Endpoint>) -> Answer {
        let (head, body) = self.open(to).await.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// The answer's head; its body is still to come. Who drops it has left.
    pub async fn open(self, to: &impl AsRef<Endpoint>) -> Response<Incoming> {
        let endpoint = to.as_ref();
        let (route, mut context) = context(&self.method, &self.path);
        context.tenant = self.tenant.to_string();
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("host", "test")
            .header("x-postern-context", seal(&endpoint.sealing, route, context));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (client, server) = tokio::io::duplex(64 << 10);
        let chain = Arc::clone(&endpoint.chain);
        let service = hyper::service::service_fn(move |request| {
            let chain = Arc::clone(&chain);
            async move { Ok::<_, Infallible>(chain.answer(request).await) }
        });
        let mut connection = hyper::server::conn::http1::Builder::new();
        connection.max_buf_size(8 << 20);
        tokio::spawn(connection.serve_connection(TokioIo::new(server), service));
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let request = request.body(Full::new(self.body)).unwrap();
        sender.send_request(request).await.unwrap()
    }
}

/// What no request line holds as it is.
fn encoded(c: char) -> String {
    match c {
        ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '|' | '{' | '}' => format!("%{:02X}", c as u32),
        c if c.is_ascii_graphic() => c.to_string(),
        c => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            bytes.map(|byte| format!("%{byte:02X}")).collect()
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// As HTTP has it.
    pub status: StatusCode,
    /// All of them.
    pub headers: HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl Answer {
    /// The body, to look for something in it.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// The body of what went well.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// The code of a refusal; of anything else none.
    pub fn code(&self) -> String {
        let code = self.json()["error"]["code"].as_str().map(str::to_owned);
        code.unwrap_or_default()
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub fn refused(&self) -> (u16, String) {
        assert!(!self.status.is_success(), "{self:?}");
        (self.status.as_u16(), self.code())
    }
}
