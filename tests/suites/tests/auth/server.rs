//! The server itself, as the harness starts it: what the other tests stand on.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use postern_harness::keycloak::{Keycloak, Realm, User};
use postern_harness::token::unique;
use serde_json::{Value, json};

/// What stands in a token; whether it is signed is not looked at.
fn part(token: &str, at: usize) -> Result<Value> {
    let part = token.split('.').nth(at).context("not a JWT")?;
    Ok(serde_json::from_slice(
        &BASE64_URL_SAFE_NO_PAD.decode(part)?,
    )?)
}

#[tokio::test]
async fn a_realm_of_a_tenant_signs_what_the_contract_asks_for() -> Result<()> {
    let keycloak = Keycloak::shared().await?;
    let realm = Realm::of_tenant(&unique(), "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        .plan("growth")
        .scopes("iam:read iam:write")
        .user(User::new("ada", "right", &["tenant_admin"]).pinned_to("wks_1"));
    let admin = keycloak.admin().await?;
    admin.create(&realm).await?;

    let tokens = keycloak.log_in(&realm, "ada", "right").await?;
    let claims = part(&tokens.access, 1)?;
    assert_eq!(claims["iss"], json!(keycloak.issuer(realm.name())));
    assert_eq!(claims["tenant_id"], json!("tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
    assert_eq!(claims["plan_id"], json!("growth"));
    assert_eq!(claims["workspace_id"], json!("wks_1"));
    assert_eq!(claims["aud"], json!("postern-api"));
    let scope = claims["scope"].as_str().context("no scope")?;
    assert!(scope.split(' ').any(|one| one == "iam:write"), "{scope}");
    let roles = claims["realm_access"]["roles"].as_array().context("none")?;
    assert!(roles.contains(&json!("tenant_admin")), "{roles:?}");
    for claim in ["sub", "sid", "azp", "jti", "exp", "iat", "typ"] {
        assert!(!claims[claim].is_null(), "there is no {claim}: {claims}");
    }
    assert!(tokens.refresh.is_some());

    let service = keycloak.service_account(&realm).await?;
    assert!(part(&service.access, 1)?["sub"].is_string());
    let refused = keycloak.log_in(&realm, "ada", "wrong").await.unwrap_err();
    assert!(
        format!("{refused:#}").contains("invalid_grant"),
        "{refused:#}"
    );
    Ok(())
}

#[tokio::test]
async fn keys_rotate_and_go() -> Result<()> {
    let keycloak = Keycloak::shared().await?;
    let realm = Realm::new(&format!("rotating-{}", unique())).user(User::new("ada", "right", &[]));
    let admin = keycloak.admin().await?;
    admin.create(&realm).await?;
    let kid = async || -> Result<Value> {
        let tokens = keycloak.log_in(&realm, "ada", "right").await?;
        Ok(part(&tokens.access, 0)?["kid"].clone())
    };
    let first = kid().await?;
    let second = admin.rotate_keys(realm.name(), "RS256").await?;
    assert_ne!(first, json!(second));
    assert_eq!(kid().await?, json!(second));
    let third = admin.rotate_keys(realm.name(), "RS256").await?;
    assert_eq!(kid().await?, json!(third));
    admin.remove_key(realm.name(), &third).await?;
    assert_eq!(kid().await?, json!(second));
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_with_its_realms() -> Result<()> {
    let mut keycloak = Keycloak::start().await?;
    let realm = Realm::new("kept").user(User::new("ada", "right", &[]));
    let admin = keycloak.admin().await?;
    admin.create(&realm).await?;
    keycloak.restart().await?;
    keycloak.log_in(&realm, "ada", "right").await?;
    let later = User::new("bob", "right", &["tenant_operator"]);
    admin.add_user(&realm, &later).await?;
    keycloak.log_in(&realm, "bob", "right").await?;
    keycloak.stop().await
}
