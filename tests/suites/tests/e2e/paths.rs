//! Which path is which route, and that gateway, runner and handler never read
//! one in two ways.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_suites::envelope::refused_by_anyone;
use serde_json::json;

use super::{ANY, active, stack};

#[tokio::test]
async fn what_no_route_matches_is_told_to_anybody() -> Result<()> {
    let nobody = stack().await.anonymous();
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v1"),
        (Method::GET, "/v2/tenants"),
        (Method::GET, "/v1/tenantsX"),
        (Method::GET, "/admin"),
        (Method::GET, "/healthz"),
        (Method::GET, "/v1/tenants/"),
        (Method::GET, "/v1/tenants/a/b/c"),
        (Method::GET, "/v1/TENANTS"),
        (Method::POST, "/v1/nothing"),
        (Method::DELETE, "/v1/workspaces/a/b"),
        (Method::GET, "/v1/postgres/"),
        (Method::GET, "/apisix/status"),
    ] {
        let reply = nobody.call(method.clone(), path).await?;
        reply
            .refused(404, "ROUTE_NOT_FOUND")
            .with_context(|| format!("{method} {path}"))?;
    }
    // Where no family is near, not even a correlation id is asked for.
    let bare = nobody.get("/nowhere").without("x-correlation-id");
    bare.without("x-api-version")
        .await?
        .refused(404, "ROUTE_NOT_FOUND")?;
    Ok(())
}

#[tokio::test]
async fn a_path_under_another_method_says_which() -> Result<()> {
    let nobody = stack().await.anonymous();
    for (method, path, allowed) in [
        (
            Method::PUT,
            "/v1/tenants",
            ["GET", "HEAD", "POST"].as_slice(),
        ),
        (Method::DELETE, "/v1/tenants", &["GET", "HEAD", "POST"]),
        (Method::POST, "/health", &["GET", "HEAD"]),
        (
            Method::POST,
            "/v1/tenants/tnt_x",
            &["DELETE", "GET", "HEAD", "PATCH"],
        ),
        (Method::DELETE, ANY, &["GET", "HEAD"]),
        (Method::GET, "/v1/auth/token", &["POST"]),
        (Method::HEAD, "/v1/auth/token", &["POST"]),
    ] {
        let reply = nobody.call(method.clone(), path).await?;
        if method == Method::HEAD {
            ensure!(reply.status == 405 && reply.body.is_empty(), "{reply:?}");
        } else {
            reply.refused(405, "METHOD_NOT_ALLOWED")?;
        }
        let mut told: Vec<&str> = reply.one("allow")?.split(", ").collect();
        told.sort_unstable();
        assert_eq!(told, allowed, "{method} {path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_method_that_the_gateway_does_not_know_gets_the_envelope() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let reply = admin.call(Method::from_bytes(b"BREW")?, ANY).await?;
    refused_by_anyone(
        &reply,
        &[400, 405, 500],
        &["INTERNAL", "METHOD_NOT_ALLOWED", "VALIDATION_ERROR"],
    )?;
    // This one it knows, and refuses before anybody is asked.
    let reply = admin.call(Method::TRACE, ANY).await?;
    refused_by_anyone(&reply, &[405], &["METHOD_NOT_ALLOWED"])?;
    ensure!(reply.one("allow")?.contains("GET"), "{reply:?}");
    Ok(())
}

#[tokio::test]
async fn a_path_that_could_be_read_in_two_ways_is_refused() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let id = &acme.id;
    for path in [
        format!("/v1/workspaces/..%2ftenants/{id}"),
        format!("/v1/workspaces/..%2Ftenants%2F{id}"),
        format!("/v1/workspaces/%2e%2e/tenants/{id}"),
        format!("/v1/workspaces/../tenants/{id}"),
        format!("/v1/./tenants/{id}"),
        format!("/v1//tenants/{id}"),
        format!("//v1/tenants/{id}"),
        format!("/v1/tenants//{id}"),
        format!("/v1/tenants/{id}%2fusage"),
        format!("/v1/tenants/x/../{id}"),
    ] {
        let reply = acme.admin.get(&path).await?;
        reply
            .refused(400, "PATH_AMBIGUOUS")
            .or_else(|_| reply.refused(404, "ROUTE_NOT_FOUND"))
            .with_context(|| path.clone())?;
    }
    let admin = stack.platform_admin().await?;
    for path in [
        format!("/v1//tenants/{id}"),
        format!("/v1/workspaces/..%2ftenants/{id}"),
    ] {
        let reply = admin.delete(&path).await?;
        reply.refused(400, "PATH_AMBIGUOUS")?;
    }
    let still = admin.get(&acme.path()).await?.expect(200)?;
    assert_eq!(still.text_at("/status")?, "active");
    Ok(())
}

#[tokio::test]
async fn encoding_a_letter_changes_nothing() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let path = format!("/v1/%74enants/%74nt_{}", acme.id.trim_start_matches("tnt_"));
    let reply = acme.admin.get(&path).await?.expect(200)?;
    assert_eq!(reply.text_at("/id")?, acme.id);
    Ok(())
}

