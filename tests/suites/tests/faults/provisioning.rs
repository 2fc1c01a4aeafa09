//! kill -9 of a handler while it provisions a workspace.

use anyhow::{Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use postern_suites::database::{connect, count};
use serde_json::json;
use sqlx::Connection as _;

use super::SOON;

#[tokio::test]
async fn provisioning_goes_on_where_a_kill_cut_it() -> Result<()> {
    let mut stack = Stack::start().await?;
    let (mut db, mut observer) = (connect(&stack).await?, connect(&stack).await?);
    let tenant = stack.with_tenant("acme").await?;
    let (id, admin) = (tenant.id.clone(), tenant.admin.clone());
    // No role can be made as long as this stands.
    let mut lock = db.begin().await?;
    sqlx::query("LOCK TABLE pg_authid IN SHARE MODE")
        .execute(&mut *lock)
        .await?;
    let body =
        json!({"tenantId": id, "slug": "dev", "displayName": "Dev", "capabilities": ["postgres"]});
    let call = || admin.post("/v1/workspaces", &body).key("provisioned-once");
    let made = call().await?.expect(201)?;
    let path = made.one("location")?.to_owned();
    let workspace = made.text_at("/id")?;
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND query LIKE $1";
    wait_for("the handler to be at work", SOON, async || {
        let at_work = count(&mut observer, waiting, "%create role%").await?;
        ensure!(at_work == 1, "{at_work} wait");
        Ok(())
    })
    .await?;
    stack.services()?.handlers().kill()?;
    lock.rollback().await?;
    stack.services()?.restart_handlers().await?;
    wait_for("the workspace to be active", SOON, async || {
        let reply = admin.get(&path).await?.expect(200)?;
        ensure!(reply.text_at("/status")? == "active", "{reply:?}");
        Ok(())
    })
    .await?;
    let schema = workspace.replace("wks_", "ws_").to_lowercase();
    for (query, text, wanted) in [
        (
            "SELECT count(*) FROM pg_namespace WHERE nspname = $1",
            &schema,
            1,
        ),
        (
            "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)",
            &schema,
            2,
        ),
        (
            "SELECT count(*) FROM postern.outbox WHERE workspace_id = $1",
            &workspace,
            1,
        ),
        (
            "SELECT count(*) FROM postern.audit_event WHERE action = 'workspaces.create' AND tenant_id = $1",
            &id,
            1,
        ),
    ] {
        assert_eq!(count(&mut observer, query, text).await?, wanted, "{query}");
    }
    let again = call().await?.expect(201)?;
    assert_eq!(again.one("x-idempotency-replayed")?, "true");
    assert_eq!(again.body, made.body);
    Ok(())
}
