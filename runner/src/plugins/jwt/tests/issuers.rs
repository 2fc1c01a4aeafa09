//! Several issuers, each with its own keys.

use postern_contract::Code;
use serde_json::json;

use super::{Issuer, OTHER, RSA, edit, judge, runner};
use jsonwebtoken::Algorithm;

#[tokio::test]
async fn issuers_never_vouch_for_each_other() {
    let (one, two) = (
        Issuer::publishing(&[&RSA]).await,
        Issuer::publishing(&[&OTHER]).await,
    );
    let runner = runner(&[one.settings(), two.settings()], json!({}));
    assert!(runner.judge(&RSA.sign(&one.claims())).await.goes_on());
    assert!(runner.judge(&OTHER.sign(&two.claims())).await.goes_on());
    let crossed = runner
        .judge(&OTHER.sign_as(Algorithm::RS256, Some("rsa"), &one.claims()))
        .await;
    assert_eq!(crossed.code(), Some(Code::TokenInvalid));
    let crossed = runner.judge(&OTHER.sign(&one.claims())).await;
    assert_eq!(crossed.code(), Some(Code::TokenInvalid));

    let only_one = runner.chain(&json!({"issuers": [one.url]}).to_string());
    assert!(judge(&only_one, &RSA.sign(&one.claims())).await.goes_on());
    assert_eq!(
        judge(&only_one, &OTHER.sign(&two.claims())).await.code(),
        Some(Code::TokenInvalid)
    );
}

#[tokio::test]
async fn keys_are_discovered_and_only_the_issuers_own() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let found = runner(
        &[json!({"issuer": issuer.url, "audiences": ["api"]})],
        json!({}),
    );
    assert!(found.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    // The document is of `url`, the settings say `url/`.
    let slash = format!("{}/", issuer.url);
    let other = runner(&[json!({"issuer": slash, "audiences": ["api"]})], json!({}));
    let token = RSA.sign(&edit(issuer.claims(), "iss", json!(slash)));
    assert_eq!(
        other.judge(&token).await.code(),
        Some(Code::BackendUnavailable)
    );
}
