//! Several issuers beside each other: none speaks for another.

use anyhow::{Context as _, Result};
use postern_harness::api::Client;
use postern_harness::keycloak::{Realm, User};
use postern_harness::token::unique;
use postern_harness::wait_for;
use serde_json::{Value, json};

use super::signer::{P256, claims_of};
use super::{ANY, SOON, World, claims};
use crate::limits::month::used;

#[tokio::test]
async fn keys_of_the_same_name_are_not_the_same() -> Result<()> {
    let world = World::shared().await?;
    let ((one, first), (two, second)) = (&world.one, &world.two);
    let (one, two) = (claims(&one.url()), claims(&two.url()));
    for (key, claims) in [(first, &one), (second, &two)] {
        world.judge(&key.sign(claims)?).await?.expect(200)?;
    }
    for (key, claims) in [(first, &two), (second, &one)] {
        let crossed = key.sign(claims)?;
        world.judge(&crossed).await?.refused(401, "TOKEN_INVALID")?;
    }
    // Nor does either speak for Keycloak.
    let realm = claims(&world.keycloak.issuer(world.realm.name()));
    let crossed = async || {
        let reply = world.judge(&first.sign(&realm)?).await?;
        reply.refused(401, "TOKEN_INVALID").map(drop)
    };
    wait_for("the refusal", SOON, crossed).await
}

#[tokio::test]
async fn a_tenants_realm_speaks_for_that_tenant_alone() -> Result<()> {
    let world = World::shared().await?;
    let (acme, other) = (
        world.stack.with_tenant("acme").await?,
        world.stack.with_tenant("other").await?,
    );
    let eve = || User::new("eve", "secret", &["tenant_admin"]);
    let realm = Realm::of_tenant(&acme.slug, &acme.id).user(eve());
    // Somebody asks too early; that is not held against it for long.
    let early = P256::new("early")?;
    let claims_early = claims(&world.keycloak.issuer(realm.name()));
    world
        .judge(&early.sign(&claims_early)?)
        .await?
        .refused(401, "TOKEN_INVALID")?;
    world.create(&realm).await?;
    let token = world.keycloak.log_in(&realm, "eve", "secret").await?.access;
    let as_acme = Client::new(world.stack.url(), Some(token));
    let taken = async || as_acme.get(&acme.path()).await?.expect(200).map(drop);
    wait_for("the realm to be trusted", SOON, taken).await?;
    as_acme
        .get(&other.path())
        .await?
        .refused(404, "TENANT_NOT_FOUND")?;

    // The realm of one whose admin writes another tenant's id into its tokens.
    let evil = Realm::of_tenant(&other.slug, &acme.id).user(eve());
    world.create(&evil).await?;
    let token = world.keycloak.log_in(&evil, "eve", "secret").await?.access;
    let as_evil = Client::new(world.stack.url(), Some(token));
    let refused = async || {
        let reply = as_evil.get(&acme.path()).await?;
        reply.refused(404, "TENANT_NOT_FOUND").map(drop)
    };
    wait_for("the refusal", SOON, refused).await?;
    as_evil.get(ANY).await?.refused(404, "TENANT_NOT_FOUND")?;

    // Whatever it asks for is no call of the other tenant, nor an entry in its trail.
    let admin = world.stack.platform_admin().await?;
    let (body, mark) = (json!({"slug": "s", "displayName": "S"}), unique());
    let forbidden = as_evil.post("/v1/tenants", &body);
    let denied = forbidden.set("x-correlation-id", &mark).await?;
    denied.refused(404, "TENANT_NOT_FOUND")?;
    let entry = async |path: &str| -> Result<Value> {
        let list = admin.get(path).await?.expect(200)?.at("/data")?;
        let mut entries = list.as_array().context("no list")?.iter();
        let found = entries.find(|entry| entry["correlationId"] == json!(mark));
        found.cloned().context("no such entry")
    };
    let written = wait_for("the denial", SOON, async || {
        entry("/v1/platform/audit").await
    })
    .await?;
    assert_eq!(written["tenantId"], Value::Null, "{written}");
    assert_eq!(written["resource"], json!(acme.id), "{written}");
    let trail = admin.get(&format!("{}/audit", acme.path())).await?.text();
    let evil_one = claims_of(as_evil.token().context("no token")?)?["sub"].clone();
    let evil_one = evil_one.as_str().context("no subject")?;
    assert!(!trail.contains(evil_one), "{trail}");
    as_acme.get(&acme.path()).await?.expect(200)?;
    // Its own issuer's three, the last of them after all the others'.
    used(&admin, &acme, 3).await?;

    // And one that leaves the tenant out, to be the platform.
    let nobody = Realm::new(&format!("tenant-{}-2", acme.slug));
    world.create(&nobody).await?;
    let token = world.keycloak.service_account(&nobody).await?.access;
    let refused = async || {
        let reply = world.judge(&token).await?;
        reply.refused(401, "TOKEN_INVALID").map(drop)
    };
    wait_for("the refusal", SOON, refused).await
}

#[tokio::test]
async fn realms_beside_the_template_are_not_trusted() -> Result<()> {
    let world = World::shared().await?;
    let key = P256::new("k")?;
    for realm in [
        "master",
        "tenant-",
        "tenant-a/../master",
        "tenant-A",
        "tenant-a%2f..",
        "tenant-a.b",
    ] {
        let mut claims = claims(&world.keycloak.issuer(realm));
        claims["tenant_id"] = json!("tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV");
        world
            .judge(&key.sign(&claims)?)
            .await?
            .refused(401, "TOKEN_INVALID")?;
    }
    Ok(())
}
