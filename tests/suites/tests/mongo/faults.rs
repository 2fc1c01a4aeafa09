//! One effect a key, whoever is killed whenever.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use postern_harness::api::Client;
use postern_harness::wait_for;
use serde_json::json;

use super::{SOON, World, documents, start, workspace, world};

/// Where an insert can be held.
const POINTS: [&str; 6] = [
    "before-record",
    "after-record",
    "after-effect",
    "before-commit",
    "after-commit",
    "after-claim",
];

/// Kills the handlers while an insert, the first of its collection, stands at a point, and
/// repeats it until it is answered: then there is one document.
#[tokio::test]
async fn handlers_killed_at_every_point() -> Result<()> {
    let World {
        mut stack,
        mongo: _mongo,
    } = start().await?;
    let (clients, dev) = {
        let acme = stack.with_tenant("acme").await?;
        let dev = workspace(&acme).await?;
        let mut clients = Vec::new();
        for point in POINTS {
            // Each has its own rate, which the repeated insert may use up.
            let writer = acme.member("tenant_admin").await?;
            clients.push((point, writer, acme.member("tenant_operator").await?));
        }
        (clients, dev)
    };
    for (point, admin, reader) in &clients {
        let path = documents(&dev, point);
        let reached = stack.faults()?.join(format!("{point}.reached"));
        std::fs::write(stack.faults()?.join(point), "")?;
        let post = || admin.post(&path, &json!({"text": point})).key(point);
        let lost = tokio::spawn(std::future::IntoFuture::into_future(post()));
        wait_for("the insert to come to the point", SOON, async || {
            ensure!(reached.exists(), "it is not at {point}");
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
        let found = reader
            .get(&format!("{path}?filter.text={point}"))
            .await?
            .expect(200)?;
        assert_eq!(found.at("/pagination/total")?, 1, "{point}");
    }
    Ok(())
}

/// Writers at once.
const WRITERS: usize = 4;
/// Documents that are written between one fall and the next.
const BETWEEN: u64 = 8;

/// Who writes until it is told to stop.
struct Load {
    writers: Vec<Client>,
    path: String,
    stop: AtomicBool,
}

impl Load {
    /// Each writes one document after the other, with a key of its own and until it is
    /// acknowledged; the number of all.
    async fn run(&self) -> Result<usize> {
        let writing = (0..).zip(&self.writers).map(async |(writer, client)| {
            let mut written = 0;
            while !self.stop.load(Ordering::SeqCst) {
                let key = format!("fall-{writer}-{written}");
                wait_for("a write to be answered", SOON * 3, async || {
                    let document = json!({"text": "load", "key": key});
                    let reply = client.post(&self.path, &document).key(&key).await?;
                    ensure!(reply.status == 201, "{reply:?}");
                    Ok(())
                })
                .await?;
                written += 1;
            }
            anyhow::Ok(written)
        });
        let written: Vec<usize> = try_join_all(writing).await?;
        Ok(written.iter().sum())
    }
}

/// Waits until there are so many documents more.
async fn more(notes: &Collection<Document>) -> Result<()> {
    let count = async || anyhow::Ok(notes.count_documents(doc! {}).await?);
    let before = wait_for("the server to count", SOON, count).await?;
    wait_for("the writers to write", SOON * 3, async || {
        let there = count().await?;
        ensure!(
            there >= before + BETWEEN,
            "{there} documents after {before}"
        );
        Ok(())
    })
    .await
}

/// A primary that steps down, and a server that is killed, under load: every key once.
#[tokio::test]
async fn the_server_falls_under_load() -> Result<()> {
    let World { stack, mut mongo } = start().await?;
    let acme = stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        // Each has its own rate, which repeated writes may use up.
        writers.push(acme.member("tenant_admin").await?);
    }
    let load = Load {
        writers,
        path: documents(&dev, "notes"),
        stop: AtomicBool::new(false),
    };
    let database = dev.id.replace("wks_", "ws_").to_lowercase();
    let notes = mongo.client().await?.database(&database);
    let notes = notes.collection::<Document>("notes");
    let falls = async {
        more(&notes).await?;
        mongo.step_down().await?;
        more(&notes).await?;
        mongo.restart().await?;
        more(&notes).await?;
        load.stop.store(true, Ordering::SeqCst);
        anyhow::Ok(())
    };
    let (written, ()) = tokio::try_join!(load.run(), falls)?;
    let keys = notes.distinct("key", doc! {}).await?;
    let all = usize::try_from(notes.count_documents(doc! {}).await?)?;
    assert_eq!((all, keys.len()), (written, written));
    Ok(())
}

#[tokio::test]
async fn a_key_replays_and_is_not_reused() -> Result<()> {
    let acme = world().await.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let path = documents(&dev, "notes");
    let first = acme
        .admin
        .post(&path, &json!({"a": 1}))
        .key("the-key")
        .await?
        .expect(201)?;
    let again = acme
        .admin
        .post(&path, &json!({"a": 1}))
        .key("the-key")
        .await?
        .expect(201)?;
    assert_eq!(first.text(), again.text());
    assert_eq!(again.one("x-idempotency-replayed")?, "true");
    let other = acme
        .admin
        .post(&path, &json!({"a": 2}))
        .key("the-key")
        .await?;
    other.refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    let duplicate = || acme.admin.post(&path, &json!({"_id": "x"})).key("twice");
    duplicate().await?.expect(201)?;
    let refused = || acme.admin.post(&path, &json!({"_id": "x"})).key("refused");
    let first = refused().await?;
    first.refused(409, "DUPLICATE_KEY")?;
    // Byte for byte: its body still has the first request's correlation id.
    let kept = refused().await?.expect(409)?;
    assert_eq!(kept.text(), first.text());
    assert_eq!(kept.one("x-idempotency-replayed")?, "true");
    Ok(())
}
