//! Issuers that are away, slow, or send what they should not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_harness::keycloak::{Keycloak, Realm};
use postern_harness::services::AUDIENCE;
use postern_harness::token::{Token, unique};
use postern_harness::wait_for;
use serde_json::json;

use super::liar::{Liar, Manner};
use super::signer::P256;
use super::{ANY, SOON, claims, judge, trusting};

/// Whoever waits for a fetch of a silent issuer waits for `fetch.timeoutMs`, 4 s.
const HELD_UP: Duration = Duration::from_millis(2_500);
/// `fetch.keepSeconds` of the stack whose issuer goes away for good.
const KEEP: Duration = Duration::from_secs(6);

#[tokio::test]
async fn while_keycloak_is_away_its_tokens_are_taken() -> Result<()> {
    let mut keycloak = Keycloak::start().await?;
    let realm = Realm::new(&format!("away-{}", unique()));
    keycloak.admin().await?.create(&realm).await?;
    let issuer = json!({"issuer": keycloak.issuer(realm.name()), "audiences": [AUDIENCE]});
    let stack = trusting(
        &[issuer],
        json!({"refreshSeconds": 1, "minRefreshSeconds": 1, "unknownKeyMs": 200, "timeoutMs": 4000, "waitMs": 300}),
    )
    .await?;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(keycloak.service_account(&realm).await?.access);
    }
    judge(&stack, &tokens[0]).await?.expect(200)?;
    keycloak.process().kill()?;
    let left = Instant::now();
    for token in &tokens {
        // Some are remembered, some are verified with a key of before.
        let asked = Instant::now();
        judge(&stack, token).await?.expect(200)?;
        ensure!(asked.elapsed() < HELD_UP, "{:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    ensure!(
        left.elapsed() > Duration::from_secs(3),
        "some refreshes have failed by now"
    );
    // A key that nobody knows may be a new one: that is no 401, and takes no long.
    let asked = Instant::now();
    let unknown = P256::new("unknown")?.sign(&claims(&keycloak.issuer(realm.name())))?;
    let reply = judge(&stack, &unknown).await?;
    reply.refused(503, "BACKEND_UNAVAILABLE")?;
    reply.header("retry-after").context("no Retry-After")?;
    ensure!(asked.elapsed() < HELD_UP, "{:?}", asked.elapsed());
    keycloak.restart().await?;
    let token = keycloak.service_account(&realm).await?.access;
    judge(&stack, &token).await?.expect(200)?;
    judge(&stack, &tokens[5]).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_stays_away_ends_and_comes_back() -> Result<()> {
    let key = P256::new("k")?;
    let issuer = Liar::publishing(&[key.public()])?;
    let stack = trusting(
        &[issuer.settings()],
        json!({"refreshSeconds": 1, "minRefreshSeconds": 1, "keepSeconds": KEEP.as_secs(), "timeoutMs": 500, "waitMs": 200}),
    )
    .await?;
    let token = key.sign(&claims(&issuer.url()))?;
    judge(&stack, &token).await?.expect(200)?;
    issuer.set(Manner::Closes);
    let left = Instant::now();
    let ended = async || {
        let reply = judge(&stack, &token).await?;
        reply.refused(503, "BACKEND_UNAVAILABLE").map(drop)
    };
    wait_for("the keys to be too old", SOON, ended).await?;
    let took = left.elapsed();
    let bounds = KEEP - Duration::from_millis(1_500)..KEEP + Duration::from_secs(2);
    ensure!(bounds.contains(&took), "they ended after {took:?}");
    // Others are not touched by it.
    stack
        .client(&Token::platform("platform_operator"))
        .await?
        .get(ANY)
        .await?
        .expect(200)?;
    issuer.set(Manner::Keys(vec![key.public()]));
    let back = async || judge(&stack, &token).await?.expect(200).map(drop);
    wait_for("the keys to come back", SOON, back).await
}

#[tokio::test]
async fn whatever_an_issuer_sends_others_are_served() -> Result<()> {
    let (key, elsewhere) = (P256::new("k")?, P256::new("elsewhere")?);
    let (issuer, other) = (
        Liar::publishing(&[key.public()])?,
        Liar::publishing(&[elsewhere.public()])?,
    );
    let stack = trusting(
        &[issuer.settings()],
        json!({"refreshSeconds": 1, "minRefreshSeconds": 1, "unknownKeyMs": 100, "timeoutMs": 4000, "waitMs": 300}),
    )
    .await?;
    let fresh = || key.sign(&claims(&issuer.url()));
    judge(&stack, &fresh()?).await?.expect(200)?;
    let deep = "[".repeat(200_000);
    let many: Vec<_> = (0..5_000)
        .map(|n| json!({"kty": "RSA", "kid": n.to_string()}))
        .collect();
    for manner in [
        Manner::Silent,
        Manner::Drips,
        Manner::Endless,
        Manner::Closes,
        Manner::Sends(format!("{}/certs", other.url())),
        Manner::Says(500, "{}".into()),
        Manner::Says(404, "{}".into()),
        Manner::Says(200, String::new()),
        Manner::Says(200, "<html>".into()),
        Manner::Says(200, deep),
        Manner::Says(200, r#"{"keys": {}}"#.into()),
        Manner::Says(
            200,
            json!({"keys": [null, 7, "x", {"kty": 1}, {"kty": "EC"}]}).to_string(),
        ),
        Manner::Keys(many),
    ] {
        issuer.set(manner.clone());
        let before = issuer.asked();
        // Nobody knows this one, and while the issuer is so nobody can.
        let asked = Instant::now();
        let unknown = elsewhere.sign(&claims(&issuer.url()))?;
        let reply = judge(&stack, &unknown).await?;
        let told = reply.refused(503, "BACKEND_UNAVAILABLE");
        told.with_context(|| format!("{manner:.99?}"))?;
        ensure!(
            asked.elapsed() < HELD_UP,
            "{manner:.99?}: {:?}",
            asked.elapsed()
        );
        // Its own key is known, and another issuer's token is not held up.
        for _ in 0..5 {
            let asked = Instant::now();
            judge(&stack, &fresh()?).await?.expect(200)?;
            let by_name = stack.client(&Token::platform("platform_operator")).await?;
            by_name.get(ANY).await?.expect(200)?;
            ensure!(
                asked.elapsed() < HELD_UP,
                "{manner:.99?}: {:?}",
                asked.elapsed()
            );
        }
        let wanted = async || {
            ensure!(issuer.asked() > before, "it was not asked");
            Ok(())
        };
        wait_for("the issuer to be asked", SOON, wanted).await?;
    }
    assert_eq!(other.asked(), 0, "a redirect was followed");
    Ok(())
}
