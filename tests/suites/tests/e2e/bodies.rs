//! What a body may be: its size, its JSON, and each field of it.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_harness::wait_for;
use postern_suites::envelope::refused_by_anyone;
use postern_suites::raw;
use serde_json::{Value, json};

use super::{SOON, named_fields, stack};

const MIB: usize = 1 << 20;

/// A tenant as JSON of exactly so many bytes: JSON may end in blanks.
fn padded(slug: &str, length: usize) -> String {
    let body = json!({
        "slug": slug,
        "displayName": "Padded",
        "plan": "starter",
        "adminEmail": "admin@padded.example.com",
    });
    let mut text = body.to_string();
    text.extend(std::iter::repeat_n(' ', length.saturating_sub(text.len())));
    text
}

#[tokio::test]
async fn a_body_has_its_limit() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let slug = |name: &str| format!("{name}-{}", postern_harness::token::unique());
    let post = |body: String| admin.post("/v1/tenants", &json!({})).body(body);
    post(padded(&slug("full"), MIB)).await?.expect(201)?;
    let reply = post(padded(&slug("over"), MIB + 1)).await?;
    refused_by_anyone(&reply, &[413], &["BODY_TOO_LARGE"])?;
    // The default, 256 KiB, on a route without a limit of its own.
    let nobody = stack().await.anonymous();
    let body = "x".repeat(MIB / 4 + 1);
    let call = nobody.call(Method::POST, "/v1/auth/token").json(&json!({}));
    let reply = call.body(body).await?;
    refused_by_anyone(&reply, &[413], &["BODY_TOO_LARGE"])?;
    Ok(())
}

#[tokio::test]
async fn a_body_whose_length_nobody_tells_has_it_too() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    let send = async |length: usize, slug: &str| -> Result<(u16, String)> {
        let mut stream = raw::connect(stack.url()).await?;
        let head = format!(
            "POST /v1/tenants HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nX-API-Version: 2024-01-01\r\n\
             X-Correlation-Id: chunked-{slug}\r\nIdempotency-Key: {slug}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            admin.token().context("an admin has a token")?,
        );
        raw::send(&mut stream, head.as_bytes()).await?;
        let body = padded(slug, length);
        for chunk in body.as_bytes().chunks(100_000) {
            let size = format!("{:x}\r\n", chunk.len());
            // The server may have answered before it has it all.
            let _ = raw::send(&mut stream, &[size.as_bytes(), chunk, b"\r\n"].concat()).await;
        }
        let _ = raw::send(&mut stream, b"0\r\n\r\n").await;
        raw::answer(&mut stream).await
    };
    let slug = format!("chunked-{}", postern_harness::token::unique());
    let (status, text) = send(2 * MIB, &slug).await?;
    ensure!(status == 413 && text.contains("BODY_TOO_LARGE"), "{text}");
    // Whoever broke off has left its claim behind: it lapses.
    wait_for("the claim to lapse", SOON, async || {
        let (status, text) = send(MIB / 2, &slug).await?;
        ensure!(status == 201, "{text}");
        Ok(())
    })
    .await
}

/// Bodies that are no object of a schema's form, whatever the schema.
fn no_objects() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str| {
        format!("{}{}", open.repeat(20_000), close.repeat(20_000)).into_bytes()
    };
    vec![
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number", b"7".to_vec()),
        ("a huge number", b"1e999999".to_vec()),
        ("a text", b"\"text\"".to_vec()),
        ("true", b"true".to_vec()),
        ("half an object", b"{\"slug\":".to_vec()),
        ("no JSON", b"slug=acme".to_vec()),
        ("two objects", b"{}{}".to_vec()),
        ("a comma too many", b"{\"slug\":\"acme\",}".to_vec()),
        ("bytes that are no text", b"{\"slug\":\"\xff\"}".to_vec()),
        ("half a surrogate", br#"{"slug":"\ud800"}"#.to_vec()),
        ("lists in lists", deep("[", "]")),
        ("objects in objects", deep("{\"a\":", "}")),
        ("an object that never ends", b"{\"a\":".repeat(20_000)),
        (
            "a field nested deeply",
            format!(
                "{{\"metadata\":{}{}}}",
                "[".repeat(20_000),
                "]".repeat(20_000)
            )
            .into_bytes(),
        ),
    ]
}

#[tokio::test]
async fn what_is_no_object_is_a_validation_error() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    let admin = stack.platform_admin().await?;
    for (method, path) in [
        (Method::POST, "/v1/tenants"),
        (Method::POST, "/v1/workspaces"),
        (Method::PATCH, &acme.path()),
        (Method::PATCH, &dev.path()),
    ] {
        // Each its own caller: rates are not what this is about.
        let admin = stack.platform_admin().await?;
        for (what, body) in no_objects() {
            let call = admin.call(method.clone(), path).json(&json!({}));
            let reply = call.body(body).await?;
            let error = reply
                .refused(400, "VALIDATION_ERROR")
                .with_context(|| format!("{method} {path}: {what}"))?;
            ensure!(!named_fields(&error).is_empty(), "{error} has no details");
        }
    }
    let unchanged = admin.get(&acme.path()).await?.expect(200)?.json()?;
    assert_eq!(unchanged, acme.made);
    Ok(())
}

