//! What a worker knows of issuers, and the one that takes over from it.

use std::time::Duration;

use postern_contract::Code;
use serde_json::{Value, json};

use super::templates::{claims, realms};
use super::{Issuer, OTHER, RSA, Runner, edit, runner};
use crate::testkit::Outcome;

const REALMS: usize = 30;

/// A token of one of the realms, unlike others.
fn token(of: &Issuer, realm: usize, n: usize) -> String {
    RSA.sign(&edit(claims(of, &format!("tenant-{realm}")), "n", json!(n)))
}

/// A worker that knows the realms and the issuer itself, and what it leaves.
async fn predecessor(of: &Issuer, fetch: Value) -> Runner {
    let before = runner(
        &[realms(of, &["*"]), of.settings()],
        edit(fetch, "newIssuersPerSecond", json!(1000)),
    );
    for realm in 0..REALMS {
        let token = token(of, realm, 0);
        before.becomes(&token, Outcome::goes_on).await;
    }
    let token = RSA.sign(&of.claims());
    before.becomes(&token, Outcome::goes_on).await;
    before
}

fn heir(of: &Runner, issuers: &[Value], fetch: Value) -> Runner {
    let heir = runner(issuers, fetch);
    heir.legacies.take_over(of.legacies.leave());
    heir
}

fn unavailable(outcome: &Outcome) -> bool {
    outcome.code() == Some(Code::BackendUnavailable)
}

#[tokio::test]
async fn an_heir_knows_every_issuer_though_they_are_away() {
    let server = Issuer::publishing(&[&RSA]).await;
    let before = predecessor(&server, json!({})).await;
    server.answer(500, "out of order");
    let issuers = [realms(&server, &["*"]), server.settings()];
    let fetch = || json!({"newIssuersPerSecond": 1, "waitMs": 200, "unknownKeyMs": 0});
    // As often as one takes over from another.
    let second = heir(&before, &issuers, fetch());
    let third = heir(&second, &issuers, fetch());
    assert!(third.registry.unready().is_empty());
    for realm in 0..REALMS {
        assert!(third.judge(&token(&server, realm, 1)).await.goes_on());
    }
    assert!(third.judge(&RSA.sign(&server.claims())).await.goes_on());
    assert!(unavailable(
        &third.judge(&OTHER.sign(&server.claims())).await
    ));
}

#[tokio::test]
async fn what_is_inherited_is_made_sure_of_when_it_is_used() {
    let server = Issuer::publishing(&[&RSA]).await;
    let before = predecessor(&server, json!({})).await;
    // One that was stolen, say: it ends with the change of workers, without a grace.
    server.publish(&[&OTHER]);
    let fetched = server.fetches();
    let heir = heir(&before, &[realms(&server, &["*"])], json!({}));
    let refused = |outcome: &Outcome| outcome.code() == Some(Code::TokenInvalid);
    heir.becomes(&token(&server, 0, 1), refused).await;
    let new = OTHER.sign(&claims(&server, "tenant-1"));
    assert!(heir.judge(&new).await.goes_on());
    // The two that were used, and one of them for a token whose key is gone.
    assert_eq!(server.fetches(), fetched + 3);
}

#[tokio::test]
async fn nobody_inherits_what_it_would_not_fetch() {
    let server = Issuer::publishing(&[&RSA]).await;
    let before = predecessor(&server, json!({})).await;
    server.answer(500, "out of order");
    let fetch = || json!({"waitMs": 200});
    let (own, all) = (server.settings(), realms(&server, &["*"]));
    let others = heir(&before, &[realms(&server, &["1", "2*"])], fetch());
    for (realm, code) in [
        (0, Some(Code::TokenInvalid)),
        (1, None),
        (2, None),
        (10, Some(Code::TokenInvalid)),
        (20, None),
    ] {
        let judged = others.judge(&token(&server, realm, 1)).await;
        assert_eq!(judged.code(), code, "{realm}: {judged}");
    }
    // Keys that come from elsewhere by now, and algorithms that are not taken any more.
    let elsewhere = edit(
        own.clone(),
        "jwksUri",
        json!(format!("{}/other/certs", server.url)),
    );
    let ours = format!("{}/realms/tenant-{{slug}}/certs", server.url);
    let elsewhere = heir(
        &before,
        &[edit(all.clone(), "jwksUri", json!(ours)), elsewhere],
        fetch(),
    );
    let narrow = ["RS512"];
    let narrower = heir(
        &before,
        &[
            edit(all, "algorithms", json!(narrow)),
            edit(own, "algorithms", json!(narrow)),
        ],
        fetch(),
    );
    for heir in [&elsewhere, &narrower] {
        assert!(unavailable(&heir.judge(&token(&server, 0, 1)).await));
        assert!(unavailable(&heir.judge(&RSA.sign(&server.claims())).await));
    }
}

#[tokio::test]
async fn inherited_keys_grow_no_younger() {
    let server = Issuer::publishing(&[&RSA]).await;
    let short =
        || json!({"refreshSeconds": 1, "minRefreshSeconds": 1, "keepSeconds": 4, "waitMs": 100});
    let before = predecessor(&server, short()).await;
    server.answer(500, "out of order");
    let mut heirs = vec![heir(&before, &[server.settings()], short())];
    let start = std::time::Instant::now();
    // Each second there is another, and none of them hears of the issuer.
    while let Some(last) = heirs.last()
        && last.judge(&RSA.sign(&server.claims())).await.goes_on()
    {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not end");
        tokio::time::sleep(Duration::from_millis(500)).await;
        heirs.push(heir(last, &[server.settings()], short()));
    }
    assert!(heirs.len() > 1, "it had none from the start");
}

#[tokio::test]
async fn what_is_no_legacy_is_left_out() {
    let server = Issuer::publishing(&[&RSA]).await;
    let before = predecessor(&server, json!({})).await;
    let left = before.legacies.leave();
    let heir = runner(&[realms(&server, &["*"])], json!({}));
    for end in (0..left.len()).step_by(97) {
        heir.legacies.take_over(left.slice(..end));
    }
    assert!(heir.judge(&token(&server, 0, 1)).await.goes_on());
}
