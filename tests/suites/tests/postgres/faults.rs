//! One effect a key, whoever is killed whenever.

use anyhow::{Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{SOON, notes, rows, workspace};

/// Kills the handlers while an insert stands at a point, and repeats it until it is
/// answered: then there is one row.
async fn killed_at(point: &'static str) -> Result<()> {
    let mut stack = Stack::start_with(|plan| plan.postgres = true).await?;
    let (admin, path, schema) = {
        let acme = stack.with_tenant("acme").await?;
        let dev = workspace(&acme).await?;
        notes(&acme, &dev).await?;
        let schema = dev.id.replace("wks_", "ws_").to_lowercase();
        (acme.admin.clone(), rows(&dev, "notes"), schema)
    };
    let armed = stack.faults()?.join(point);
    let reached = stack.faults()?.join(format!("{point}.reached"));
    std::fs::write(&armed, "")?;
    let key = format!("killed-{point}");
    let post = || admin.post(&path, &json!({"text": "once"})).key(&key);
    let lost = tokio::spawn(std::future::IntoFuture::into_future(post()));
    wait_for("the insert to come to the point", SOON, async || {
        ensure!(reached.exists(), "it is not there");
        Ok(())
    })
    .await?;
    stack.services()?.restart_handlers().await?;
    // A file that is left would hold whoever comes next.
    let _ = std::fs::remove_file(&reached);
    let _ = lost.await?;
    wait_for("the repeated insert", SOON, async || {
        let reply = post().await?;
        ensure!(reply.status == 201, "{reply:?}");
        Ok(())
    })
    .await?;
    let mut db = postern_suites::database::connect(&stack).await?;
    let count = format!("SELECT count(*) FROM {schema}.notes");
    let effects: i64 = sqlx::query_scalar(AssertSqlSafe(count))
        .fetch_one(&mut db)
        .await?;
    assert_eq!(effects, 1, "{point}");
    Ok(())
}

#[tokio::test]
async fn before_the_record() -> Result<()> {
    killed_at("before-record").await
}

#[tokio::test]
async fn before_the_commit() -> Result<()> {
    killed_at("before-commit").await
}

#[tokio::test]
async fn after_the_commit() -> Result<()> {
    killed_at("after-commit").await
}
