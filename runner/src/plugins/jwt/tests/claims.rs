//! What a token says of its bearer.

use std::time::Duration;

use postern_contract::Code;
use serde_json::{Value, json};

use super::{Issuer, RSA, Runner, edit, judge, runner, seconds, without};

#[tokio::test]
async fn a_token_names_its_caller() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let claims = json!({
        "iss": issuer.url, "aud": ["other", "api"], "sub": "u1", "exp": seconds() + 300, "nbf": seconds(),
        "tenant_id": "tnt_1", "workspace_id": "wks_1", "plan_id": "growth", "azp": "cli", "sid": "s1",
        "scope": "tenants:read  tenants:write", "realm_access": {"roles": ["tenant_admin"]},
    });
    let outcome = Runner::trusting(&issuer).judge(&RSA.sign(&claims)).await;
    let shown = outcome.upstream_header("x-identity").unwrap();
    for part in [
        r#"subject: "u1""#,
        r#"tenant: Some("tnt_1")"#,
        r#"workspace: Some("wks_1")"#,
        r#"plan: Some("growth")"#,
        r#"roles: ["tenant_admin"]"#,
        r#"scopes: ["tenants:read", "tenants:write"]"#,
        r#"session: Some("s1")"#,
        r#"client: Some("cli")"#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[tokio::test]
async fn roles_that_mean_nothing_on_the_token_are_left_out() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let all = [
        "superadmin",
        "platform_operator",
        "tenant_admin",
        "workspace_admin",
        "else",
    ];
    let (tenant, workspace) = (json!("tnt_1"), json!("wks_1"));
    for (claims, counting) in [
        (json!({}), &["superadmin", "platform_operator", "else"][..]),
        (json!({"tenant_id": tenant}), &["tenant_admin", "else"]),
        (
            json!({"tenant_id": tenant, "workspace_id": workspace}),
            &["tenant_admin", "workspace_admin", "else"],
        ),
    ] {
        let mut token = edit(issuer.claims(), "realm_access", json!({"roles": all}));
        for name in ["tenant_id", "workspace_id"] {
            let value = claims.get(name).cloned().unwrap_or_default();
            token = edit(token, name, value);
        }
        let outcome = runner.judge(&RSA.sign(&token)).await;
        let shown = outcome.upstream_header("x-identity").unwrap();
        let roles = format!("roles: {counting:?}");
        assert!(shown.contains(&roles), "{roles} in {shown}");
    }
}

#[tokio::test]
async fn claims_that_do_not_hold() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let (good, now) = (issuer.claims(), seconds());
    let with = |name: &str, value: Value| edit(good.clone(), name, value);
    for (claims, expected) in [
        (with("exp", json!(now - 31)), Code::TokenExpired),
        (with("exp", json!(0)), Code::TokenExpired),
        (with("exp", json!("soon")), Code::TokenInvalid),
        (with("exp", json!(-5)), Code::TokenInvalid),
        (without(good.clone(), "exp"), Code::TokenInvalid),
        (with("nbf", json!(now + 60)), Code::TokenInvalid),
        (with("nbf", json!("later")), Code::TokenInvalid),
        (with("iat", json!(now + 60)), Code::TokenInvalid),
        (with("iat", json!("earlier")), Code::TokenInvalid),
        // Keycloak's own words for what is no access token.
        (with("typ", json!("ID")), Code::TokenInvalid),
        (with("typ", json!("Refresh")), Code::TokenInvalid),
        (with("typ", json!(["Bearer"])), Code::TokenInvalid),
        (with("cnf", json!({"jkt": "x"})), Code::TokenInvalid),
        (with("jti", json!(7)), Code::TokenInvalid),
        (
            with("iss", json!("https://elsewhere.example")),
            Code::TokenInvalid,
        ),
        (with("iss", json!([issuer.url])), Code::TokenInvalid),
        (
            with("iss", json!(format!("{}/", issuer.url))),
            Code::TokenInvalid,
        ),
        (with("aud", json!("another")), Code::TokenInvalid),
        (with("aud", json!([])), Code::TokenInvalid),
        (with("aud", json!({"api": 1})), Code::TokenInvalid),
        (without(good.clone(), "aud"), Code::TokenInvalid),
        (without(good.clone(), "sub"), Code::TokenInvalid),
        (with("sub", json!("")), Code::TokenInvalid),
        (
            with("sub", json!("a\r\nX-Auth-Roles: superadmin")),
            Code::TokenInvalid,
        ),
        // An empty tenant must not make a platform token of it, nor a list.
        (with("tenant_id", json!("")), Code::TokenInvalid),
        (with("tenant_id", json!(["tnt_1"])), Code::TokenInvalid),
        (with("workspace_id", json!("wks_1")), Code::TokenInvalid),
        (
            with("realm_access", json!({"roles": "superadmin"})),
            Code::TokenInvalid,
        ),
        (
            with("realm_access", json!({"roles": [1]})),
            Code::TokenInvalid,
        ),
    ] {
        let outcome = runner.judge(&RSA.sign(&claims)).await;
        assert_eq!(
            (outcome.status(), outcome.code()),
            (Some(401), Some(expected)),
            "{claims}"
        );
    }
    for claims in [
        with("exp", json!(now - 25)),
        with("exp", json!(now as f64 + 100.5)),
        with("nbf", json!(now + 25)),
        with("iat", json!(now + 25)),
        with("iat", json!(1)),
        with("typ", json!("Bearer")),
        with("cnf", Value::Null),
        with("tenant_id", Value::Null),
        with("realm_access", json!("none")),
    ] {
        assert!(runner.judge(&RSA.sign(&claims)).await.goes_on(), "{claims}");
    }
}

