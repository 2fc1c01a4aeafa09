//! Whose realm is whose, and that realms follow their tenants.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use postern_harness::keycloak::Keycloak;
use postern_harness::wait_for;
use serde_json::{Value, json};

use crate::world::{World, stranger};

const FOLLOWS: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_tenant_sees_its_own_realm_and_no_other() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("own").await?;
    let admin = &home.tenant.admin;
    let list = admin.get("/v1/iam/realms").await?.expect(200)?;
    let issuer = format!("{}/realms/{}", world.keycloak_url, home.realm);
    assert_eq!(list.at("/data")?.as_array().map(Vec::len), Some(1));
    assert_eq!(list.text_at("/data/0/id")?, home.realm);
    assert_eq!(list.text_at("/data/0/tenantId")?, home.tenant.id);
    assert_eq!(list.text_at("/data/0/issuer")?, issuer);

    let stranger = stranger(&world.stack).await?;
    for realm in [
        home.realm.as_str(),
        "master",
        "tenant-nobody",
        "postern",
        "tenant-",
    ] {
        let path = format!("/v1/iam/realms/{realm}/roles");
        stranger.get(&path).await?.refused(404, "REALM_NOT_FOUND")?;
    }
    // Whatever becomes of the dots and slashes on the way, it is no realm of theirs.
    for realm in [
        "..%2fmaster",
        "%2e%2e%2fmaster",
        "../master",
        "tenant-x%2f..%2f..%2fmaster",
        ".",
        "..",
        "%00",
    ] {
        let body = json!({"clientId": "evil", "grantTypes": ["client_credentials"]});
        let reply = stranger
            .post(&format!("/v1/iam/realms/{realm}/clients"), &body)
            .await?;
        assert!(
            matches!(reply.status, 400 | 404 | 405),
            "{realm}: {reply:?}"
        );
    }
    let clients = Keycloak::shared().await?.admin().await?;
    let evil = clients
        .call(Method::GET, "/master/clients?clientId=evil", None)
        .await?;
    assert_eq!(evil.json()?, json!([]));

    // The refusal of another tenant's realm is in the trail.
    wait_for("the denial", FOLLOWS, async || {
        let tenant = stranger.get("/v1/tenants").await?.text_at("/data/0/id")?;
        let trail = stranger
            .get(&format!("/v1/tenants/{tenant}/audit?action=iam.roles.list"))
            .await?
            .expect(200)?;
        let denied = trail.at("/data")?.as_array().cloned().unwrap_or_default();
        let denied = denied
            .iter()
            .any(|event| event["resource"] == json!(home.realm) && event["outcome"] == "denied");
        ensure!(denied, "{trail:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_platform_names_a_tenant() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("named").await?;
    let platform = world.stack.platform_admin().await?;
    platform
        .get("/v1/iam/realms")
        .await?
        .refused(400, "VALIDATION_ERROR")?;
    let list = platform
        .get(&format!("/v1/iam/realms?tenantId={}", home.tenant.id))
        .await?
        .expect(200)?;
    assert_eq!(list.text_at("/data/0/id")?, home.realm);
    let roles = platform
        .get(&home.path("roles?limit=2"))
        .await?
        .expect(200)?;
    assert_eq!(roles.at("/data/0/name")?, json!("tenant_admin"));
    let cursor = roles.text_at("/pagination/nextCursor")?;
    let rest = platform
        .get(&home.path(&format!("roles?cursor={cursor}")))
        .await?
        .expect(200)?;
    let names: Vec<_> = rest
        .at("/data")?
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["name"].clone())
        .collect();
    assert_eq!(names, ["workspace_admin", "workspace_operator"]);
    platform
        .get("/v1/iam/realms/master/roles")
        .await?
        .refused(404, "REALM_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn a_plan_without_identity_has_no_realm() -> Result<()> {
    let world = World::shared().await?;
    let starter = world.stack.with_tenant_of("starter", "starter").await?;
    starter
        .admin
        .get("/v1/iam/realms")
        .await?
        .refused(403, "PLAN_CAPABILITY_REQUIRED")?;
    let path = format!("/v1/iam/realms/tenant-{}/roles", starter.slug);
    starter
        .admin
        .get(&path)
        .await?
        .refused(403, "PLAN_CAPABILITY_REQUIRED")?;
    let platform = world.stack.platform_admin().await?;
    platform
        .get(&path)
        .await?
        .refused(403, "PLAN_CAPABILITY_REQUIRED")?;

    platform
        .patch(&starter.path(), &json!({"plan": "growth"}))
        .await?
        .expect(200)?;
    wait_for("the realm of a larger plan", FOLLOWS, async || {
        let list = starter.admin.get("/v1/iam/realms").await?.expect(200)?;
        ensure!(list.text_at("/data/0/status")? == "active", "{list:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_realm_follows_its_tenant() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("follows").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let platform = world.stack.platform_admin().await?;
    let plan = async || -> Result<Value> {
        let tokens = world
            .token(home.log_in("ada", &password))
            .await?
            .expect(200)?;
        let token = tokens.text_at("/access_token")?;
        let claims = token.split('.').nth(1).context("no JWT")?;
        let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?;
        assert_eq!(claims["tenant_id"], json!(home.tenant.id));
        Ok(claims["plan_id"].clone())
    };
    assert_eq!(plan().await?, json!("growth"));
    platform
        .patch(&home.tenant.path(), &json!({"plan": "enterprise"}))
        .await?
        .expect(200)?;
    wait_for("the new plan in tokens", FOLLOWS, async || {
        let plan = plan().await?;
        ensure!(plan == json!("enterprise"), "{plan}");
        Ok(())
    })
    .await?;

    for (status, answer) in [("suspended", 401), ("active", 200), ("suspended", 401)] {
        platform
            .patch(&home.tenant.path(), &json!({"status": status}))
            .await?
            .expect(200)?;
        wait_for(status, FOLLOWS, async || {
            let reply = world.token(home.log_in("ada", &password)).await?;
            ensure!(reply.status == answer, "{reply:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
