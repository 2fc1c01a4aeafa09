//! Writers in each other's way: PostgreSQL ends one, which is run again, within a bound.

use anyhow::{Result, ensure};
use http::Method;
use postern_harness::http::Reply;
use postern_harness::stack::{Tenant, Workspace};
use postern_harness::wait_for;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;

use super::data::{World, number, run, world};
use super::{SOON, rows, tables, workspace};

/// A workspace with two rows, whose writers' transactions are as `isolation` says.
async fn prepared<'a>(world: &'a World, isolation: &str) -> Result<(Tenant<'a>, Workspace)> {
    let mut db = world.data.connect().await?;
    // Before any connection of theirs is made. Of two in a deadlock who looks first is ended.
    let login = format!(
        "ALTER ROLE postern_data SET default_transaction_isolation = '{isolation}';
         ALTER ROLE postern_data SET deadlock_timeout = '2s'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(login))
        .execute(&mut db)
        .await?;
    let acme = world.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let table = json!({"name": "seats", "columns": [
        {"name": "id", "type": "bigint", "primaryKey": true}, {"name": "owner", "type": "text"}]});
    acme.admin.post(&tables(&dev), &table).await?.expect(201)?;
    let two = json!([{"id": 1, "owner": null}, {"id": 2, "owner": null}]);
    acme.admin
        .post(&rows(&dev, "seats"), &two)
        .await?
        .expect(201)?;
    Ok((acme, dev))
}

/// Changes both rows, in the order of their keys, in a task.
fn change(acme: &Tenant<'_>, dev: &Workspace) -> JoinHandle<Result<Reply>> {
    let path = format!("{}?id=in.(1,2)", rows(dev, "seats"));
    let call = acme.admin.call(Method::PATCH, &path);
    tokio::spawn(call.json(&json!({"owner": "api"})).into_future())
}

async fn waits(db: &mut PgConnection, dev: &Workspace) -> Result<()> {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    wait_for("the request to wait for the row", SOON, async || {
        ensure!(number(db, dev, waiting).await? > 0, "it does not");
        Ok(())
    })
    .await
}

async fn both_changed(db: &mut PgConnection, dev: &Workspace) -> Result<()> {
    let changed = "SELECT count(*) FROM $schema.seats WHERE owner = 'api'";
    assert_eq!(number(db, dev, changed).await?, 2);
    Ok(())
}

#[tokio::test]
async fn a_lost_serialization_is_run_again() -> Result<()> {
    let world = world(false, json!({})).await?;
    let (acme, dev) = prepared(&world, "serializable").await?;
    let (mut db, mut looking) = (world.data.connect().await?, world.data.connect().await?);
    let mut mine = db.begin().await?;
    run(&mut mine, &dev, "UPDATE seats SET owner = 'test'").await?;
    let theirs = change(&acme, &dev);
    waits(&mut looking, &dev).await?;
    mine.commit().await?;
    theirs.await??.expect(200)?;
    both_changed(&mut looking, &dev).await?;
    assert!(
        world
            .data
            .log()?
            .contains("could not serialize access due to concurrent update")
    );
    Ok(())
}

#[tokio::test]
async fn a_deadlock_is_run_again_and_a_race_that_is_always_lost_is_told() -> Result<()> {
    let world = world(false, json!({"statementMs": 60_000})).await?;
    let (acme, dev) = prepared(&world, "read committed").await?;
    let (mut db, mut looking) = (world.data.connect().await?, world.data.connect().await?);
    run(&mut db, &dev, "SET deadlock_timeout = '1h'").await?;
    let mut mine = db.begin().await?;
    run(
        &mut mine,
        &dev,
        "UPDATE seats SET owner = 'test' WHERE id = 2",
    )
    .await?;
    let theirs = change(&acme, &dev);
    waits(&mut looking, &dev).await?;
    // They have the first row and wait for the second; this waits for the first.
    run(
        &mut mine,
        &dev,
        "UPDATE seats SET owner = 'test' WHERE id = 1",
    )
    .await?;
    mine.commit().await?;
    theirs.await??.expect(200)?;
    both_changed(&mut looking, &dev).await?;
    assert!(world.data.log()?.contains("deadlock detected"));

    // One that is lost however often it is run is told, and not kept.
    let losing = format!(
        "CREATE SEQUENCE tries; GRANT ALL ON SEQUENCE tries TO PUBLIC;
         CREATE FUNCTION race() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('tries');
             RAISE EXCEPTION 'lost' USING ERRCODE = 'serialization_failure'; END $$;
         GRANT EXECUTE ON FUNCTION race() TO {}_data",
        super::data::schema(&dev)
    );
    run(&mut db, &dev, &losing).await?;
    let path = format!("/v1/postgres/{}/rpc/race", dev.id);
    let call = || acme.admin.post(&path, &json!({})).key("always-lost");
    let told = wait_for("the function to be seen", SOON, async || {
        let reply = call().await?;
        ensure!(reply.status != 404, "{reply:?}");
        Ok(reply)
    })
    .await?;
    told.refused(409, "SERIALIZATION_FAILURE")?;
    told.one("retry-after")?;
    let tries = number(&mut db, &dev, "SELECT last_value FROM $schema.tries").await?;
    assert!((2..1_000).contains(&tries), "{tries} tries");
    let won = "CREATE OR REPLACE FUNCTION race() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    run(&mut db, &dev, won).await?;
    let made = call().await?.expect(200)?;
    assert!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    Ok(())
}
