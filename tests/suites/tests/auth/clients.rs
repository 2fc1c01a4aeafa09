//! Clients: made once, their secret shown once, renewed.

use anyhow::{Context as _, Result};
use http::Method;
use postern_harness::token::unique;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_secret_is_shown_once_and_renewed() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("secrets").await?;
    let admin = &home.tenant.admin;
    let path = home.path("clients");
    let body = json!({"clientId": "robot", "name": "A robot", "grantTypes": ["client_credentials"],
        "scopes": ["workspaces:read"]});
    let key = unique();
    let made = admin.post(&path, &body).key(&key).await?.expect(201)?;
    assert_eq!(made.one("cache-control")?, "no-store");
    assert_eq!(made.at("/scopes")?, json!(["workspaces:read"]));
    let secret = made.text_at("/clientSecret")?;
    assert!(secret.len() >= 40, "{secret}");
    // A retry is told the same, another request not.
    let again = admin.post(&path, &body).key(&key).await?.expect(201)?;
    assert_eq!(again.one("x-idempotency-replayed")?, "true");
    assert_eq!(again.body, made.body);
    admin
        .post(&path, &body)
        .await?
        .refused(409, "DUPLICATE_KEY")?;
    let mut other = body.clone();
    other["clientId"] = json!("other");
    admin
        .post(&path, &other)
        .key(&key)
        .await?
        .refused(422, "IDEMPOTENCY_KEY_REUSED")?;

    let list = admin.get(&path).await?.expect(200)?;
    let text = String::from_utf8_lossy(&list.body).into_owned();
    assert!(
        !text.contains(&secret) && !text.to_lowercase().contains("secret"),
        "{text}"
    );
    assert_eq!(
        list.at("/data")?.as_array().map(Vec::len),
        Some(1),
        "{text}"
    );

    let log_in = |secret: &str| json!({"grantType": "client_credentials", "tenant": home.tenant.slug, "clientId": "robot", "clientSecret": secret});
    world.token(log_in(&secret)).await?.expect(200)?;
    let key = unique();
    let renew = async || {
        let call = admin.call(Method::POST, &home.path("clients/robot/secret"));
        call.json(&json!({})).key(&key).await?.expect(200)
    };
    let renewed = renew().await?;
    let new = renewed.text_at("/clientSecret")?;
    assert_ne!(new, secret);
    assert_eq!(renew().await?.body, renewed.body);
    world
        .token(log_in(&secret))
        .await?
        .refused(401, "INVALID_CREDENTIALS")?;
    world.token(log_in(&new)).await?.expect(200)?;

    // Who did it, and nothing that opens anything.
    let trail = admin
        .get(&format!("{}/audit", home.tenant.path()))
        .await?
        .expect(200)?;
    let text = String::from_utf8_lossy(&trail.body).into_owned();
    assert!(
        text.contains("iam.clients.create") && text.contains("iam.clients.secret"),
        "{text}"
    );
    assert!(!text.contains(&secret) && !text.contains(&new), "{text}");
    Ok(())
}

#[tokio::test]
async fn what_would_be_unsafe_is_refused() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("unsafe").await?;
    let admin = &home.tenant.admin;
    for (more, field) in [
        (json!({"redirectUris": ["*"]}), "redirectUris"),
        (
            json!({"redirectUris": ["https://app.example.com/*"]}),
            "redirectUris",
        ),
        (
            json!({"redirectUris": ["http://app.example.com/"]}),
            "redirectUris",
        ),
        (
            json!({"redirectUris": ["https://app.example.com/#top"]}),
            "redirectUris",
        ),
        (json!({"redirectUris": []}), "redirectUris"),
        (json!({"scopes": ["tenants:everything"]}), "scopes"),
        (json!({"clientId": "../x"}), "clientId"),
        (json!({"protocolMappers": []}), "protocolMappers"),
        (json!({"publicClient": "yes"}), "publicClient"),
    ] {
        let mut body = json!({"clientId": "app", "grantTypes": ["authorization_code"],
            "redirectUris": ["https://app.example.com/cb"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let error = admin
            .post(&home.path("clients"), &body)
            .await?
            .refused(400, "VALIDATION_ERROR")?;
        assert!(
            error["details"].to_string().contains(field),
            "{body}: {error}"
        );
    }
    // Keycloak's own clients are not the tenant's.
    for own in [
        "realm-management",
        "admin-cli",
        "postern",
        "nobody",
        "..%2f..%2fmaster",
    ] {
        let path = home.path(&format!("clients/{own}/secret"));
        let reply = admin.call(Method::POST, &path).json(&json!({})).await?;
        assert!(matches!(reply.status, 400 | 404 | 405), "{own}: {reply:?}");
    }
    let mine = json!({"clientId": "admin-cli", "grantTypes": ["client_credentials"]});
    admin
        .post(&home.path("clients"), &mine)
        .await?
        .refused(409, "DUPLICATE_KEY")?;

    let public = json!({"clientId": "spa", "publicClient": true, "grantTypes": ["authorization_code"],
        "redirectUris": ["https://app.example.com/cb"]});
    admin
        .post(&home.path("clients"), &public)
        .await?
        .expect(201)?;
    let renew = admin
        .call(Method::POST, &home.path("clients/spa/secret"))
        .json(&json!({}))
        .await?;
    renew.refused(422, "CONSTRAINT_VIOLATION")?;

    let reader = home.tenant.member("tenant_operator").await?;
    reader.get(&home.path("clients")).await?.expect(200)?;
    reader
        .post(&home.path("clients"), &public)
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}

#[tokio::test]
async fn lists_go_on_where_they_stopped() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("lists").await?;
    let admin = &home.tenant.admin;
    let make = async |name: &str| {
        let body = json!({"clientId": name, "grantTypes": ["client_credentials"]});
        admin.post(&home.path("clients"), &body).await?.expect(201)
    };
    for name in ["b", "d", "f"] {
        make(name).await?;
    }
    let names = |reply: &postern_harness::http::Reply| -> Result<Vec<Value>> {
        let data = reply.at("/data")?;
        let data = data.as_array().context("no list")?;
        Ok(data
            .iter()
            .map(|client| client["clientId"].clone())
            .collect())
    };
    let first = admin
        .get(&home.path("clients?limit=2"))
        .await?
        .expect(200)?;
    assert_eq!(names(&first)?, ["b", "d"]);
    for name in ["a", "c", "e"] {
        make(name).await?;
    }
    let cursor = first.text_at("/pagination/nextCursor")?;
    let second = admin
        .get(&home.path(&format!("clients?limit=2&cursor={cursor}")))
        .await?
        .expect(200)?;
    assert_eq!(names(&second)?, ["e", "f"]);
    assert_eq!(second.at("/pagination/nextCursor")?, Value::Null);
    for bad in ["limit=0", "limit=x", "cursor=x", "surprise=1"] {
        admin
            .get(&home.path(&format!("clients?{bad}")))
            .await?
            .refused(400, "VALIDATION_ERROR")?;
    }
    // A cursor of one realm says nothing in another.
    let other = world.tenant("lists").await?;
    let path = other.path(&format!("clients?cursor={cursor}"));
    other
        .tenant
        .admin
        .get(&path)
        .await?
        .refused(400, "VALIDATION_ERROR")?;
    Ok(())
}
