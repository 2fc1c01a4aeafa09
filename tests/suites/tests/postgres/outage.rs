//! PostgreSQL killed, and the pooler before it, while writers write: what was acknowledged
//! is there once, and a key says what became of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::stack::Workspace;
use postern_harness::wait_for;
use serde_json::json;
use sqlx::PgConnection;

use super::data::{Data, World, away, number, world};
use super::{SOON, notes, rows, workspace};

const WRITERS: usize = 4;
/// What each writes before and after a fall.
const BEFORE: usize = 4;
/// Within this an answer comes, whoever is away: the pool's two seconds on a machine that
/// does other things, too.
const ANSWERED: Duration = Duration::from_secs(15);

/// Who writes into a table without any key, and what was acknowledged.
struct Load {
    writers: Vec<Client>,
    path: String,
    stop: AtomicBool,
}

impl Load {
    /// Each writes row by row, each with a key of its own and until it is acknowledged,
    /// and gives the number of its rows.
    async fn run(&self) -> Result<Vec<usize>> {
        let writing = self
            .writers
            .iter()
            .enumerate()
            .map(async |(writer, client)| {
                let mut row = 0;
                loop {
                    if self.stop.load(Ordering::SeqCst) && row >= 2 * BEFORE {
                        return Ok(row);
                    }
                    self.write(client, writer, row).await?;
                    row += 1;
                }
            });
        futures::future::try_join_all(writing).await
    }

    async fn write(&self, client: &Client, writer: usize, row: usize) -> Result<()> {
        let text = format!("{writer}-{row}");
        wait_for("a write to be acknowledged", SOON, async || {
            let began = Instant::now();
            let reply = client
                .post(&self.path, &json!({"text": text}))
                .key(&text)
                .await?;
            ensure!(began.elapsed() < ANSWERED, "after {:?}", began.elapsed());
            // Who is refused is told in the envelope why, and when to come back.
            if reply.status != 201 {
                reply.one("retry-after")?;
                reply.text_at("/error/code")?;
                ensure!(matches!(reply.status, 409 | 429 | 502 | 503 | 504));
            }
            ensure!(reply.status == 201, "{reply:?}");
            Ok(())
        })
        .await
    }

    /// Waits until so many rows are there.
    async fn has_written(&self, db: &mut PgConnection, dev: &Workspace, least: i64) -> Result<()> {
        wait_for("the writers to write", SOON, async || {
            let there = number(db, dev, "SELECT count(*) FROM $schema.notes").await?;
            ensure!(there >= least, "{there} rows of {least}");
            Ok(())
        })
        .await
    }

    /// Every row once, and every key replays.
    async fn verify(&self, data: &Data, dev: &Workspace, written: &[usize]) -> Result<()> {
        let mut db = data.connect().await?;
        let all = number(&mut db, dev, "SELECT count(*) FROM $schema.notes").await?;
        let different = "SELECT count(DISTINCT text) FROM $schema.notes";
        let different = number(&mut db, dev, different).await?;
        let acknowledged = i64::try_from(written.iter().sum::<usize>())?;
        assert_eq!((all, different), (acknowledged, acknowledged));
        for (writer, client) in self.writers.iter().enumerate() {
            let text = format!("{writer}-{}", BEFORE - 1);
            // The writer's own rate may be used up by what was refused meanwhile.
            let again = wait_for("the key to be answered", SOON, async || {
                let again = client.post(&self.path, &json!({"text": text})).key(&text);
                let again = again.await?;
                ensure!(again.status != 429, "{again:?}");
                Ok(again)
            });
            let again = again.await?.expect(201)?;
            assert_eq!(again.one("x-idempotency-replayed")?, "true");
        }
        let now = number(&mut db, dev, "SELECT count(*) FROM $schema.notes").await?;
        assert_eq!(now, all);
        Ok(())
    }
}

/// A workspace with a table, who writes into it, and who looks: each with a rate of their own.
async fn prepared(world: &World) -> Result<(Load, Client, Workspace)> {
    let acme = world.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    notes(&acme, &dev).await?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(acme.member("tenant_admin").await?);
    }
    let load = Load {
        writers,
        path: rows(&dev, "notes"),
        stop: AtomicBool::new(false),
    };
    let reader = acme.member("tenant_admin").await?;
    Ok((load, reader, dev))
}

#[tokio::test]
async fn postgresql_killed_under_load() -> Result<()> {
    let mut world = world(false, json!({})).await?;
    let (load, reader, dev) = prepared(&world).await?;
    let falls = async {
        let mut db = world.data.connect().await?;
        load.has_written(&mut db, &dev, 8).await?;
        drop(db);
        world.data.cluster.kill().await?;
        // While it is away everybody is told so, soon.
        for n in 0..3 {
            let began = Instant::now();
            let read = reader.get(&load.path).await?;
            away(&read)?;
            let write = reader
                .post(&load.path, &json!({"text": "never"}))
                .key(&format!("never-{n}"));
            away(&write.await?)?;
            ensure!(began.elapsed() < ANSWERED, "{:?}", began.elapsed());
        }
        world.data.cluster.start_again().await?;
        wait_for("rows to be served again", SOON, async || {
            reader.get(&load.path).await?.expect(200).map(drop)
        })
        .await?;
        load.stop.store(true, Ordering::SeqCst);
        Ok(())
    };
    let (written, ()) = tokio::try_join!(load.run(), falls)?;
    load.verify(&world.data, &dev, &written).await
}

#[tokio::test]
async fn the_pooler_killed_under_load() -> Result<()> {
    let mut world = world(true, json!({})).await?;
    let (load, _, dev) = prepared(&world).await?;
    let falls = async {
        let mut db = world.data.connect().await?;
        for fall in 1..=3 {
            load.has_written(&mut db, &dev, fall * 8).await?;
            let pooler = world.data.pooler.as_mut().context("a pooler")?;
            pooler.restart().await?;
        }
        // And what is behind it.
        drop(db);
        world.data.cluster.restart().await?;
        let mut db = world.data.connect().await?;
        load.has_written(&mut db, &dev, 40).await?;
        load.stop.store(true, Ordering::SeqCst);
        Ok(())
    };
    let (written, ()) = tokio::try_join!(load.run(), falls)?;
    load.verify(&world.data, &dev, &written).await
}
