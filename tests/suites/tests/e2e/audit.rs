//! The audit trail: every change and every denial, for those whom it concerns.

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::{Client, is_timestamp};
use postern_harness::token::{Token, unique};
use postern_harness::wait_for;
use serde_json::{Value, json};

use super::{SOON, stack};

async fn events(client: &Client, path: &str) -> Result<Vec<Value>> {
    let list = client.get(path).await?.expect(200)?.at("/data")?;
    list.as_array().cloned().context("a list has data")
}

fn actions(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["action"].as_str())
        .collect()
}

#[tokio::test]
async fn every_change_is_written_once() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let token = Token::platform("platform_admin");
    let admin = stack.client(&token).await?;
    let trail = format!("{}/audit", acme.path());
    let (key, correlation_id) = (unique(), format!("trail-{}", unique()));
    for _ in 0..3 {
        // A replay is no second change.
        let call = admin
            .patch(&acme.path(), &json!({"displayName": "Renamed"}))
            .key(&key);
        call.set("x-correlation-id", &correlation_id)
            .await?
            .expect(200)?;
    }
    let dev = acme.with_workspace("dev", &[]).await?;
    acme.admin
        .patch(&dev.path(), &json!({"displayName": "Renamed"}))
        .await?
        .expect(200)?;
    acme.admin.delete(&dev.path()).await?.expect(200)?;
    let all = events(&acme.admin, &trail).await?;
    let newest_first = [
        "workspaces.delete",
        "workspaces.update",
        "workspaces.create",
        "tenants.update",
        "tenants.create",
    ];
    assert_eq!(actions(&all), newest_first, "{all:#?}");
    let update = &all[3];
    assert_eq!(update["actor"], token.subject());
    assert_eq!(update["outcome"], "done");
    assert_eq!(update["tenantId"], json!(acme.id));
    assert_eq!(update["correlationId"], json!(correlation_id));
    assert_eq!(update["changes"]["displayName"], "Renamed");
    ensure!(
        update["timestamp"].as_str().is_some_and(is_timestamp),
        "{update}"
    );
    ensure!(
        update["clientAddress"]
            .as_str()
            .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok()),
        "{update}"
    );
    assert_eq!(all[0]["workspaceId"], json!(dev.id));
    admin.delete(&acme.path()).await?.expect(200)?;
    let all = events(&admin, &trail).await?;
    assert_eq!(actions(&all)[0], "tenants.delete");
    Ok(())
}

