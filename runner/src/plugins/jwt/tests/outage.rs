//! Issuers that are away, slow, or send what they should not.

use std::time::{Duration, Instant};

use postern_contract::Code;
use serde_json::json;

use super::{Issuer, OTHER, RSA, Runner, edit, runner};
use crate::testkit::Outcome;

#[tokio::test]
async fn without_any_key_the_answer_is_retry_and_soon() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    issuer.answer(500, "out of order");
    let runner = Runner::trusting(&issuer);
    let token = RSA.sign(&issuer.claims());
    let started = Instant::now();
    let refused = runner.judge(&token).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(503), Some(Code::BackendUnavailable))
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(started.elapsed() < Duration::from_secs(4));
    assert_eq!(runner.registry.unready().len(), 1);
    issuer.publish(&[&RSA]);
    let well = tokio::time::timeout(Duration::from_secs(10), async {
        while !runner.judge(&token).await.goes_on() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(
        well.await.is_ok(),
        "it is tried again without anybody asking"
    );
    assert!(runner.registry.unready().is_empty());
}

#[tokio::test]
async fn the_last_good_keys_stay() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "waitMs": 2000}),
    );
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let endless = format!(
        "{{\"keys\": [], \"padding\": \"{}\"}}",
        "x".repeat(300 << 10)
    );
    for (status, body) in [
        (500, "{}"),
        (200, "<html>"),
        (200, r#"{"keys": []}"#),
        (200, &endless),
    ] {
        issuer.answer(status, body);
        let before = issuer.fetches();
        // Nobody knows: it may be of a new key.
        assert_eq!(
            runner.judge(&OTHER.sign(&issuer.claims())).await.code(),
            Some(Code::BackendUnavailable)
        );
        assert!(issuer.fetches() > before, "it was fetched");
        let fresh = RSA.sign(&edit(issuer.claims(), "n", json!(before)));
        assert!(
            runner.judge(&fresh).await.goes_on(),
            "after {status} {}",
            body.len()
        );
    }
}

#[tokio::test]
async fn the_last_good_keys_do_not_stay_for_ever() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"refreshSeconds": 1, "minRefreshSeconds": 1, "keepSeconds": 3, "waitMs": 100}),
    );
    let token = RSA.sign(&issuer.claims());
    runner.becomes(&token, Outcome::goes_on).await;
    issuer.answer(500, "out of order");
    // The last good ones may be a second old by now.
    let start = Instant::now();
    let away = |outcome: &Outcome| outcome.code() == Some(Code::BackendUnavailable);
    runner.becomes(&token, away).await;
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(runner.registry.unready().len(), 1);
    issuer.publish(&[&RSA]);
    runner.becomes(&token, Outcome::goes_on).await;
}

#[tokio::test]
async fn a_slow_issuer_holds_up_nobody_whose_key_is_known() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "timeoutMs": 400, "waitMs": 200}),
    );
    let known = RSA.sign(&issuer.claims());
    runner.becomes(&known, Outcome::goes_on).await;
    issuer.slow(Duration::from_secs(60));
    let start = Instant::now();
    let unknown = runner.judge(&OTHER.sign(&issuer.claims())).await;
    assert_eq!(unknown.code(), Some(Code::BackendUnavailable));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let start = Instant::now();
    for n in 0..20 {
        let token = RSA.sign(&edit(issuer.claims(), "n", json!(n)));
        assert!(runner.judge(&token).await.goes_on());
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let elsewhere = Issuer::publishing(&[&RSA]).await;
    issuer.answer(302, "");
    issuer.with_header("location", &format!("{}/certs", elsewhere.url));
    let runner = runner(&[issuer.settings()], json!({"waitMs": 300}));
    let refused = runner.judge(&RSA.sign(&issuer.claims())).await;
    assert_eq!(refused.code(), Some(Code::BackendUnavailable));
    assert_eq!(elsewhere.fetches(), 0);
}