#[tokio::test]
async fn a_route_may_ask_for_another_audience() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let (usual, special) = (
        runner.chain("{}"),
        runner.chain(r#"{"audiences": ["special"]}"#),
    );
    let token = RSA.sign(&issuer.claims());
    let for_special = RSA.sign(&edit(issuer.claims(), "aud", json!("special")));
    // Twice: the second time both tokens are remembered.
    for _ in 0..2 {
        assert!(judge(&usual, &token).await.goes_on());
        assert_eq!(
            judge(&special, &token).await.code(),
            Some(Code::TokenInvalid)
        );
        assert!(judge(&special, &for_special).await.goes_on());
        assert_eq!(
            judge(&usual, &for_special).await.code(),
            Some(Code::TokenInvalid)
        );
    }
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let token = RSA.sign(&edit(issuer.claims(), "exp", json!(seconds() - 29)));
    assert!(runner.judge(&token).await.goes_on());
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let outcome = runner.judge(&token).await;
            if !outcome.goes_on() {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(ended.await.unwrap().code(), Some(Code::TokenExpired));
}

#[tokio::test]
async fn claim_names_and_algorithms_are_settings() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let mut settings = issuer.settings();
    settings["claims"] =
        json!({"tenant": "https://x.example/tenant", "roles": "groups", "scopes": "scp"});
    settings["algorithms"] = json!(["RS256"]);
    let runner = runner(&[settings.clone()], json!({}));
    let mut claims = issuer.claims();
    claims["https://x.example/tenant"] = json!("tnt_9");
    claims["groups"] = json!(["tenant_admin"]);
    claims["scp"] = json!(["a", "b"]);
    let outcome = runner.judge(&RSA.sign(&claims)).await;
    let shown = outcome.upstream_header("x-identity").unwrap();
    assert!(
        shown.contains(r#"tenant: Some("tnt_9")"#) && shown.contains(r#"scopes: ["a", "b"]"#),
        "{shown}"
    );

    settings["algorithms"] = json!(["ES256"]);
    let no_rsa = self::runner(&[settings], json!({}));
    assert_eq!(
        no_rsa.judge(&RSA.sign(&claims)).await.code(),
        Some(Code::BackendUnavailable),
        "no usable key"
    );
}

#[tokio::test]
async fn an_issuer_may_be_held_to_some_clients() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let mut settings = issuer.settings();
    settings["clients"] = json!(["console", "cli"]);
    let runner = runner(&[settings], json!({}));
    for (client, taken) in [
        (json!("cli"), true),
        (json!("console"), true),
        (json!("another"), false),
        (Value::Null, false),
    ] {
        let token = RSA.sign(&edit(issuer.claims(), "azp", client));
        // Twice: the second time it is remembered.
        for _ in 0..2 {
            assert_eq!(runner.judge(&token).await.goes_on(), taken);
        }
    }
}
