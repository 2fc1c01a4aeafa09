//! Requests as the gateway sends them to the handlers: with what the runner sealed.

use anyhow::Result;
use http::Method;
use postern_context::{Context, RateLimit, SealingKeys};

use super::client::{KEY, Request};

/// Seals for one caller.
pub(crate) struct Sealer {
    pub(crate) keys: SealingKeys,
    pub(crate) tenant: String,
}

impl Sealer {
    /// A request that a handler believes for the next minute.
    pub(crate) fn request(
        &self,
        method: &Method,
        target: &str,
        body: Option<&str>,
    ) -> Result<Request> {
        let (route, told) = postern_served::context(method, target);
        let context = Context {
            issuer: "https://id.example.com/realms/postern".to_owned(),
            subject: "8f14e45f-ceea-467f-a0e6-5f3c2b9d1a77".to_owned(),
            tenant: self.tenant.clone(),
            plan: "growth".to_owned(),
            scopes: [
                "postgres:read",
                "postgres:write",
                "mongo:read",
                "mongo:write",
            ]
            .map(str::to_owned)
            .into(),
            client_address: "192.0.2.10".to_owned(),
            correlation_id: CORRELATION_ID.to_owned(),
            api_version: "2024-01-01".to_owned(),
            rate_limit: Some(RateLimit {
                policy: "growth".to_owned(),
                limit: 1000,
                burst: 1000,
                remaining: 999,
                reset: 1_800_000_000,
                reset_after: 1,
                partition: Vec::new(),
            }),
            ..told
        };
        let sealed = postern_served::seal(&self.keys, route, context);
        let more = format!(
            "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101\r\n\
             x-postern-context: {sealed}\r\n"
        );
        written(method, target, &more, body)
    }
}

const CORRELATION_ID: &str = "bench-0123456789abcdef";

/// A request to the gateway.
pub(crate) fn bearing(token: &str, target: &str) -> Result<Request> {
    let more = format!("authorization: Bearer {token}\r\nx-api-version: 2024-01-01\r\n");
    written(&Method::GET, target, &more, None)
}

fn written(method: &Method, target: &str, more: &str, body: Option<&str>) -> Result<Request> {
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nhost: api.example.com\r\naccept: application/json\r\n\
         x-correlation-id: {CORRELATION_ID}\r\n{more}"
    );
    if let Some(body) = body {
        head.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\nidempotency-key: {KEY}\r\n",
            body.len()
        ));
    }
    head.push_str("\r\n");
    let name = "idempotency-key: ";
    let key = head.find(name).map(|at| at + name.len());
    head.push_str(body.unwrap_or_default());
    Ok(Request {
        bytes: head.into_bytes(),
        key,
    })
}
