//! Tokens that were revoked, told by an operator. How the directory tells is tested
//! through the whole stack (`tests/suites/tests/policies`).

use bytes::Bytes;
use http::StatusCode;
use postern_contract::Code;
use serde_json::{Value, json};

use super::{Issuer, RSA, Runner, edit, seconds};

async fn revoke(runner: &Runner, order: Value) -> StatusCode {
    let body = Bytes::from(order.to_string());
    let done = runner.registry.command("/revocations", body).unwrap();
    done.await.0
}

#[tokio::test]
async fn a_revoked_token_is_refused_though_it_is_remembered() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let token = |n: u8| {
        let claims = edit(issuer.claims(), "jti", json!(format!("t{n}")));
        let claims = edit(claims, "sid", json!(format!("s{n}")));
        let claims = edit(claims, "sub", json!(format!("u{n}")));
        RSA.sign(&edit(claims, "iat", json!(seconds() - 10)))
    };
    for n in 0..4 {
        assert!(runner.judge(&token(n)).await.goes_on());
    }
    for (n, claim, value) in [(0, "jti", "t0"), (1, "sid", "s1"), (2, "sub", "u2")] {
        let order = json!({"issuer": issuer.url, claim: value});
        assert_eq!(revoke(&runner, order).await, StatusCode::OK);
        let refused = runner.judge(&token(n)).await;
        assert_eq!(
            (refused.status(), refused.code()),
            (Some(401), Some(Code::TokenInvalid)),
            "{claim}"
        );
        assert!(refused.message().unwrap().contains("revoked"), "{refused}");
    }
    assert!(
        runner.judge(&token(3)).await.goes_on(),
        "nobody meant this one"
    );
    let elsewhere = json!({"issuer": "https://elsewhere.example", "sid": "s3"});
    assert_eq!(revoke(&runner, elsewhere).await, StatusCode::OK);
    assert!(runner.judge(&token(3)).await.goes_on());
    // Who logs in again is let in.
    let claims = edit(issuer.claims(), "sub", json!("u2"));
    let later = RSA.sign(&edit(claims, "iat", json!(seconds() + 5)));
    assert!(runner.judge(&later).await.goes_on());
}

#[tokio::test]
async fn an_order_that_says_nothing_is_refused() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    for order in [json!({}), json!([]), json!({"issuer": issuer.url})] {
        assert_eq!(revoke(&runner, order).await, StatusCode::BAD_REQUEST);
    }
    assert!(
        runner
            .registry
            .command("/elsewhere", Bytes::new())
            .is_none()
    );
}
