//! Long lists, and clients that go away, through the gateway.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mongodb::bson::{Document, doc};
use postern_harness::stack::{Stack, Workspace};
use postern_harness::wait_for;
use serde_json::{Value, json};

use super::{SOON, World, collections, documents, start_with, workspace};

/// What a list may add to the handlers' memory, whatever its length: a batch of the
/// server's (16 MiB), as it comes and as documents, and what is made of it.
const GROWTH: u64 = 64 << 20;

/// A workspace's database, as the handlers name it.
fn database(workspace: &Workspace) -> String {
    workspace.id.to_ascii_lowercase().replace("wks_", "ws_")
}

/// A number of `/proc/<pid>/status`, in bytes.
fn memory(stack: &mut Stack, name: &str) -> Result<u64> {
    let process = stack.services()?.handlers().id();
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    Ok(kib.context("no such line")?.parse::<u64>()? * 1024)
}

#[tokio::test]
async fn long_lists_and_clients_that_leave() -> Result<()> {
    // Neither the size nor the time of an operation is what ends something here.
    let bounds = json!({"maxAnswerBytes": 256 << 20, "operationMs": 120_000});
    let World { mut stack, mongo } = start_with(bounds).await?;
    let client = mongo.client().await?;
    let (dev, admin) = {
        let acme = stack.with_tenant("acme").await?;
        (workspace(&acme).await?, acme.admin.clone())
    };
    let first = json!({"_id": 0, "text": "short"});
    admin
        .post(&documents(&dev, "notes"), &first)
        .await?
        .expect(201)?;
    let notes = client
        .database(&database(&dev))
        .collection::<Document>("notes");
    let marks = notes.find_one(doc! {}).await?.context("no document")?;
    let (tenant, space) = (marks.get_str("_tenantId")?, marks.get_str("_workspaceId")?);
    let document = |n: i32, text: &str| doc! {"_id": n, "text": text, "_tenantId": tenant, "_workspaceId": space};

    // 1,000 documents of 100 KiB.
    let text = "x".repeat(100 << 10);
    for batch in 0..10 {
        let batch = (1..=100).map(|n| document(batch * 100 + n, &text));
        notes.insert_many(batch).await?;
    }
    let list = format!(
        "{}?limit=1000&filter._id=gt:0&count=none",
        documents(&dev, "notes")
    );
    admin
        .get(&format!("{}?limit=10", documents(&dev, "notes")))
        .await?
        .expect(200)?;
    let before = memory(&mut stack, "VmRSS")?;
    let process = stack.services()?.handlers().id();
    // The peak counts from here on (proc(5), clear_refs).
    std::fs::write(format!("/proc/{process}/clear_refs"), "5")?;
    let listed = admin.get(&list).await?.expect(200)?;
    ensure!(
        listed.text().len() > 1_000 * text.len(),
        "{} bytes",
        listed.text().len()
    );
    let json: Value = serde_json::from_str(&listed.text())?;
    ensure!(
        json["data"]
            .as_array()
            .is_some_and(|data| data.len() == 1_000)
    );
    let grown = memory(&mut stack, "VmHWM")?.saturating_sub(before);
    println!("a list of 100 MiB: {} KiB more", grown >> 10);
    ensure!(grown < GROWTH, "the handlers grew by {} KiB", grown >> 10);

    // A query that would take minutes, and a client that does not wait for it.
    notes.delete_many(doc! {}).await?;
    for batch in 0..6 {
        let batch = (0..10_000).map(|n| document(batch * 10_000 + n, ""));
        notes.insert_many(batch).await?;
    }
    let sum = json!({"$reduce": {"input": {"$range": [0, 5_000]}, "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}});
    let slow = json!({"pipeline": [{"$project": {"x": sum}}, {"$match": {"x": -1}}]});
    let aggregate = format!("{}/notes/aggregate", collections(&dev));
    let runs = async |wanted: bool| {
        let what = if wanted {
            "the query to run"
        } else {
            "the query to end"
        };
        wait_for(what, SOON, async || {
            let ours = doc! { "ns": format!("{}.notes", notes.namespace().db) };
            let look = [
                doc! { "$currentOp": { "allUsers": true } },
                doc! { "$match": ours },
            ];
            let mut found = client.database("admin").aggregate(look).await?;
            let running = found.advance().await?;
            ensure!(running == wanted, "it does not");
            Ok(())
        })
        .await
    };
    let asked = tokio::time::timeout(
        Duration::from_secs(120),
        std::future::IntoFuture::into_future(admin.post(&aggregate, &slow)),
    );
    tokio::select! {
        answer = asked => anyhow::bail!("{answer:?}"),
        running = runs(true) => running?,
    }
    runs(false).await
}
