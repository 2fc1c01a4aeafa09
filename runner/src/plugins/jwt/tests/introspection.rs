//! Issuers that are asked whether a token still counts (RFC 7662).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Form, Router};
use postern_contract::Code;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Issuer, RSA, Runner, edit, judge, runner};
use crate::testkit::Outcome;

/// An introspection endpoint.
#[derive(Clone, Default)]
struct Endpoint {
    inactive: Arc<Mutex<HashSet<String>>>,
    broken: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

#[derive(Deserialize)]
struct Question {
    token: String,
}

async fn answer(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    Form(question): Form<Question>,
) -> Response {
    endpoint.asked.fetch_add(1, Ordering::SeqCst);
    // runner:p%20w, as a form has it.
    if headers["authorization"] != "Basic cnVubmVyOnAlMjB3" {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if endpoint.broken.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let active = !endpoint.inactive.lock().unwrap().contains(&question.token);
    tokio::time::sleep(Duration::from_millis(50)).await;
    json!({"active": active, "sub": "u1"})
        .to_string()
        .into_response()
}

async fn asking(
    issuer: &Issuer,
    cache_seconds: u64,
) -> (Endpoint, Runner, tempfile::NamedTempFile) {
    let endpoint = Endpoint::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/introspect", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/introspect", post(answer))
        .with_state(endpoint.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "p w\n").unwrap();
    let mut settings = issuer.settings();
    settings["introspection"] = json!({
        "uri": uri,
        "clientId": "runner",
        "clientSecretFile": secret.path(),
        "cacheSeconds": cache_seconds,
    });
    (endpoint, runner(&[settings], json!({})), secret)
}

fn token(issuer: &Issuer, n: usize) -> String {
    RSA.sign(&edit(issuer.claims(), "jti", Value::from(n.to_string())))
}

#[tokio::test]
async fn a_token_that_its_issuer_ended_is_refused() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let (endpoint, runner, _secret) = asking(&issuer, 300).await;
    let (good, ended) = (token(&issuer, 1), token(&issuer, 2));
    endpoint.inactive.lock().unwrap().insert(ended.clone());
    // The answers are remembered, both.
    for _ in 0..3 {
        assert!(runner.judge(&good).await.goes_on());
        assert_eq!(runner.judge(&ended).await.code(), Some(Code::TokenInvalid));
    }
    assert_eq!(endpoint.asked.load(Ordering::SeqCst), 2);
    let forged = format!("{}x", token(&issuer, 3));
    assert!(!runner.judge(&forged).await.goes_on());
    assert_eq!(
        endpoint.asked.load(Ordering::SeqCst),
        2,
        "nobody is asked about a forged one"
    );
}

#[tokio::test]
async fn an_answer_grows_old_and_without_a_new_one_nobody_knows() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let (endpoint, runner, _secret) = asking(&issuer, 1).await;
    let token = token(&issuer, 1);
    assert!(runner.judge(&token).await.goes_on());
    endpoint.broken.store(true, Ordering::SeqCst);
    let away = |outcome: &Outcome| outcome.code() == Some(Code::BackendUnavailable);
    runner.becomes(&token, away).await;
    endpoint.broken.store(false, Ordering::SeqCst);
    assert!(runner.judge(&token).await.goes_on());
    endpoint.inactive.lock().unwrap().insert(token.clone());
    let refused = |outcome: &Outcome| outcome.code() == Some(Code::TokenInvalid);
    runner.becomes(&token, refused).await;
}

#[tokio::test]
async fn many_with_one_token_are_one_question() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let (endpoint, runner, _secret) = asking(&issuer, 300).await;
    let token = token(&issuer, 1);
    // Known to be right, so that what is left is to ask.
    assert!(runner.judge(&token).await.goes_on());
    let chain = Arc::new(runner.chain("{}"));
    let other = self::token(&issuer, 2);
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let (chain, other) = (Arc::clone(&chain), other.clone());
        asking.spawn(async move { judge(&chain, &other).await });
    }
    assert!(asking.join_all().await.iter().all(Outcome::goes_on));
    let asked = endpoint.asked.load(Ordering::SeqCst);
    assert!(asked <= 21, "{asked}");
}
