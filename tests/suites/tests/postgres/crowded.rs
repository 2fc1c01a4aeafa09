//! More asked for than the pool has: who is told to come back, and who is served all the same.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::stack::{Tenant, Workspace};
use postern_harness::wait_for;
use serde_json::json;
use sqlx::PgConnection;
use tokio::task::JoinHandle;

use super::data::{World, away, number, run, world};
use super::{SOON, notes, rows, workspace};

/// A view that shows nothing while the test holds a lock.
const GATED: &str = "CREATE VIEW gated WITH (security_invoker = true) AS
    SELECT n.text, pg_advisory_xact_lock_shared(4711)::text AS passed FROM notes n;
    GRANT SELECT ON gated TO PUBLIC";
const SHUT: &str = "SELECT pg_advisory_lock(4711)::text";
const OPEN: &str = "SELECT pg_advisory_unlock_all()::text";
const STANDING: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

/// A workspace with a row behind the gate.
async fn gated(world: &World, tenant: &Tenant<'_>) -> Result<Workspace> {
    let dev = workspace(tenant).await?;
    notes(tenant, &dev).await?;
    let row = tenant
        .admin
        .post(&rows(&dev, "notes"), &json!({"text": "x"}));
    row.await?.expect(201)?;
    let mut db = world.data.connect().await?;
    run(&mut db, &dev, GATED).await?;
    wait_for("the view to be seen", SOON, async || {
        let path = format!("{}?text=eq.nothing", rows(&dev, "gated"));
        tenant.admin.get(&path).await?.expect(200).map(drop)
    })
    .await?;
    Ok(dev)
}

fn ask(client: &Client, dev: &Workspace) -> JoinHandle<Result<Reply>> {
    let call = client.get(&format!("{}?count=none", rows(dev, "gated")));
    tokio::spawn(call.into_future())
}

async fn standing(db: &mut PgConnection, dev: &Workspace, so_many: i64) -> Result<()> {
    wait_for("statements to stand at the gate", SOON, async || {
        let there = number(db, dev, STANDING).await?;
        ensure!(there == so_many, "{there} stand there");
        Ok(())
    })
    .await
}

/// One tenant's share is in use and its queue full: it is refused at once, and the
/// neighbour is served. Then the whole pool is in use.
#[tokio::test]
async fn a_share_and_then_the_pool_are_in_use() -> Result<()> {
    let bounds = json!({"maxConnections": 5, "tenantConnections": 4, "tenantWaiting": 2,
        "acquireMs": 3_000, "statementMs": 60_000});
    let world = world(false, bounds).await?;
    let (noisy, quiet, third) = (
        world.stack.with_tenant("noisy").await?,
        world.stack.with_tenant("quiet").await?,
        world.stack.with_tenant("third").await?,
    );
    let (loud, still) = (gated(&world, &noisy).await?, gated(&world, &quiet).await?);
    let other = gated(&world, &third).await?;
    let mut db = world.data.connect().await?;
    sqlx::query(SHUT).execute(&mut db).await?;
    let mut held: Vec<_> = (0..4).map(|_| ask(&noisy.admin, &loud)).collect();
    standing(&mut db, &loud, 4).await?;
    // Of five more two wait for three seconds in vain, and three are refused at once.
    let mut more: Vec<_> = (0..5).map(|_| ask(&noisy.admin, &loud)).collect();
    for _ in 0..3 {
        let (refused, _, rest) = futures::future::select_all(more).await;
        away(&refused??)?;
        more = rest;
    }
    for _ in 0..10 {
        quiet.admin.get(&rows(&still, "notes")).await?.expect(200)?;
        let write = quiet
            .admin
            .post(&rows(&still, "notes"), &json!({"text": "y"}));
        write.await?.expect(201)?;
    }
    for waited in more {
        away(&waited.await??)?;
    }
    // The last connection: now there is none for anybody.
    held.push(ask(&quiet.admin, &still));
    standing(&mut db, &still, 5).await?;
    let began = Instant::now();
    away(&third.admin.get(&rows(&other, "notes")).await?)?;
    let write = third
        .admin
        .post(&rows(&other, "notes"), &json!({"text": "y"}));
    away(&write.key("once").await?)?;
    ensure!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    sqlx::query(OPEN).execute(&mut db).await?;
    for passed in held {
        passed.await??.expect(200)?;
    }
    let write = third
        .admin
        .post(&rows(&other, "notes"), &json!({"text": "y"}));
    let made = write.key("once").await?.expect(201)?;
    assert!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    Ok(())
}
