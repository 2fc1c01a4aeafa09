//! One key, one effect: what a client sees of it (API, "Idempotency").

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use http::Method;
use postern_harness::api::Call;
use postern_harness::http::Reply;
use postern_harness::token::{Token, unique};
use serde_json::{Value, json};

use super::{active, stack};

fn tenant(slug: &str) -> Value {
    json!({
        "slug": slug, "displayName": "Once", "plan": "starter", "adminEmail": "a@once.example.com",
    })
}

fn slug() -> String {
    format!("once-{}", unique())
}

fn fresh(reply: Reply) -> Result<Reply> {
    ensure!(
        reply.header("x-idempotency-replayed").is_none(),
        "replayed: {reply:?}"
    );
    Ok(reply)
}

/// Sends a request twice more with its key and correlation ids of their own: both
/// get the first answer again.
async fn replays(first: &Reply, again: impl Fn() -> Call) -> Result<()> {
    for _ in 0..2 {
        let own = format!("own-{}", unique());
        let reply = again().set("x-correlation-id", &own).await?;
        assert_eq!(reply.one("x-idempotency-replayed")?, "true", "{reply:?}");
        assert_eq!(reply.one("x-correlation-id")?, own);
        assert_eq!(reply.status, first.status, "{reply:?}");
        assert_eq!(reply.body, first.body);
        for name in ["content-type", "location", "etag"] {
            assert_eq!(reply.header(name), first.header(name), "{name}");
        }
        // Told by whoever answers, and not by both.
        for name in [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-api-version",
        ] {
            reply.one(name)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_mutation_is_replayed() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let dev = acme.with_workspace("dev", &["postgres"]).await?;
    // One that is still provisioned cannot be suspended.
    active(&acme, &dev).await?;
    let workspace = json!({
        "tenantId": acme.id, "slug": "once", "displayName": "Once", "capabilities": ["postgres"],
    });
    let (tenant, acme_path, dev_path) = (tenant(&slug()), acme.path(), dev.path());
    let suspended = json!({"status": "suspended"});
    let rows: [(Method, &str, Option<&Value>, u16); 6] = [
        (Method::POST, "/v1/tenants", Some(&tenant), 201),
        (Method::POST, "/v1/workspaces", Some(&workspace), 201),
        (Method::PATCH, &dev_path, Some(&suspended), 200),
        (Method::DELETE, &dev_path, None, 200),
        (Method::PATCH, &acme_path, Some(&suspended), 200),
        (Method::DELETE, &acme_path, None, 200),
    ];
    for (method, path, body, status) in rows {
        let key = unique();
        let call = || {
            let call = admin.call(method.clone(), path).key(&key);
            match body {
                Some(body) => call.json(body),
                None => call,
            }
        };
        let first = fresh(call().await?.expect(status)?)?;
        replays(&first, call)
            .await
            .with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_verdict_on_the_data_is_kept() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let acme_path = acme.path();
    let none = "/v1/tenants/tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let rows: [(Method, &str, Value, &str, u16, &str); 5] = [
        (
            Method::POST,
            "/v1/tenants",
            tenant(&acme.slug),
            "*",
            409,
            "TENANT_SLUG_TAKEN",
        ),
        (
            Method::PATCH,
            &acme_path,
            json!({"status": "deactivated"}),
            "*",
            422,
            "INVALID_STATUS_TRANSITION",
        ),
        (
            Method::PATCH,
            &acme_path,
            json!({"plan": "gold"}),
            "*",
            422,
            "PLAN_UNKNOWN",
        ),
        (
            Method::PATCH,
            &acme_path,
            json!({"displayName": "X"}),
            "\"99\"",
            412,
            "PRECONDITION_FAILED",
        ),
        (
            Method::PATCH,
            none,
            json!({"displayName": "X"}),
            "*",
            404,
            "TENANT_NOT_FOUND",
        ),
    ];
    for (method, path, body, if_match, status, code) in rows {
        let key = unique();
        let call = || {
            let call = admin.call(method.clone(), path).key(&key);
            call.json(&body).set("if-match", if_match)
        };
        let first = fresh(call().await?)?;
        first.refused(status, code)?;
        // Byte for byte, the first request's correlation id in the body included.
        replays(&first, call)
            .await
            .with_context(|| code.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_not_carried_out_is_not_kept() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant_of("starter", "acme").await?;
    let admin = stack.platform_admin().await?;
    // 400, 401, 403, 413, 415 and then the right request under the same key.
    let (key, body) = (unique(), tenant(&slug()));
    let call = || admin.post("/v1/tenants", &body).key(&key);
    call()
        .json(&json!({}))
        .await?
        .refused(400, "VALIDATION_ERROR")?;
    call()
        .set("content-type", "text/csv")
        .await?
        .refused(415, "UNSUPPORTED_MEDIA_TYPE")?;
    call()
        .without("authorization")
        .await?
        .refused(401, "TOKEN_MISSING")?;
    call()
        .body(" ".repeat(1 << 21))
        .await
        .context("too long")?
        .expect(413)?;
    call()
        .body("{")
        .await
        .context("broken")?
        .refused(400, "VALIDATION_ERROR")?;
    fresh(call().await?.expect(201)?)?;
    // By the handler: 403 as long as there is no room, 201 when there is.
    let mut workspaces = Vec::new();
    for name in ["one", "two", "three"] {
        workspaces.push(acme.with_workspace(name, &[]).await?);
    }
    let body =
        json!({"tenantId": acme.id, "slug": "four", "displayName": "Four", "capabilities": []});
    let call = || acme.admin.post("/v1/workspaces", &body).key("four");
    call().await?.refused(403, "QUOTA_EXCEEDED")?;
    call().await?.refused(403, "QUOTA_EXCEEDED")?;
    acme.admin
        .delete(&workspaces[0].path())
        .await?
        .expect(200)?;
    let made = fresh(call().await?.expect(201)?)?;
    replays(&made, call).await
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() -> Result<()> {
    let stack = stack().await;
    let (acme, other) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("other").await?,
    );
    let admin = stack.platform_admin().await?;
    let key = unique();
    let body = json!({"displayName": "Renamed"});
    let call = |path: &str, body: &Value| admin.patch(path, body).key(&key);
    let first = fresh(call(&acme.path(), &body).await?.expect(200)?)?;
    let mut rows = vec![
        (
            "other content",
            call(&acme.path(), &json!({"displayName": "Other"})),
        ),
        (
            "other bytes",
            call(&acme.path(), &body).body(r#"{ "displayName":"Renamed"}"#),
        ),
        ("another resource", call(&other.path(), &body)),
        (
            "another query",
            call(&format!("{}?x=1", acme.path()), &body),
        ),
        (
            "another type",
            call(&acme.path(), &body).set("content-type", "application/json"),
        ),
        (
            "a precondition",
            call(&acme.path(), &body).set("if-match", "*"),
        ),
        (
            "another preference",
            call(&acme.path(), &body).set("prefer", "return=minimal"),
        ),
    ];
    rows.push(("another method", admin.delete(&acme.path()).key(&key)));
    rows.push((
        "another route",
        admin.post("/v1/tenants", &tenant(&slug())).key(&key),
    ));
    for (what, call) in rows {
        let reply = call.await?;
        reply
            .refused(422, "IDEMPOTENCY_KEY_REUSED")
            .with_context(|| what.to_owned())?;
    }
    replays(&first, || call(&acme.path(), &body)).await?;
    let unchanged = other.admin.get(&other.path()).await?.expect(200)?.json()?;
    assert_eq!(unchanged, other.made);
    Ok(())
}

#[tokio::test]
async fn a_key_is_its_owners_alone() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let other = stack.with_tenant("other").await?;
    let key = unique();
    let admin = Token::platform("platform_admin");
    let (one, two) = (stack.client(&admin).await?, stack.platform_admin().await?);
    let namesake = Token::of_tenant(&acme.id, "tenant_admin").claim("sub", json!(admin.subject()));
    let namesake = stack.client(&namesake).await?;
    let workspace = |tenant: &str| json!({"tenantId": tenant, "slug": "one", "displayName": "W", "capabilities": []});
    // Another subject; the same subject of a tenant; another family; another tenant.
    fresh(
        one.post("/v1/tenants", &tenant(&slug()))
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    fresh(
        two.post("/v1/tenants", &tenant(&slug()))
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    fresh(
        one.post("/v1/workspaces", &workspace(&other.id))
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    fresh(
        namesake
            .post("/v1/workspaces", &workspace(&acme.id))
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    // The same subject with a new token is the same.
    let (body, key) = (tenant(&slug()), unique());
    let first = fresh(
        one.post("/v1/tenants", &body)
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    let renewed = stack.client(&admin.claim("jti", json!(unique()))).await?;
    replays(&first, || renewed.post("/v1/tenants", &body).key(&key)).await
}

#[tokio::test]
async fn a_key_with_quotes_is_the_same_key() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let (key, body) = (unique(), tenant(&slug()));
    let first = fresh(
        admin
            .post("/v1/tenants", &body)
            .key(&key)
            .await?
            .expect(201)?,
    )?;
    let quoted = format!("\"{key}\"");
    replays(&first, || admin.post("/v1/tenants", &body).key(&quoted)).await
}

/// Above 256 KiB the runner does not fetch a body: the handler compares.
#[tokio::test]
async fn a_large_body_is_compared_too() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let (key, body) = (unique(), tenant(&slug()));
    let padded = |length: usize| {
        let text = body.to_string();
        let blanks = " ".repeat(length - text.len());
        text + &blanks
    };
    let call = |length: usize| {
        admin
            .post("/v1/tenants", &body)
            .body(padded(length))
            .key(&key)
    };
    let first = fresh(call(400_000).await?.expect(201)?)?;
    replays(&first, || call(400_000)).await?;
    call(400_001)
        .await?
        .refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    call(500).await?.refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    Ok(())
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let body =
        json!({"tenantId": acme.id, "slug": "race", "displayName": "Race", "capabilities": []});
    let call = || acme.admin.post("/v1/workspaces", &body).key("race");
    let mut made = None;
    for reply in join_all((0..12).map(|_| call().into_future())).await {
        let reply = reply?;
        if reply.status == 409 {
            reply.refused(409, "IDEMPOTENCY_IN_PROGRESS")?;
            reply.one("retry-after")?;
        } else if fresh(reply.clone()).is_ok() {
            let before = made.replace(reply.expect(201)?);
            ensure!(
                before.is_none(),
                "two were carried out: {before:?} {made:?}"
            );
        } else {
            reply.expect(201)?;
        }
    }
    let made = made.context("none was carried out")?;
    replays(&made, call).await?;
    let listed = acme
        .admin
        .get("/v1/workspaces")
        .await?
        .expect(200)?
        .at("/data")?;
    assert_eq!(listed, json!([made.json()?]));
    Ok(())
}

/// The replay of a change with a precondition is the first answer: neither the gateway,
/// which compares a 200 of the runner's with any of these (QUIRKS.md, 64), nor the
/// handler may judge the change by the `ETag` it has made.
#[tokio::test]
async fn a_change_with_a_precondition_is_replayed() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let path = acme.path();
    for name in ["if-match", "if-none-match", "if-unmodified-since"] {
        let etag = admin.get(&path).await?.expect(200)?.one("etag")?.to_owned();
        let value = match name {
            "if-match" => &etag,
            "if-none-match" => "*",
            _ => "Thu, 01 Jan 2026 00:00:00 GMT",
        };
        let (key, body) = (unique(), json!({"displayName": name}));
        let call = || {
            let call = admin.call(Method::PATCH, &path).json(&body).key(&key);
            call.set(name, value)
        };
        let first = fresh(call().await?.expect(200)?)?;
        assert_ne!(first.one("etag")?, etag, "the change made another version");
        replays(&first, call)
            .await
            .with_context(|| name.to_owned())?;
    }
    Ok(())
}
