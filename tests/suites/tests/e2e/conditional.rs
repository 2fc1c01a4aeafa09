//! Validators, preconditions, HEAD and compression.

use anyhow::{Result, ensure};
use futures::future::join_all;
use serde_json::json;

use super::{ANY, stack};

#[tokio::test]
async fn head_is_where_get_is_and_sends_no_body() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    for path in [
        acme.path().as_str(),
        "/v1/tenants",
        &dev.path(),
        ANY,
        "/health",
        &format!("{}/usage", acme.path()),
    ] {
        let get = acme.admin.get(path).await?.expect(200)?;
        let head = acme.admin.head(path).await?.expect(200)?;
        ensure!(head.body.is_empty(), "{head:?}");
        assert_eq!(head.one("content-type")?, get.one("content-type")?);
        // Of what changes with time the validator changes too; usage counts these calls.
        if path != "/health" && !path.ends_with("/usage") {
            assert_eq!(head.one("etag")?, get.one("etag")?);
        }
        for name in ["x-correlation-id", "x-ratelimit-limit"] {
            head.one(name)?;
        }
    }
    for (path, status) in [("/v1/tenants/nonsense", 404), ("/nowhere", 404)] {
        let head = acme.admin.head(path).await?.expect(status)?;
        ensure!(head.body.is_empty(), "{head:?}");
        head.one("x-correlation-id")?;
    }
    Ok(())
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    for path in [acme.path().as_str(), "/v1/tenants", "/v1/workspaces"] {
        let first = acme.admin.get(path).await?.expect(200)?;
        let etag = first.one("etag")?.to_owned();
        ensure!(etag.trim_start_matches("W/").starts_with('"'), "{etag}");
        for matching in [
            etag.clone(),
            format!("\"other\", {etag}"),
            format!("W/{etag}"),
            "*".into(),
        ] {
            let matching = matching.replace("W/W/", "W/");
            for call in [acme.admin.get(path), acme.admin.head(path)] {
                let reply = call.set("if-none-match", &matching).await?.expect(304)?;
                ensure!(reply.body.is_empty(), "{reply:?}");
                assert_eq!(reply.one("etag")?, etag);
                reply.one("x-correlation-id")?;
            }
        }
        for other in ["\"other\"", "", "nonsense"] {
            let call = acme.admin.get(path).set("if-none-match", other);
            call.await?.expect(200)?;
        }
    }
    let etag = acme.admin.get("/v1/tenants").await?.one("etag")?.to_owned();
    acme.admin
        .patch(&acme.path(), &json!({"displayName": "Changed"}))
        .await?
        .expect(200)?;
    let call = acme.admin.get("/v1/tenants").set("if-none-match", &etag);
    assert_ne!(call.await?.expect(200)?.one("etag")?, etag);
    Ok(())
}

#[tokio::test]
async fn a_change_of_what_has_changed_since_is_refused() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    for path in [acme.path(), dev.path()] {
        let read = admin.get(&path).await?.expect(200)?;
        let etag = read.one("etag")?.to_owned();
        let patch = |name: &str| admin.patch(&path, &json!({"displayName": name}));
        for stale in ["\"0\"", "\"x\", \"y\"", "W/\"0\"", "nonsense"] {
            patch("Stale")
                .set("if-match", stale)
                .await?
                .refused(412, "PRECONDITION_FAILED")?;
            let call = admin.delete(&path).set("if-match", stale);
            call.await?.refused(412, "PRECONDITION_FAILED")?;
        }
        assert_eq!(admin.get(&path).await?.json()?, read.json()?);
        let changed = patch("Right").set("if-match", &etag).await?.expect(200)?;
        patch("Late")
            .set("if-match", &etag)
            .await?
            .refused(412, "PRECONDITION_FAILED")?;
        patch("Any").set("if-match", "*").await?.expect(200)?;
        let list = format!("\"0\", {}", admin.get(&path).await?.one("etag")?);
        patch("Listed").set("if-match", &list).await?.expect(200)?;
        assert_ne!(changed.one("etag")?, etag);
    }
    Ok(())
}

#[tokio::test]
async fn of_two_who_change_one_version_one_comes_late() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let etag = admin
        .get(&acme.path())
        .await?
        .expect(200)?
        .one("etag")?
        .to_owned();
    let change = |n: i32| {
        let call = admin.patch(&acme.path(), &json!({"displayName": format!("By {n}")}));
        call.set("if-match", &etag).into_future()
    };
    let mut changed = 0;
    for reply in join_all((0..6).map(change)).await {
        let reply = reply?;
        match reply.status {
            200 => changed += 1,
            _ => drop(reply.refused(412, "PRECONDITION_FAILED")?),
        }
    }
    assert_eq!(changed, 1);
    Ok(())
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_accept_it() -> Result<()> {
    let admin = stack().await.platform_admin().await?;
    let path = "/v1/platform/openapi.json";
    let plain = admin.get(path).await?.expect(200)?;
    ensure!(plain.body.len() > 1024 && plain.header("content-encoding").is_none());
    let packed = admin
        .get(path)
        .set("accept-encoding", "gzip")
        .await?
        .expect(200)?;
    assert_eq!(packed.one("content-encoding")?, "gzip");
    ensure!(
        packed
            .one("vary")?
            .to_lowercase()
            .contains("accept-encoding"),
        "{packed:?}"
    );
    ensure!(packed.body.len() < plain.body.len() / 2, "it is no smaller");
    assert_eq!(&packed.body[..2], b"\x1f\x8b");
    // Its validator is good for the other form as well.
    let etag = packed.one("etag")?.to_owned();
    admin
        .get(path)
        .set("if-none-match", &etag)
        .await?
        .expect(304)?;
    let small = admin
        .get("/health")
        .set("accept-encoding", "gzip")
        .await?
        .expect(200)?;
    ensure!(small.header("content-encoding").is_none(), "{small:?}");
    Ok(())
}
