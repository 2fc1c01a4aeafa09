//! One tenant never meets another: what is somebody else's answers exactly as
//! what does not exist.

use anyhow::{Result, ensure};
use postern_contract::{TenantId, WorkspaceId};
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::token::Token;
use serde_json::{Value, json};

use super::stack;

/// An answer without what differs between any two: id, correlation id, time.
fn shape(reply: &Reply, id: &str) -> Result<String> {
    let mut body = reply.json()?;
    for name in ["correlationId", "timestamp"] {
        body["error"][name] = Value::Null;
    }
    let mut names: Vec<&str> = reply.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    Ok(format!("{} {names:?} {body}", reply.status).replace(id, "<id>"))
}

async fn refused_alike(client: &Client, paths: &[(String, &str)], code: &str) -> Result<()> {
    let mut shapes = Vec::new();
    for (path, id) in paths {
        for reply in [
            client.get(path).await?,
            client.patch(path, &json!({"displayName": "Mine"})).await?,
        ] {
            reply.refused(404, code)?;
            shapes.push(shape(&reply, id)?);
        }
    }
    for pair in shapes.chunks(2).collect::<Vec<_>>().windows(2) {
        assert_eq!(pair[0], pair[1]);
    }
    Ok(())
}

#[tokio::test]
async fn another_tenant_is_no_tenant() -> Result<()> {
    let stack = stack().await;
    let (acme, other) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("other").await?,
    );
    let none = TenantId::new().to_string();
    let paths = [
        (other.path(), other.id.as_str()),
        (format!("/v1/tenants/{none}"), none.as_str()),
    ];
    refused_alike(&acme.admin, &paths, "TENANT_NOT_FOUND").await?;
    for (path, _) in &paths {
        for below in ["usage", "audit"] {
            let reply = acme.admin.get(&format!("{path}/{below}")).await?;
            reply.refused(404, "TENANT_NOT_FOUND")?;
        }
    }
    for id in [&other.id, &none] {
        let reply = acme
            .admin
            .get(&format!("/v1/workspaces?tenantId={id}"))
            .await?;
        reply.refused(404, "TENANT_NOT_FOUND")?;
        let body =
            json!({"tenantId": id, "slug": "mine", "displayName": "Mine", "capabilities": []});
        let reply = acme.admin.post("/v1/workspaces", &body).await?;
        reply.refused(404, "TENANT_NOT_FOUND")?;
    }
    // What is no id is none either.
    let admin = stack.platform_admin().await?;
    for path in [
        "/v1/tenants/acme",
        "/v1/tenants/tnt_",
        "/v1/tenants/%20",
        &format!("/v1/tenants/{none}"),
    ] {
        admin.get(path).await?.refused(404, "TENANT_NOT_FOUND")?;
    }
    let untouched = other.admin.get(&other.path()).await?.expect(200)?.json()?;
    assert_eq!(untouched, other.made);
    Ok(())
}

#[tokio::test]
async fn another_tenants_workspace_is_no_workspace() -> Result<()> {
    let stack = stack().await;
    let (acme, other) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("other").await?,
    );
    let theirs = other.with_workspace("theirs", &["postgres"]).await?;
    let none = WorkspaceId::new().to_string();
    let paths = [
        (theirs.path(), theirs.id.as_str()),
        (format!("/v1/workspaces/{none}"), none.as_str()),
    ];
    refused_alike(&acme.admin, &paths, "WORKSPACE_NOT_FOUND").await?;
    for id in [&theirs.id, &none, "wks_x"] {
        let reply = acme.admin.get(&format!("/v1/postgres/{id}/rows/t")).await?;
        reply.refused(404, "WORKSPACE_NOT_FOUND")?;
        let reply = acme.admin.delete(&format!("/v1/workspaces/{id}")).await?;
        reply.refused(404, "WORKSPACE_NOT_FOUND")?;
    }
    other.admin.get(&theirs.path()).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_pinned_token_reaches_its_workspace_only() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let own = acme.with_workspace("own", &[]).await?;
    let next = acme.with_workspace("next", &[]).await?;
    for role in ["workspace_admin", "tenant_admin"] {
        let token = Token::of_tenant(&acme.id, role).pinned_to(&own.id);
        let pinned = stack.client(&token).await?;
        pinned.get(&own.path()).await?.expect(200)?;
        pinned
            .patch(&own.path(), &json!({"displayName": role}))
            .await?
            .expect(200)?;
        pinned
            .get(&next.path())
            .await?
            .refused(404, "WORKSPACE_NOT_FOUND")?;
        let reply = pinned
            .patch(&next.path(), &json!({"displayName": "x"}))
            .await?;
        reply.refused(404, "WORKSPACE_NOT_FOUND")?;
        let listed = pinned
            .get("/v1/workspaces")
            .await?
            .expect(200)?
            .at("/data")?;
        let ids: Vec<&str> = listed
            .as_array()
            .map(|list| list.iter().filter_map(|one| one["id"].as_str()).collect())
            .unwrap_or_default();
        assert_eq!(ids, [own.id.as_str()], "{role}");
    }
    // A role of a workspace on a token that names none reaches nothing.
    let loose = acme.member("workspace_admin").await?;
    loose
        .get("/v1/workspaces")
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}

