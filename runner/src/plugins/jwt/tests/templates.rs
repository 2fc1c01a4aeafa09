//! Issuers by template: a realm a tenant.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use postern_contract::Code;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::trust::BURST;
use super::{Issuer, OTHER, RSA, Runner, bearing, edit, judge, jwt, runner, without};
use crate::testkit::Outcome;

pub(super) fn realms(of: &Issuer, allow: &[&str]) -> Value {
    json!({
        "issuer": format!("{}/realms/tenant-{{slug}}", of.url),
        "allow": allow,
        "audiences": ["api"],
    })
}

/// Claims of a token of a tenant's realm.
pub(super) fn claims(of: &Issuer, realm: &str) -> Value {
    let claims = edit(of.claims(), "tenant_id", json!("tnt_1"));
    edit(claims, "iss", json!(format!("{}/realms/{realm}", of.url)))
}

#[tokio::test]
async fn a_realm_that_the_template_allows_is_trusted_and_bound_to_its_tenant() {
    let server = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[realms(&server, &["acme", "eu-*"])], json!({}));
    assert!(runner.registry.unready().is_empty(), "nothing to wait for");
    for (slug, taken) in [
        ("acme", true),
        ("eu-1", true),
        ("evil", false),
        ("eu", false),
    ] {
        let token = RSA.sign(&claims(&server, &format!("tenant-{slug}")));
        let outcome = runner.judge(&token).await;
        assert_eq!(outcome.goes_on(), taken, "{slug}: {outcome}");
        if taken {
            let shown = outcome.upstream_header("x-identity").unwrap();
            assert!(
                shown.contains(&format!("tenant_slug: Some({slug:?})")),
                "{shown}"
            );
        }
    }
    for realm in [
        "master",
        "tenant-",
        "tenant-acme/",
        "tenant-acme/../master",
        "tenant-ACME",
    ] {
        let outcome = runner.judge(&RSA.sign(&claims(&server, realm))).await;
        assert_eq!(outcome.code(), Some(Code::TokenInvalid), "{realm}");
    }
}

#[tokio::test]
async fn a_realm_speaks_for_no_platform() {
    let server = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[realms(&server, &["*"])], json!({}));
    let token = RSA.sign(&without(claims(&server, "tenant-acme"), "tenant_id"));
    assert_eq!(runner.judge(&token).await.code(), Some(Code::TokenInvalid));
}

#[tokio::test]
async fn realms_do_not_vouch_for_each_other() {
    let (one, two) = (
        Issuer::publishing(&[&RSA]).await,
        Issuer::publishing(&[&OTHER]).await,
    );
    // The same template on two servers, and the same name of both keys.
    let runner = runner(&[realms(&one, &["*"]), realms(&two, &["*"])], json!({}));
    let chain = runner.chain("{}");
    assert!(
        judge(&chain, &RSA.sign(&claims(&one, "tenant-a")))
            .await
            .goes_on()
    );
    assert!(
        judge(&chain, &OTHER.sign(&claims(&two, "tenant-a")))
            .await
            .goes_on()
    );
    let crossed = OTHER.sign_as(Algorithm::RS256, Some("rsa"), &claims(&one, "tenant-a"));
    assert_eq!(
        judge(&chain, &crossed).await.code(),
        Some(Code::TokenInvalid)
    );

    let template = format!("{}/realms/tenant-{{slug}}", one.url);
    let only_one = runner.chain(&json!({"issuers": [template]}).to_string());
    assert!(
        judge(&only_one, &RSA.sign(&claims(&one, "tenant-b")))
            .await
            .goes_on()
    );
    assert!(
        !judge(&only_one, &OTHER.sign(&claims(&two, "tenant-a")))
            .await
            .goes_on()
    );
}