/// Each bad body, and the fields that the refusal must name: all, and no others.
async fn all_named(method: Method, path: &str, rows: &[(Value, &[&str])]) -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    for (body, fields) in rows {
        let reply = admin.call(method.clone(), path).json(body).await?;
        let error = reply
            .refused(400, "VALIDATION_ERROR")
            .with_context(|| body.to_string())?;
        assert_eq!(named_fields(&error), *fields, "{body}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn every_bad_field_of_a_tenant_is_named() -> Result<()> {
    let good = json!({
        "slug": "acme", "displayName": "Acme", "plan": "starter", "adminEmail": "a@acme.example.com",
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let mut rows: Vec<(Value, &[&str])> = vec![
        (json!({}), &["adminEmail", "displayName", "plan", "slug"]),
        (
            json!({"slug": 7, "displayName": [], "plan": {}, "adminEmail": null, "metadata": "x", "surprise": 1}),
            &[
                "adminEmail",
                "displayName",
                "metadata",
                "plan",
                "slug",
                "surprise",
            ],
        ),
        (with("status", json!("active")), &["status"]),
        (with("id", json!("tnt_1")), &["id"]),
        (with("displayName", json!("")), &["displayName"]),
        (with("displayName", json!("   ")), &["displayName"]),
        (
            with("displayName", json!("x".repeat(10_000))),
            &["displayName"],
        ),
        (with("displayName", json!("nul\u{0}")), &["displayName"]),
        (with("adminEmail", json!("nobody")), &["adminEmail"]),
        (
            with("adminEmail", json!("a@b@c.example.com")),
            &["adminEmail"],
        ),
        (with("metadata", json!([])), &["metadata"]),
        (with("plan", json!("")), &["plan"]),
    ];
    let long = "a".repeat(64);
    for slug in [
        "", "ab", "1abc", "-abc", "abc-", "Abc", "a_bc", "a bc", "ab\u{e4}", "abc\n", &long,
    ] {
        rows.push((with("slug", json!(slug)), &["slug"]));
    }
    all_named(Method::POST, "/v1/tenants", &rows).await
}

#[tokio::test]
async fn every_bad_field_of_a_workspace_is_named() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let good = json!({
        "tenantId": acme.id, "slug": "dev", "displayName": "Dev", "capabilities": ["postgres"],
    });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let rows: [(Value, &[&str]); 9] = [
        (
            json!({"tenantId": 7, "slug": null, "displayName": 1, "capabilities": "postgres", "x": 1}),
            &["capabilities", "displayName", "slug", "tenantId", "x"],
        ),
        (with("tenantId", json!("acme")), &["tenantId"]),
        (
            with("tenantId", json!(acme.id.to_lowercase())),
            &["tenantId"],
        ),
        (with("slug", json!("Dev")), &["slug"]),
        (with("slug", json!("a".repeat(64))), &["slug"]),
        (
            with("capabilities", json!(["postgres", 7])),
            &["capabilities"],
        ),
        (with("capabilities", json!(["oracle"])), &["capabilities"]),
        (with("capabilities", json!(null)), &["capabilities"]),
        (with("status", json!("active")), &["status"]),
    ];
    all_named(Method::POST, "/v1/workspaces", &rows).await
}

#[tokio::test]
async fn every_bad_field_of_a_change_is_named() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let rows: [(Value, &[&str]); 7] = [
        (
            json!({"displayName": 7, "plan": [], "status": "gone", "metadata": 1, "slug": "other"}),
            &["displayName", "metadata", "plan", "slug", "status"],
        ),
        (json!({"displayName": null}), &["displayName"]),
        (json!({"plan": null}), &["plan"]),
        (json!({"status": null}), &["status"]),
        (json!({"id": "tnt_x"}), &["id"]),
        (
            json!({"createdAt": "2024-01-01T00:00:00.000Z"}),
            &["createdAt"],
        ),
        (
            json!({"adminEmail": "other@acme.example.com"}),
            &["adminEmail"],
        ),
    ];
    all_named(Method::PATCH, &acme.path(), &rows).await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    let rows: [(Value, &[&str]); 5] = [
        (
            json!({"displayName": "", "capabilities": {}, "status": 1, "tenantId": acme.id}),
            &["capabilities", "displayName", "status", "tenantId"],
        ),
        (json!({"displayName": null}), &["displayName"]),
        (json!({"capabilities": null}), &["capabilities"]),
        (json!({"capabilities": ["oracle"]}), &["capabilities"]),
        (json!({"slug": "other"}), &["slug"]),
    ];
    all_named(Method::PATCH, &dev.path(), &rows).await
}

#[tokio::test]
async fn good_slugs_are_taken() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let unique = postern_harness::token::unique();
    let longest = format!("{:a<63}", format!("l{unique}"));
    for slug in [format!("a{unique}"), format!("a-{unique}-9"), longest] {
        let body = json!({
            "slug": slug, "displayName": "Slug", "plan": "starter", "adminEmail": "a@slug.example.com",
        });
        let made = admin.post("/v1/tenants", &body).await?.expect(201)?;
        assert_eq!(made.text_at("/slug")?, slug);
    }
    Ok(())
}