#[tokio::test]
async fn lists_show_ones_own() -> Result<()> {
    let stack = stack().await;
    let (acme, other) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("other").await?,
    );
    let mine = acme.with_workspace("mine", &[]).await?;
    let theirs = other.with_workspace("theirs", &[]).await?;
    for client in [&acme.admin, &acme.member("tenant_operator").await?] {
        let tenants = client.get("/v1/tenants").await?.expect(200)?;
        assert_eq!(tenants.at("/data")?, json!([acme.made]));
        let workspaces = client.get("/v1/workspaces").await?.expect(200)?;
        let text = String::from_utf8_lossy(&workspaces.body).into_owned();
        ensure!(
            text.contains(&mine.id) && !text.contains(&theirs.id),
            "{text}"
        );
    }
    // A platform token names the tenant.
    let admin = stack.platform_admin().await?;
    let path = format!("/v1/workspaces?tenantId={}", other.id);
    let listed = admin.get(&path).await?.expect(200)?;
    assert_eq!(listed.at("/data")?.as_array().map(Vec::len), Some(1));
    assert_eq!(listed.text_at("/data/0/id")?, theirs.id);
    Ok(())
}

#[tokio::test]
async fn a_clients_own_context_and_identity_headers_mean_nothing() -> Result<()> {
    let stack = stack().await;
    let (acme, other) = (
        stack.with_tenant("acme").await?,
        stack.with_tenant("other").await?,
    );
    let names = [
        "Subject",
        "Tenant-Id",
        "Workspace-Id",
        "Plan-Id",
        "Roles",
        "Scopes",
    ];
    let mut headers: Vec<(String, String)> = Vec::new();
    for name in names {
        let value = match name {
            "Tenant-Id" => other.id.clone(),
            "Roles" => "superadmin".to_owned(),
            "Scopes" => "tenants:read tenants:write".to_owned(),
            _ => "forged".to_owned(),
        };
        for spelling in [
            format!("X-Auth-{name}"),
            format!("x-auth-{name}").to_lowercase(),
            format!("X_Auth_{name}").replace('-', "_"),
            format!("X-Auth_{name}"),
        ] {
            headers.push((spelling, value.clone()));
        }
    }
    for name in [
        "x-postern-context",
        "X_Postern_Context",
        "X-Postern_Context",
    ] {
        headers.push((name.to_owned(), "v2.k1.forged".to_owned()));
        headers.push((name.to_owned(), other.id.clone()));
    }
    let forging = |path: &str| {
        headers
            .iter()
            .fold(acme.admin.get(path), |call, (name, value)| {
                call.add(name, value.as_bytes())
            })
    };
    let own = forging("/v1/tenants").await?.expect(200)?;
    assert_eq!(own.at("/data")?, json!([acme.made]));
    forging(&other.path())
        .await?
        .refused(404, "TENANT_NOT_FOUND")?;
    forging("/v1/platform/audit")
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}