#[tokio::test]
async fn every_denial_is_written() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let trail = format!("{}/audit", acme.path());
    let denied =
        async |client: &Client, call: postern_harness::api::Call, code: &str| -> Result<Value> {
            let correlation_id = format!("denied-{}", unique());
            let reply = call.set("x-correlation-id", &correlation_id).await?;
            assert_eq!(reply.text_at("/error/code")?, code, "{reply:?}");
            let event = wait_for("the denial to be written", SOON, async || {
                let all = events(client, &trail).await?;
                let found = all
                    .into_iter()
                    .find(|event| event["correlationId"] == json!(correlation_id));
                found.with_context(|| format!("no event of {correlation_id}"))
            })
            .await?;
            assert_eq!(event["outcome"], "denied", "{event}");
            assert_eq!(event["code"], code, "{event}");
            assert_eq!(event["tenantId"], json!(acme.id), "{event}");
            ensure!(
                event["action"]
                    .as_str()
                    .is_some_and(|action| action.contains('.')),
                "{event}"
            );
            Ok(event)
        };
    let admin = &acme.admin;
    // By the runner: role, scope, another's. By the handler: what depends on the body.
    let operator = acme.member("tenant_operator").await?;
    let body = json!({"tenantId": acme.id, "slug": "dev", "displayName": "D", "capabilities": []});
    denied(admin, operator.post("/v1/workspaces", &body), "ROLE_DENIED").await?;
    let scopeless = Token::of_tenant(&acme.id, "tenant_admin").scopes("tenants:write");
    let scopeless = stack.client(&scopeless).await?;
    denied(admin, scopeless.get(&acme.path()), "SCOPE_DENIED").await?;
    let other = stack.with_tenant("other").await?;
    denied(admin, admin.get(&other.path()), "TENANT_NOT_FOUND").await?;
    let theirs = other.with_workspace("theirs", &[]).await?;
    denied(admin, admin.get(&theirs.path()), "WORKSPACE_NOT_FOUND").await?;
    let named = format!("/v1/workspaces?tenantId={}", other.id);
    denied(admin, admin.get(&named), "TENANT_NOT_FOUND").await?;
    let body = json!({"tenantId": other.id, "slug": "dev", "displayName": "D", "capabilities": []});
    let event = denied(
        admin,
        admin.post("/v1/workspaces", &body),
        "TENANT_NOT_FOUND",
    );
    assert_eq!(event.await?["resource"], json!(other.id));
    denied(
        admin,
        admin.patch(&acme.path(), &json!({"plan": "enterprise"})),
        "ROLE_DENIED",
    )
    .await?;
    let none = events(&other.admin, &format!("{}/audit", other.path())).await?;
    ensure!(
        none.iter().all(|event| event["outcome"] == "done"),
        "{none:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_trail_is_filtered_and_paged() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let token = Token::of_tenant(&acme.id, "tenant_admin");
    let renamer = stack.client(&token).await?;
    for n in 0..3 {
        renamer
            .patch(&acme.path(), &json!({"displayName": format!("N{n}")}))
            .await?
            .expect(200)?;
    }
    let dev = acme.with_workspace("dev", &[]).await?;
    let trail = format!("{}/audit", acme.path());
    let list = async |query: &str| events(&acme.admin, &format!("{trail}?{query}")).await;
    assert_eq!(list("action=tenants.update").await?.len(), 3);
    assert_eq!(list(&format!("actor={}", token.subject())).await?.len(), 3);
    assert_eq!(list("action=tenants.update&actor=nobody").await?.len(), 0);
    let all = list("").await?;
    assert_eq!(all.len(), 5, "{all:#?}");
    // From an instant on, and before it.
    let at = all[1]["timestamp"].as_str().context("it has a time")?;
    let before = list(&format!("to={at}")).await?;
    let after = list(&format!("from={at}")).await?;
    assert_eq!(
        before.len() + after.len(),
        all.len(),
        "{at}: {before:#?} {after:#?}"
    );
    ensure!(
        after
            .iter()
            .any(|event| event["workspaceId"] == json!(dev.id))
    );
    assert_eq!(list("from=2099-01-01T00:00:00Z").await?.len(), 0);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = acme
            .admin
            .get(&format!("{trail}?limit=2{cursor}"))
            .await?
            .expect(200)?;
        seen.extend(reply.at("/data")?.as_array().cloned().unwrap_or_default());
        match reply.at("/pagination/nextCursor")?.as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        ensure!(seen.len() <= all.len(), "the list has no end");
    }
    assert_eq!(seen, all);
    for bad in ["from=yesterday", "to=1", "actor=", "limit=-1", "who=x"] {
        let reply = acme.admin.get(&format!("{trail}?{bad}")).await?;
        reply.refused(400, "VALIDATION_ERROR")?;
    }
    Ok(())
}

#[tokio::test]
async fn the_platform_reads_the_trail_of_all() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let operator = stack.client(&Token::platform("platform_operator")).await?;
    let path = format!("/v1/platform/audit?tenantId={}", acme.id);
    let of_acme = events(&operator, &path).await?;
    assert_eq!(actions(&of_acme), ["tenants.create"]);
    assert_eq!(
        events(&operator, &format!("{}/audit", acme.path())).await?,
        of_acme
    );
    let newest = events(&operator, "/v1/platform/audit?limit=100").await?;
    ensure!(newest.len() > 1, "the platform sees {newest:?}");
    acme.admin
        .get("/v1/platform/audit")
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}
