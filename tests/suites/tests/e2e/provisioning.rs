//! What a workspace gets in PostgreSQL: a schema and roles of its own.

use anyhow::{Result, ensure};
use postern_harness::stack::Tenant;
use postern_harness::wait_for;
use postern_suites::database::{connect, count};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{SOON, inside};

/// `wks_01ABC…` → `ws_01abc…`
fn schema(workspace: &str) -> String {
    workspace.replace("wks_", "ws_").to_lowercase()
}

async fn schemas(db: &mut PgConnection, schema: &str) -> Result<i64> {
    count(
        db,
        "SELECT count(*) FROM pg_namespace WHERE nspname = $1",
        schema,
    )
    .await
}

async fn roles(db: &mut PgConnection, schema: &str) -> Result<i64> {
    let query = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1) AND NOT rolsuper \
                 AND NOT rolbypassrls AND NOT rolcanlogin";
    count(db, query, schema).await
}

/// Waits until nothing is pending any more.
async fn ready(tenant: &Tenant<'_>, path: &str) -> Result<Value> {
    wait_for("the workspace to be provisioned", SOON, async || {
        let reply = tenant.admin.get(path).await?.expect(200)?;
        let workspace = reply.json()?;
        ensure!(workspace["status"] == "active", "{workspace}");
        ensure!(workspace["pendingCapabilities"] == json!([]), "{workspace}");
        Ok(workspace)
    })
    .await
}

#[tokio::test]
async fn a_workspace_gets_its_schema_and_roles() -> Result<()> {
    let stack = inside().await;
    let acme = stack.with_tenant("acme").await?;
    let mut db = connect(stack).await?;
    let dev = acme.with_workspace("dev", &["postgres"]).await?;
    ready(&acme, &dev.path()).await?;
    let name = schema(&dev.id);
    assert_eq!(schemas(&mut db, &name).await?, 1);
    assert_eq!(roles(&mut db, &name).await?, 2);
    // Nobody but its own roles may look into it.
    let open = "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) \
                WHERE nspname = $1 AND grantee = 0";
    assert_eq!(count(&mut db, open, &name).await?, 0);
    // With it came the row, the outbox entry and the record, and the entry is done.
    let left = "SELECT count(*) FROM postern.outbox WHERE workspace_id = $1 AND done_at IS NULL";
    assert_eq!(count(&mut db, left, &dev.id).await?, 0);
    let entries = "SELECT count(*) FROM postern.outbox WHERE workspace_id = $1";
    assert_eq!(count(&mut db, entries, &dev.id).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_capability_may_come_later() -> Result<()> {
    let stack = inside().await;
    let acme = stack.with_tenant("acme").await?;
    let mut db = connect(stack).await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    let name = schema(&dev.id);
    let bare = acme.admin.get(&dev.path()).await?.expect(200)?;
    assert_eq!(bare.text_at("/status")?, "active");
    assert_eq!(schemas(&mut db, &name).await?, 0);
    let rows = format!("/v1/postgres/{}/rows/t", dev.id);
    acme.admin
        .get(&rows)
        .await?
        .refused(403, "CAPABILITY_DISABLED")?;
    let patch = json!({"capabilities": ["postgres"]});
    acme.admin.patch(&dev.path(), &patch).await?.expect(200)?;
    ready(&acme, &dev.path()).await?;
    assert_eq!(schemas(&mut db, &name).await?, 1);
    assert_eq!(roles(&mut db, &name).await?, 2);
    wait_for("the capability to be seen", SOON, async || {
        acme.admin
            .get(&rows)
            .await?
            .refused(503, "FAMILY_UNAVAILABLE")
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn the_data_outlive_the_workspace_until_the_purge() -> Result<()> {
    let stack = inside().await;
    let acme = stack.with_tenant("acme").await?;
    let mut db = connect(stack).await?;
    let dev = acme.with_workspace("dev", &["postgres"]).await?;
    ready(&acme, &dev.path()).await?;
    let name = schema(&dev.id);
    acme.admin.delete(&dev.path()).await?.expect(200)?;
    let due = "SELECT count(*) FROM postern.outbox o JOIN postern.workspace w ON w.id = o.workspace_id \
               WHERE w.id = $1 AND o.step = 'purge' AND o.due_at = w.purge_after AND o.due_at > now()";
    assert_eq!(count(&mut db, due, &dev.id).await?, 1);
    assert_eq!(schemas(&mut db, &name).await?, 1);
    // The date has come.
    sqlx::query(
        "UPDATE postern.outbox SET due_at = now() WHERE workspace_id = $1 AND step = 'purge'",
    )
    .bind(&dev.id)
    .execute(&mut db)
    .await?;
    wait_for("the purge", SOON, async || {
        let left = (schemas(&mut db, &name).await?, roles(&mut db, &name).await?);
        ensure!(left == (0, 0), "schemas and roles left: {left:?}");
        Ok(())
    })
    .await
}
