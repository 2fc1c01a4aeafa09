//! Clients that are gone before their answer.

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::wait_for;
use postern_suites::{points, raw};
use serde_json::json;
use sqlx::Connection as _;
use tokio::net::TcpStream;

use super::data::{number, run, world};
use super::{SOON, notes, rows, workspace};

/// Sends a request on a connection that can be dropped.
async fn send(
    client: &Client,
    base: &str,
    line: &str,
    more: &str,
    body: &str,
) -> Result<TcpStream> {
    let token = client.token().context("a token")?;
    let mut stream = raw::connect(base).await?;
    let request = format!(
        "{line} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {token}\r\nX-API-Version: 2024-01-01\r\n\
         X-Correlation-Id: leaves-early\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw::send(&mut stream, request.as_bytes()).await?;
    Ok(stream)
}

#[tokio::test]
async fn a_read_ends_with_its_client_and_a_write_does_not() -> Result<()> {
    let world = world(false, json!({"statementMs": 60_000})).await?;
    let acme = world.stack.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    notes(&acme, &dev).await?;
    let path = rows(&dev, "notes");
    let mut db = world.data.connect().await?;
    let mut lock = db.begin().await?;
    // Readers and writers alike wait for it.
    run(&mut lock, &dev, "LOCK TABLE notes IN ACCESS EXCLUSIVE MODE").await?;
    let mut looking = world.data.connect().await?;
    let under_way = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'postern_data'";
    let mut come = async |so_many: i64| {
        wait_for("statements to come and go", SOON, async || {
            let there = number(&mut looking, &dev, under_way).await?;
            ensure!(there == so_many, "{there} are under way");
            Ok(())
        })
        .await
    };
    let url = world.stack.url();
    let read = send(&acme.admin, url, &format!("GET {path}?count=none"), "", "").await?;
    come(1).await?;
    drop(read);
    come(0).await?;
    // A write goes on, and is there to be replayed when the way is free.
    let body = json!({"text": "once"});
    let head = "Idempotency-Key: leaves\r\nContent-Type: application/json\r\n";
    let write = send(
        &acme.admin,
        url,
        &format!("POST {path}"),
        head,
        &body.to_string(),
    )
    .await?;
    come(1).await?;
    drop(write);
    lock.rollback().await?;
    come(0).await?;
    let again = points::made(|| acme.admin.post(&path, &body).key("leaves")).await?;
    assert_eq!(again.one("x-idempotency-replayed")?, "true");
    let there = number(&mut db, &dev, "SELECT count(*) FROM $schema.notes").await?;
    assert_eq!(there, 1);
    Ok(())
}
