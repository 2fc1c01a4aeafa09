//! What every request must bring (API, "Every request").

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_contract::header::is_correlation_id;
use postern_suites::envelope::refused_by_anyone;
use serde_json::json;

use super::{ANY, stack};

#[tokio::test]
async fn the_version_is_needed_and_echoed() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let reply = admin.get(ANY).await?.expect(200)?;
    assert_eq!(reply.one("x-api-version")?, "2024-01-01");

    let missing = admin.get(ANY).without("x-api-version").await?;
    missing.refused(400, "API_VERSION_MISSING")?;
    let bad: [&[u8]; 5] = [b"1999-01-01", b"2024-01-02", b"latest", b"", b"\xff"];
    for bad in bad {
        let call = admin.get(ANY).without("x-api-version");
        let reply = call.add("x-api-version", bad).await?;
        let error = reply.refused(400, "API_VERSION_UNSUPPORTED")?;
        let message = error["message"].to_string();
        ensure!(message.contains("2024-01-01"), "{message} lists none");
    }
    let twice = admin.get(ANY).add("x-api-version", b"2024-01-01").await?;
    twice.refused(400, "HEADER_REPEATED")?;
    Ok(())
}

#[tokio::test]
async fn a_good_correlation_id_comes_back_whatever_the_answer() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    for good in ["12345678", "a.b_c:d-e.0", &"x".repeat(128)] {
        let with = |path| admin.get(path).set("x-correlation-id", good);
        assert_eq!(with(ANY).await?.expect(200)?.one("x-correlation-id")?, good);
        // By the handler, by the runner, by the catch-all route.
        with("/v1/tenants/none")
            .await?
            .refused(404, "TENANT_NOT_FOUND")?;
        let by_runner = with(ANY).without("authorization").await?;
        by_runner.refused(401, "TOKEN_MISSING")?;
        with("/nowhere").await?.refused(404, "ROUTE_NOT_FOUND")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_correlation_id_is_refused_under_a_new_one() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let refused = async |call, code| -> Result<()> {
        let call: postern_harness::api::Call = call;
        let error = call.await?.refused(400, code)?;
        let given = error["correlationId"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ensure!(is_correlation_id(given.as_bytes()), "{given:?} is none");
        Ok(())
    };
    let bare = || admin.get(ANY).without("x-correlation-id");
    refused(bare(), "CORRELATION_ID_MISSING").await?;
    let long = "x".repeat(129);
    let bad: [&[u8]; 8] = [
        b"",
        b"1234567",
        long.as_bytes(),
        b"with a blank",
        b"semi;colon",
        b"slash/slash",
        "umlaut-\u{e4}".as_bytes(),
        b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8",
    ];
    for bad in bad {
        let call = bare().add("x-correlation-id", bad);
        refused(call, "CORRELATION_ID_INVALID")
            .await
            .with_context(|| String::from_utf8_lossy(bad).into_owned())?;
    }
    let twice = admin.get(ANY).add("x-correlation-id", b"another-one");
    refused(twice, "CORRELATION_ID_INVALID").await
}

#[tokio::test]
async fn public_routes_need_neither_token_nor_version_nor_correlation_id() -> Result<()> {
    let nobody = stack().await.anonymous();
    let bare = |method, path| {
        let call = nobody.call(method, path).without("x-api-version");
        call.without("x-correlation-id").without("idempotency-key")
    };
    for path in ["/health", "/v1/platform/health"] {
        let reply = bare(Method::GET, path).await?.expect(200)?;
        ensure!(is_correlation_id(reply.one("x-correlation-id")?.as_bytes()));
        let call = bare(Method::GET, path).set("x-correlation-id", "given-by-us");
        assert_eq!(call.await?.one("x-correlation-id")?, "given-by-us");
    }
    // No key either: a token is never stored. (The family is off here.)
    for path in ["/v1/auth/token", "/v1/auth/refresh", "/v1/auth/revoke"] {
        let reply = bare(Method::POST, path).json(&json!({})).await?;
        reply.refused(503, "FAMILY_UNAVAILABLE")?;
    }
    let policy = bare(Method::GET, "/v1/auth/signups/policy").await?;
    policy.refused(503, "FAMILY_UNAVAILABLE")?;
    Ok(())
}

#[tokio::test]
async fn a_body_is_of_a_media_type_that_the_route_takes() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let patch = json!({"displayName": "Renamed"});
    for good in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/merge-patch+json",
    ] {
        let call = admin.patch(&acme.path(), &patch);
        call.set("content-type", good).await?.expect(200)?;
    }
    let merge = "application/merge-patch+json";
    let rows: [(Method, &str, Option<&str>); 9] = [
        (Method::PATCH, &acme.path(), Some("text/plain")),
        (Method::PATCH, &acme.path(), Some("text/csv")),
        (
            Method::PATCH,
            &acme.path(),
            Some("application/x-www-form-urlencoded"),
        ),
        (Method::PATCH, &acme.path(), Some("json")),
        (
            Method::PATCH,
            &acme.path(),
            Some("application/json, text/csv"),
        ),
        (Method::PATCH, &acme.path(), None),
        (Method::POST, "/v1/tenants", Some(merge)),
        (
            Method::POST,
            "/v1/tenants",
            Some("multipart/form-data; boundary=x"),
        ),
        (Method::POST, "/v1/auth/token", Some("text/plain")),
    ];
    for (method, path, media_type) in rows {
        let call = admin
            .call(method, path)
            .json(&patch)
            .without("content-type");
        let call = match media_type {
            Some(media_type) => call.set("content-type", media_type),
            None => call,
        };
        let error = call.await?.refused(415, "UNSUPPORTED_MEDIA_TYPE")?;
        let message = error["message"].to_string();
        ensure!(message.contains("application/json"), "{message} lists none");
    }
    let packed = admin
        .patch(&acme.path(), &patch)
        .set("content-encoding", "gzip");
    packed.await?.refused(415, "UNSUPPORTED_MEDIA_TYPE")?;
    // Without a body there is nothing to be of a type.
    admin.delete(&acme.path()).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn mutations_need_an_idempotency_key() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let patch = || admin.patch(&acme.path(), &json!({"displayName": "Renamed"}));
    let long = "k".repeat(255);
    let long_quoted = format!("\"{long}\"");
    for good in [
        "k",
        &long,
        "\"quoted\"",
        &long_quoted,
        r#""with \" and \\ inside""#.replace(' ', "").as_str(),
        "a!~#%&'()*+,-./:;<=>?@[]^_`{|}",
    ] {
        patch().key(good).await?.expect(200)?;
    }
    for method in [Method::POST, Method::PATCH, Method::DELETE] {
        let path = if method == Method::POST {
            "/v1/tenants".to_owned()
        } else {
            acme.path()
        };
        let call = admin.call(method, &path).without("idempotency-key");
        call.json(&json!({}))
            .await?
            .refused(400, "IDEMPOTENCY_KEY_MISSING")?;
    }
    let longer = "k".repeat(256);
    let bad: [&[u8]; 8] = [
        b"",
        longer.as_bytes(),
        b"with a blank",
        b"\xff\xff",
        b"\"open",
        b"\"\"",
        b"\"a\"b\"",
        b"\"a\\b\"",
    ];
    for bad in bad {
        let call = patch().without("idempotency-key");
        let reply = call.add("idempotency-key", bad).await?;
        reply.refused(400, "IDEMPOTENCY_KEY_INVALID")?;
    }
    let twice = patch().add("idempotency-key", b"another").await?;
    twice.refused(400, "IDEMPOTENCY_KEY_INVALID")?;
    // A read needs none.
    admin.get(&acme.path()).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_header_that_means_one_thing_stands_once() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let token = format!("Bearer {}", admin.token().unwrap());
    for (name, value) in [
        // Some of these nginx refuses before anybody of ours is asked.
        ("authorization", token.as_str()),
        ("x-api-version", "2024-01-01"),
        ("content-type", "application/json"),
        ("range", "bytes=0-1"),
        ("if-range", "\"1\""),
        ("if-modified-since", "Thu, 01 Jan 2024 00:00:00 GMT"),
        ("if-unmodified-since", "Thu, 01 Jan 2024 00:00:00 GMT"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        let call = admin.get(ANY).without(name).add(name, value.as_bytes());
        let reply = call.add(name, value.as_bytes()).await?;
        refused_by_anyone(&reply, &[400], &["HEADER_REPEATED", "VALIDATION_ERROR"])
            .with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn too_many_headers_are_refused_before_some_are_out_of_sight() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    // Host, token, version and correlation id stand there already. A gateway
    // adds a few of its own, which count as well.
    let with = |count: usize| {
        (0..count - 4).fold(admin.get(ANY), |call, index| {
            call.set(&format!("x-filler-{index}"), "x")
        })
    };
    for few in [50, 80] {
        with(few).await?.expect(200)?;
    }
    for many in [90, 95, 150] {
        let reply = with(many).await?;
        // What comes after the hundredth is out of the runner's sight, and with
        // it perhaps the correlation id.
        refused_by_anyone(
            &reply,
            &[431, 400],
            &["HEADERS_TOO_LARGE", "CORRELATION_ID_MISSING"],
        )?;
        ensure!(many > 100 || reply.status == 431, "{reply:?}");
    }
    let repeated = (0..150).fold(admin.get(ANY), |call, _| call.add("x-filler", b"x"));
    refused_by_anyone(
        &repeated.await?,
        &[431, 400],
        &["HEADERS_TOO_LARGE", "CORRELATION_ID_MISSING"],
    )?;
    Ok(())
}

#[tokio::test]
async fn a_header_as_long_as_a_book_is_refused() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let reply = admin.get(ANY).set("x-filler", &"x".repeat(40_000)).await?;
    refused_by_anyone(
        &reply,
        &[400, 431],
        &["HEADERS_TOO_LARGE", "VALIDATION_ERROR"],
    )?;
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_text_hurt_nobody() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let call = admin
        .get(ANY)
        .add("x-any", b"\xff\xfe")
        .add("x-any", b"\x80");
    call.await?.expect(200)?;
    let call = admin.get(ANY).without("authorization");
    let reply = call.add("authorization", b"Bearer \xff\xfe").await?;
    reply.refused(401, "TOKEN_INVALID")?;
    Ok(())
}
