//! `/v1/workspaces`.

use anyhow::{Result, ensure};
use futures::future::join_all;
use postern_harness::api::is_timestamp;
use postern_harness::token::Token;
use postern_harness::wait_for;
use serde_json::json;

use super::{SOON, stack};

#[tokio::test]
async fn a_workspace_is_made_read_changed_and_ended() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let body = json!({
        "tenantId": acme.id, "slug": "dev-environment", "displayName": "Development Environment",
        "capabilities": ["postgres", "mongo", "kafka", "storage"],
    });
    let made = acme
        .admin
        .post("/v1/workspaces", &body)
        .await?
        .expect(201)?;
    let workspace = made.json()?;
    let id = made.text_at("/id")?;
    ensure!(id.len() == 30 && id.starts_with("wks_"), "{id}");
    for name in ["tenantId", "slug", "displayName"] {
        assert_eq!(workspace[name], body[name], "{name}");
    }
    let mut capabilities = workspace["capabilities"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    capabilities.sort_by_key(ToString::to_string);
    assert_eq!(
        json!(capabilities),
        json!(["kafka", "mongo", "postgres", "storage"])
    );
    for name in ["createdAt", "updatedAt"] {
        ensure!(
            workspace[name].as_str().is_some_and(is_timestamp),
            "{workspace}"
        );
    }
    let path = format!("/v1/workspaces/{id}");
    assert_eq!(made.one("location")?, path);
    let active = wait_for("the workspace to be active", SOON, async || {
        let read = acme.admin.get(&path).await?.expect(200)?;
        ensure!(read.text_at("/status")? == "active", "{read:?}");
        Ok(read)
    })
    .await?;
    let patch = json!({"displayName": "Dev", "status": "suspended"});
    let changed = acme.admin.patch(&path, &patch).await?.expect(200)?;
    assert_eq!(changed.text_at("/displayName")?, "Dev");
    assert_eq!(changed.text_at("/status")?, "suspended");
    assert_ne!(changed.one("etag")?, active.one("etag")?);
    assert_eq!(acme.admin.get(&path).await?.json()?, changed.json()?);

    let ended = acme.admin.delete(&path).await?.expect(200)?;
    assert_eq!(ended.text_at("/status")?, "deactivated");
    ensure!(
        ended.text_at("/purgeAfter")? > ended.text_at("/updatedAt")?,
        "{ended:?}"
    );
    assert_eq!(
        acme.admin.get(&path).await?.expect(200)?.json()?,
        ended.json()?
    );
    let late = acme
        .admin
        .patch(&path, &json!({"displayName": "Late"}))
        .await?;
    late.refused(422, "INVALID_STATUS_TRANSITION")?;
    Ok(())
}

#[tokio::test]
async fn a_slug_is_unique_in_its_tenant() -> Result<()> {
    let stack = stack().await;
    let body = |tenant: &str| json!({"tenantId": tenant, "slug": "dev", "displayName": "Dev", "capabilities": []});
    for name in ["acme", "other"] {
        let tenant = stack.with_tenant(name).await?;
        tenant
            .admin
            .post("/v1/workspaces", &body(&tenant.id))
            .await?
            .expect(201)?;
        let again = tenant
            .admin
            .post("/v1/workspaces", &body(&tenant.id))
            .await?;
        again.refused(409, "WORKSPACE_SLUG_TAKEN")?;
    }
    Ok(())
}

#[tokio::test]
async fn the_platform_names_the_tenant() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let admin = stack.platform_admin().await?;
    let mut body =
        json!({"tenantId": acme.id, "slug": "dev", "displayName": "Dev", "capabilities": []});
    let made = admin.post("/v1/workspaces", &body).await?.expect(201)?;
    assert_eq!(made.text_at("/tenantId")?, acme.id);
    acme.admin.get(made.one("location")?).await?.expect(200)?;
    body["tenantId"] = json!("tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    admin
        .post("/v1/workspaces", &body)
        .await?
        .refused(404, "TENANT_NOT_FOUND")?;
    let nobodys = json!({"slug": "dev", "displayName": "Dev", "capabilities": []});
    let error = admin
        .post("/v1/workspaces", &nobodys)
        .await?
        .refused(400, "VALIDATION_ERROR")?;
    assert_eq!(super::named_fields(&error), ["tenantId"]);
    Ok(())
}

#[tokio::test]
async fn a_plan_has_so_many_workspaces() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant_of("starter", "acme").await?;
    let make = |n: usize| {
        let body = json!({"tenantId": acme.id, "slug": format!("race-{n}"), "displayName": "R", "capabilities": []});
        acme.admin.post("/v1/workspaces", &body)
    };
    let mut made = Vec::new();
    for reply in join_all((0..8).map(|n| make(n).into_future())).await {
        let reply = reply?;
        if reply.status == 201 {
            made.push(reply.one("location")?.to_owned());
        } else {
            let error = reply.refused(403, "QUOTA_EXCEEDED")?;
            ensure!(error["message"].to_string().contains("starter"), "{error}");
        }
    }
    assert_eq!(made.len(), 3);
    make(8).await?.refused(403, "QUOTA_EXCEEDED")?;
    acme.admin.delete(&made[0]).await?.expect(200)?;
    make(9).await?.expect(201)?;
    make(10).await?.refused(403, "QUOTA_EXCEEDED")?;
    Ok(())
}

#[tokio::test]
async fn its_own_admin_changes_a_workspace_and_makes_none() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    let token = Token::of_tenant(&acme.id, "workspace_admin").pinned_to(&dev.id);
    let own = stack.client(&token).await?;
    let changed = own
        .patch(&dev.path(), &json!({"displayName": "Mine"}))
        .await?
        .expect(200)?;
    assert_eq!(changed.text_at("/displayName")?, "Mine");
    let body = json!({"tenantId": acme.id, "slug": "next", "displayName": "N", "capabilities": []});
    own.post("/v1/workspaces", &body)
        .await?
        .refused(403, "ROLE_DENIED")?;
    own.delete(&dev.path()).await?.refused(403, "ROLE_DENIED")?;
    // Nor by the other way to the same end.
    let suspended = json!({"status": "suspended"});
    own.patch(&dev.path(), &suspended).await?.expect(200)?;
    own.patch(&dev.path(), &json!({"status": "deactivated"}))
        .await?
        .refused(403, "PERMISSION_DENIED")?;
    let operator = Token::of_tenant(&acme.id, "workspace_operator").pinned_to(&dev.id);
    let operator = stack.client(&operator).await?;
    operator.get(&dev.path()).await?.expect(200)?;
    let reply = operator
        .patch(&dev.path(), &json!({"displayName": "Mine"}))
        .await?;
    reply.refused(403, "ROLE_DENIED")?;
    Ok(())
}