#[tokio::test]
async fn a_realm_that_does_not_exist_is_looked_for_once_a_while() {
    let server = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[realms(&server, &["*"])],
        json!({"newIssuersPerSecond": 1000}),
    );
    let token = |n: usize| RSA.sign(&claims(&server, &format!("tenant-missing-{n}")));
    for _ in 0..3 {
        for n in 0..5 {
            let refused = runner.judge(&token(n)).await;
            assert_eq!(refused.code(), Some(Code::TokenInvalid), "{refused}");
        }
    }
    assert_eq!(server.fetches(), 5);
}

#[tokio::test]
async fn inventing_realms_is_slow_and_in_nobodys_way() {
    let server = Issuer::publishing(&[&RSA]).await;
    let settings = json!({
        "issuers": [realms(&server, &["*"])],
        "maxIssuers": 3,
        "fetch": {"newIssuersPerSecond": 20, "unknownIssuerSeconds": 60, "waitMs": 5000},
    });
    let runner = Runner::of(jwt(settings));
    let good = |n: usize| RSA.sign(&claims(&server, &format!("tenant-good-{n}")));
    for n in 0..2 {
        assert!(runner.judge(&good(n)).await.goes_on());
    }
    const INVENTED: usize = 400;
    let tokens = (0..INVENTED).map(|n| claims(&server, &format!("tenant-missing-{n}")));
    let tokens: Vec<_> = tokens.map(|claims| RSA.sign(&claims)).collect();
    let mut late = 0;
    let start = std::time::Instant::now();
    for token in &tokens {
        late += usize::from(runner.judge(token).await.code() == Some(Code::BackendUnavailable));
    }
    let back = 20 * usize::try_from(start.elapsed().as_secs() + 1).unwrap();
    let most = usize::try_from(BURST).unwrap() + back;
    assert!(late + most >= INVENTED, "{late} were late, {most} may pass");
    // That address has nothing left, which is nobody else's loss.
    let newcomer = bearing(&good(2)).src_ip([198, 51, 100, 7]);
    assert!(newcomer.judge(&runner.chain("{}")).await.goes_on());
    let before = server.fetches();
    for n in 0..3 {
        let fresh = RSA.sign(&edit(
            claims(&server, &format!("tenant-good-{n}")),
            "n",
            json!(1),
        ));
        assert!(runner.judge(&fresh).await.goes_on());
    }
    assert_eq!(server.fetches(), before, "all three are still known");
}

/// As after a crash, which leaves nothing: everybody comes at once.
#[tokio::test]
async fn as_many_as_a_burst_are_new_at_once() {
    let server = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[realms(&server, &["*"])],
        json!({"newIssuersPerSecond": 1}),
    );
    let chain = Arc::new(runner.chain("{}"));
    let mut asking = JoinSet::new();
    for n in 0..BURST {
        let token = RSA.sign(&claims(&server, &format!("tenant-{n}")));
        let chain = Arc::clone(&chain);
        asking.spawn(async move { judge(&chain, &token).await });
    }
    asking.join_all().await;
    // Some may have waited too long, but everybody's keys come, without being asked for again.
    let all = tokio::time::timeout(Duration::from_secs(30), async {
        while server.fetches() < usize::try_from(BURST).unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(all.await.is_ok(), "{} were fetched", server.fetches());
}

#[tokio::test]
async fn beyond_the_bound_the_one_used_least_is_forgotten_and_comes_back() {
    let server = Issuer::publishing(&[&RSA]).await;
    let settings = json!({
        "issuers": [realms(&server, &["*"])],
        "maxIssuers": 2,
        "fetch": {"newIssuersPerSecond": 1000},
    });
    let runner = Runner::of(jwt(settings));
    let token = |n: usize| RSA.sign(&claims(&server, &format!("tenant-{n}")));
    for _ in 0..3 {
        for n in 0..6 {
            runner.becomes(&token(n), Outcome::goes_on).await;
        }
    }
    assert!(server.fetches() > 6, "some came back: {}", server.fetches());
}
