//! Keys that come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use postern_contract::Code;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Issuer, OTHER, RSA, edit, judge, runner};
use crate::testkit::Outcome;

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 0}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    issuer.publish(&[&RSA, &OTHER]);
    assert!(runner.judge(&OTHER.sign(&issuer.claims())).await.goes_on());
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
}

#[tokio::test]
async fn a_key_that_is_withdrawn_verifies_nothing_more() {
    let issuer = Issuer::publishing(&[&RSA, &OTHER]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "graceSeconds": 0}),
    );
    let token = RSA.sign(&issuer.claims());
    assert!(runner.judge(&token).await.goes_on());
    issuer.publish(&[&OTHER]);
    // Any unknown name has the set fetched anew.
    let unknown = OTHER.sign_as(Algorithm::RS256, Some("unknown"), &issuer.claims());
    assert!(!runner.judge(&unknown).await.goes_on());
    assert_eq!(
        runner.judge(&token).await.code(),
        Some(Code::TokenInvalid),
        "remembered, and yet"
    );
}

#[tokio::test]
async fn a_key_that_left_is_good_for_its_grace_and_no_longer() {
    let issuer = Issuer::publishing(&[&RSA, &OTHER]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "graceSeconds": 1}),
    );
    let token = |n: u8| RSA.sign(&edit(issuer.claims(), "n", json!(n)));
    assert!(runner.judge(&token(1)).await.goes_on());
    issuer.publish(&[&OTHER]);
    let left = Instant::now();
    let unknown = OTHER.sign_as(Algorithm::RS256, Some("unknown"), &issuer.claims());
    assert!(!runner.judge(&unknown).await.goes_on());
    assert!(runner.judge(&token(1)).await.goes_on(), "remembered");
    assert!(
        runner.judge(&token(2)).await.goes_on(),
        "new, of the old key"
    );
    let refused = |outcome: &Outcome| outcome.code() == Some(Code::TokenInvalid);
    runner.becomes(&token(1), refused).await;
    let took = left.elapsed();
    assert!((900..3000).contains(&took.as_millis()), "{took:?}");
    assert!(refused(&runner.judge(&token(2)).await));
    assert!(runner.judge(&OTHER.sign(&issuer.claims())).await.goes_on());
}

#[tokio::test]
async fn what_was_verified_survives_a_key_that_is_added() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "unknownKeySeconds": 1}),
    );
    let token = RSA.sign(&issuer.claims());
    assert!(runner.judge(&token).await.goes_on());
    issuer.publish(&[&RSA, &OTHER]);
    assert!(runner.judge(&OTHER.sign(&issuer.claims())).await.goes_on());
    // At once, which only what is remembered is.
    let chain = runner.chain("{}");
    assert!(judge(&chain, &token).await.goes_on());
}

/// However shortly after a fetch a key appears, the first token that it signed is taken.
#[tokio::test]
async fn a_new_key_is_found_though_the_last_fetch_was_just_now() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 300}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    // Somebody invents a name, and so closes the time in which nothing is fetched.
    let invented = OTHER.sign_as(Algorithm::RS256, Some("invented"), &issuer.claims());
    assert_eq!(
        runner.judge(&invented).await.code(),
        Some(Code::TokenInvalid)
    );
    issuer.publish(&[&RSA, &OTHER]);
    assert!(runner.judge(&OTHER.sign(&issuer.claims())).await.goes_on());
}

#[tokio::test]
async fn invented_key_names_cost_the_issuer_little() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 500}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let before = issuer.fetches();
    let start = Instant::now();
    let chain = Arc::new(runner.chain("{}"));
    let invented =
        |n: u8| OTHER.sign_as(Algorithm::RS256, Some(&format!("k{n}")), &issuer.claims());
    let mut asking = JoinSet::new();
    for n in 0..50 {
        let (chain, token) = (Arc::clone(&chain), invented(n));
        asking.spawn(async move { judge(&chain, &token).await });
    }
    let refused = |outcome: &Outcome| outcome.code() == Some(Code::TokenInvalid);
    assert!(asking.join_all().await.iter().all(refused));
    let fetches = issuer.fetches() - before;
    let most = 1 + start.elapsed().as_millis() / 500;
    assert!(fetches as u128 <= most, "{fetches} fetches");
    // The same names again: not one fetch, and no waiting.
    let again: Vec<_> = (0..50).map(invented).collect();
    let (before, start) = (issuer.fetches(), Instant::now());
    for token in &again {
        assert!(refused(&judge(&chain, token).await));
    }
    assert!(
        start.elapsed() < Duration::from_millis(450),
        "{:?}",
        start.elapsed()
    );
    assert!(
        issuer.fetches() <= before + 1,
        "one may have been wanted before"
    );
}

#[tokio::test]
async fn keys_are_fetched_again_before_the_issuer_says_they_end() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    issuer.with_header("cache-control", "max-age=1");
    let runner = runner(
        &[issuer.settings()],
        json!({"minRefreshSeconds": 1, "graceSeconds": 0}),
    );
    let token = RSA.sign(&issuer.claims());
    assert!(runner.judge(&token).await.goes_on());
    issuer.publish(&[&OTHER]);
    // Nobody asks for another key: the old one goes by itself.
    let refused = |outcome: &Outcome| outcome.code() == Some(Code::TokenInvalid);
    let start = Instant::now();
    runner.becomes(&token, refused).await;
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_fetch() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 0}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let before = issuer.fetches();
    issuer.publish(&[&RSA, &OTHER]);
    let chain = Arc::new(runner.chain("{}"));
    let mut asking = JoinSet::new();
    for n in 0..20 {
        let (chain, token) = (
            Arc::clone(&chain),
            OTHER.sign(&edit(issuer.claims(), "n", json!(n))),
        );
        asking.spawn(async move { judge(&chain, &token).await });
    }
    assert!(asking.join_all().await.iter().all(Outcome::goes_on));
    assert_eq!(issuer.fetches(), before + 1);
}
