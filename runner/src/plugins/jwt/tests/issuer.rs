//! Issuers over HTTP, which do as a test says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Signer, seconds};

/// An issuer whose answers can be changed. It answers for every path below its address:
/// its own key set is at `/certs`, another issuer's at `/<name>/certs`.
pub(super) struct Issuer {
    pub(super) url: String,
    keys: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Answer {
    status: u16,
    body: String,
    headers: HeaderMap,
    delay: Duration,
}

impl Issuer {
    pub(super) async fn publishing(keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            keys: Arc::new(Mutex::new(Answer {
                status: 200,
                body: String::new(),
                headers: HeaderMap::new(),
                delay: Duration::ZERO,
            })),
            fetches: Arc::default(),
        };
        issuer.publish(keys);
        let state = (
            issuer.url.clone(),
            Arc::clone(&issuer.keys),
            Arc::clone(&issuer.fetches),
        );
        let router = Router::new().fallback(answer).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    pub(super) fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.public.clone()).collect();
        self.answer(200, json!({ "keys": keys }).to_string());
    }

    pub(super) fn answer(&self, status: u16, body: impl Into<String>) {
        let mut answer = self.keys.lock().unwrap();
        (answer.status, answer.body) = (status, body.into());
    }

    pub(super) fn document(&self) -> Value {
        serde_json::from_str(&self.keys.lock().unwrap().body).unwrap()
    }

    pub(super) fn with_header(&self, name: &'static str, value: &str) {
        let mut answer = self.keys.lock().unwrap();
        answer.headers.insert(name, value.parse().unwrap());
    }

    pub(super) fn slow(&self, delay: Duration) {
        self.keys.lock().unwrap().delay = delay;
    }

    /// How often its keys were asked for.
    pub(super) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    pub(super) fn settings(&self) -> Value {
        json!({"issuer": self.url, "jwksUri": format!("{}/certs", self.url), "audiences": ["api"]})
    }

    pub(super) fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "api", "sub": "u1", "exp": seconds() + 300})
    }
}

type Shared = (String, Arc<Mutex<Answer>>, Arc<AtomicUsize>);

async fn answer(State((url, keys, fetches)): State<Shared>, request: Request) -> Response {
    let path = request.uri().path();
    if let Some(name) = path.strip_suffix("/.well-known/openid-configuration") {
        // Realms that begin so do not exist.
        if name.contains("missing") {
            fetches.fetch_add(1, Ordering::SeqCst);
            return StatusCode::NOT_FOUND.into_response();
        }
        let issuer = format!("{url}{name}");
        return json!({"issuer": issuer, "jwks_uri": format!("{issuer}/certs")})
            .to_string()
            .into_response();
    }
    if !path.ends_with("/certs") {
        return StatusCode::NOT_FOUND.into_response();
    }
    fetches.fetch_add(1, Ordering::SeqCst);
    let answer = keys.lock().unwrap().clone();
    tokio::time::sleep(answer.delay).await;
    let status = StatusCode::from_u16(answer.status).unwrap();
    (status, answer.headers, answer.body).into_response()
}
