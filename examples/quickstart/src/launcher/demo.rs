//! The demo: a tenant, its admin, a workspace, made through the API itself.
//!
//! It looks first and makes only what is missing, so a second run finds what
//! the first one made and whatever has been changed since.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::wait_for;
use serde_json::{Value, json};

const TENANT_SLUG: &str = "acme";
const WORKSPACE_SLUG: &str = "demo";
/// It takes a fraction of a second; more only on a machine that is busy.
const PROVISIONED_IN: Duration = Duration::from_secs(60);

/// The tenant's id.
pub(super) async fn tenant(platform: &Client) -> Result<String> {
    if let Some(id) = find(platform, "/v1/tenants?limit=100", TENANT_SLUG).await? {
        return Ok(id);
    }
    let body = json!({
        "slug": TENANT_SLUG,
        "displayName": "Acme Corporation",
        "plan": "growth",
        "adminEmail": "admin@acme.example.com",
    });
    platform
        .post("/v1/tenants", &body)
        .await?
        .expect(201)?
        .text_at("/id")
}

/// The workspace's id. One of an earlier run, which may have served less, gets what it lacks.
pub(super) async fn workspace(
    admin: &Client,
    tenant_id: &str,
    families: &[&str],
) -> Result<String> {
    let Some(id) = find(admin, "/v1/workspaces?limit=100", WORKSPACE_SLUG).await? else {
        let body = json!({
            "tenantId": tenant_id,
            "slug": WORKSPACE_SLUG,
            "displayName": "Demo",
            "capabilities": families,
        });
        let made = admin.post("/v1/workspaces", &body).await?.expect(201)?;
        return made.text_at("/id");
    };
    let path = format!("/v1/workspaces/{id}");
    let found = admin.get(&path).await?.expect(200)?.json()?;
    let has = found.get("capabilities").and_then(Value::as_array);
    let mut capabilities = has.context("a workspace without capabilities")?.clone();
    let lacks: Vec<Value> = families.iter().map(|family| json!(family)).collect();
    let lacks = lacks.into_iter().filter(|one| !capabilities.contains(one));
    let lacks: Vec<Value> = lacks.collect();
    if !lacks.is_empty() {
        capabilities.extend(lacks);
        let wanted = json!({ "capabilities": capabilities });
        admin.patch(&path, &wanted).await?.expect(200)?;
    }
    Ok(id)
}

/// Returns when what the workspace's data stand in is made, so that the first line
/// somebody pastes finds it.
pub(super) async fn provisioned(
    admin: &Client,
    workspace_id: &str,
    families: &[&str],
) -> Result<()> {
    for family in families {
        let list = match *family {
            "mongo" => format!("/v1/mongo/{workspace_id}/collections"),
            _ => format!("/v1/postgres/{workspace_id}/tables"),
        };
        wait_for(
            "the workspace to be provisioned",
            PROVISIONED_IN,
            async || {
                let reply = admin.get(&list).await?;
                // What is new is refused until it is made. Whatever else somebody did to it
                // in an earlier run is theirs.
                let pending = reply.refused(403, "CAPABILITY_DISABLED").is_ok();
                ensure!(reply.status != 409 && !pending, "{reply:?}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// The id of the resource with this slug that is not deactivated, over all pages.
async fn find(client: &Client, list: &str, slug: &str) -> Result<Option<String>> {
    let mut path = list.to_owned();
    loop {
        let page = client.get(&path).await?.expect(200)?.json()?;
        let rows = page.get("data").and_then(Value::as_array);
        let row = rows.context("a list without data")?.iter().find(|row| {
            row.get("slug") == Some(&json!(slug))
                && row.get("status") != Some(&json!("deactivated"))
        });
        if let Some(id) = row.and_then(|row| row.get("id")).and_then(Value::as_str) {
            return Ok(Some(id.to_owned()));
        }
        match page
            .pointer("/pagination/nextCursor")
            .and_then(Value::as_str)
        {
            Some(cursor) => path = format!("{list}&cursor={cursor}"),
            None => return Ok(None),
        }
    }
}