#[tokio::test]
async fn paths_and_queries_that_are_no_text_are_bad_requests() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    for path in [
        "/v1/tenants/%ff",
        "/v1/tenants/%c3%28",
        "/v1/tenants/%00",
        "/%ff",
        "/v1/%ff/x",
    ] {
        let reply = admin.get(path).await?;
        refused_by_anyone(&reply, &[400], &["VALIDATION_ERROR"])
            .with_context(|| path.to_owned())?;
    }
    for query in ["plan=%ff", "%ff=1", "limit=%00"] {
        let reply = admin.get(&format!("/v1/tenants?{query}")).await?;
        reply.refused(400, "VALIDATION_ERROR")?;
    }
    // Not a number that ends a path of another kind, nor a broken escape.
    let reply = admin.get("/v1/tenants/%zz").await?;
    ensure!(reply.status == 400 || reply.status == 404, "{reply:?}");
    Ok(())
}

#[tokio::test]
async fn a_path_as_long_as_a_book_is_refused() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let reply = admin
        .get(&format!("/v1/tenants/{}", "x".repeat(40_000)))
        .await?;
    refused_by_anyone(&reply, &[414], &["URI_TOO_LONG"])?;
    let longish = admin
        .get(&format!("/v1/tenants/{}", "x".repeat(2_000)))
        .await?;
    let error = longish.refused(404, "TENANT_NOT_FOUND")?;
    ensure!(
        error.to_string().len() < 4_000,
        "the message is as long as the path"
    );
    Ok(())
}

#[tokio::test]
async fn as_many_arguments_as_a_book_has_words_hurt_nobody() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let reply = admin
        .get(&format!("/v1/tenants?{}", "a&".repeat(1_500)))
        .await?;
    reply.refused(400, "VALIDATION_ERROR")?;
    let again = admin.get("/v1/tenants?limit=1&limit=2").await?;
    reply.refused(400, "VALIDATION_ERROR")?;
    again.refused(400, "VALIDATION_ERROR")?;
    Ok(())
}

#[tokio::test]
async fn a_family_that_is_off_says_so() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let every = ["postgres", "mongo", "kafka", "functions", "storage"];
    let dev = acme.with_workspace("dev", &every).await?;
    active(&acme, &dev).await?;
    let id = &dev.id;
    for (method, path) in [
        (Method::GET, format!("/v1/mongo/{id}/collections")),
        (
            Method::POST,
            format!("/v1/mongo/{id}/collections/c/aggregate"),
        ),
        (Method::POST, format!("/v1/events/{id}/publish")),
        (Method::GET, format!("/v1/functions/{id}/actions")),
        (Method::PUT, format!("/v1/storage/{id}/objects/a/b")),
        (Method::GET, "/v1/iam/realms".to_owned()),
    ] {
        let mut call = acme.admin.call(method.clone(), &path);
        if method == Method::POST {
            call = call.json(&json!({}));
        }
        if path.ends_with("/aggregate") {
            // A read in all but the method: no key is asked for.
            call = call.without("idempotency-key");
        }
        let reply = call.await?;
        reply
            .refused(503, "FAMILY_UNAVAILABLE")
            .with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}
