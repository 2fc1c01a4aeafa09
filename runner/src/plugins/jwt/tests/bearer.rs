//! What stands in `Authorization`.

use postern_contract::Code;

use super::{Issuer, RSA, Runner};
use crate::testkit;

#[tokio::test]
async fn what_is_no_bearer_token() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let chain = runner.chain("{}");
    let request = || testkit::request("GET", "/v1/platform/info");
    let missing = request().judge(&chain).await;
    assert_eq!(
        (missing.status(), missing.code()),
        (Some(401), Some(Code::TokenMissing))
    );
    assert!(
        missing
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer error=")
    );

    let good = RSA.sign(&issuer.claims());
    for value in [
        "Basic dTpw",
        "Bearer",
        "Bearer ",
        &good,
        "Bearer a.b",
        "Bearer a.b.c",
        "Bearer \u{e4}",
    ] {
        let refused = request().header("Authorization", value).judge(&chain).await;
        assert_eq!(refused.code(), Some(Code::TokenInvalid), "{value}");
        assert!(
            refused
                .header("www-authenticate")
                .unwrap()
                .contains(r#"error="invalid_token""#)
        );
    }
    let twice = request().header("Authorization", format!("Bearer {good}"));
    let twice = twice
        .header("authorization", format!("Bearer {good}"))
        .judge(&chain)
        .await;
    assert_eq!(twice.code(), Some(Code::TokenInvalid));
    let long = format!("Bearer {}", "x".repeat(9_000));
    let long = request().header("Authorization", long).judge(&chain).await;
    assert!(long.message().unwrap().contains("8 KiB"));
    let lower = request()
        .header("Authorization", format!("bearer  {good} "))
        .judge(&chain)
        .await;
    assert!(lower.goes_on(), "{lower}");
}

#[tokio::test]
async fn public_routes_ask_for_nothing_and_read_nothing() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let request = testkit::request("GET", "/health");
    assert!(request.judge(&runner.chain("{}")).await.goes_on());
    let rubbish = request
        .header("Authorization", "Bearer rubbish")
        .judge(&runner.chain("{}"))
        .await;
    assert!(rubbish.goes_on() && rubbish.upstream_header("x-identity").is_none());
}
