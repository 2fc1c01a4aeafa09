//! From an empty workspace to a query, in five requests, and what the way adds.

use anyhow::Result;
use http::Method;
use postern_suites::envelope::refused_by_anyone;
use serde_json::json;

use super::{rows, stack, tables, text, workspace};

#[tokio::test]
async fn a_table_made_filled_and_queried_with_an_embed() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let customers = json!({"name": "customers", "columns": [
        {"name": "id", "type": "bigint", "identity": true, "primaryKey": true},
        {"name": "name", "type": "text", "nullable": false}]});
    let orders = json!({"name": "orders", "columns": [
        {"name": "id", "type": "bigint", "identity": true, "primaryKey": true},
        {"name": "customer_id", "type": "bigint", "references": {"table": "customers"}},
        {"name": "total", "type": "numeric(12,2)"}]});
    for table in [customers, orders] {
        acme.admin.post(&tables(&dev), &table).await?.expect(201)?;
    }
    let made = acme
        .admin
        .post(&rows(&dev, "customers"), &json!({"name": "Ada"}))
        .await?
        .expect(201)?;
    assert_eq!(made.at("/data/0/id")?, 1);
    let body = json!([{"customer_id": 1, "total": "9.50"}, {"customer_id": 1, "total": "100"}]);
    acme.admin
        .post(&rows(&dev, "orders"), &body)
        .await?
        .expect(201)?;
    let path = format!(
        "{}?select=total,customer:customers(name)&total=gt.10",
        rows(&dev, "orders")
    );
    let found = acme.admin.get(&path).await?.expect(200)?;
    assert!(
        found
            .text()
            .contains(r#"{"total":100.00,"customer":{"name":"Ada"}}"#),
        "{found:?}"
    );
    assert_eq!(found.at("/pagination/total")?, 1);
    // A read that the client has already costs no body.
    let etag = found.one("etag")?.to_owned();
    let again = acme.admin.get(&path).set("if-none-match", &etag).await?;
    assert_eq!(again.status, 304);
    let head = acme.admin.head(&path).await?;
    assert_eq!((head.status, head.body.len()), (200, 0));
    Ok(())
}

#[tokio::test]
async fn csv_and_every_digit() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let table = json!({"name": "big", "columns": [
        {"name": "id", "type": "bigint", "primaryKey": true}, {"name": "n", "type": "numeric"}]});
    acme.admin.post(&tables(&dev), &table).await?.expect(201)?;
    let csv = "id,n\n9223372036854775807,1234567890123456789012345678901234567890\n";
    acme.admin
        .call(Method::POST, &rows(&dev, "big"))
        .set("content-type", "text/csv")
        .body(csv)
        .await?
        .expect(201)?;
    let found = acme.admin.get(&rows(&dev, "big")).await?.expect(200)?;
    let digits = r#"{"id":9223372036854775807,"n":1234567890123456789012345678901234567890,"#;
    assert!(text(&found).contains(digits), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_line_that_is_too_long_is_the_gateways() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    let list = vec!["1"; 20_000].join(",");
    let path = format!("{}?id=in.({list})", rows(&dev, "customers"));
    let reply = acme.admin.get(&path).await?;
    refused_by_anyone(&reply, &[414], &["URI_TOO_LONG"])?;
    Ok(())
}

#[tokio::test]
async fn a_repeated_insert_is_replayed() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    super::notes(&acme, &dev).await?;
    let post = || {
        acme.admin
            .post(&rows(&dev, "notes"), &json!({"text": "once"}))
            .key("insert-once")
    };
    let first = post().await?.expect(201)?;
    let again = post().await?.expect(201)?;
    assert_eq!(text(&first), text(&again));
    assert_eq!(again.header("x-idempotency-replayed"), Some("true"));
    let found = acme.admin.get(&rows(&dev, "notes")).await?.expect(200)?;
    assert_eq!(found.at("/pagination/total")?, 1);
    Ok(())
}

#[tokio::test]
async fn one_row_by_itself_and_a_range_of_rows() -> Result<()> {
    const SINGLE: &str = "application/vnd.pgrst.object+json";
    let acme = stack().await.with_tenant("acme").await?;
    let dev = workspace(&acme).await?;
    super::notes(&acme, &dev).await?;
    let path = rows(&dev, "notes");
    let one = |body: &serde_json::Value, key: &str| {
        let call = acme.admin.post(&format!("{path}?select=text"), body);
        call.set("accept", SINGLE).key(key)
    };
    // The first time, and replayed by the runner.
    for replayed in [None, Some("true")] {
        let made = one(&json!({"text": "a"}), "one").await?.expect(201)?;
        assert_eq!(made.json()?, json!({"text": "a"}));
        assert_eq!(made.one("content-type")?, SINGLE);
        assert_eq!(made.header("x-idempotency-replayed"), replayed);
        let two = json!([{"text": "b"}, {"text": "c"}]);
        let none = one(&two, "two").await?.expect(406)?;
        assert_eq!(none.at("/error/code")?, "NOT_ACCEPTABLE");
        assert_eq!(none.header("x-idempotency-replayed"), None, "not kept");
    }
    let only = format!("{path}?select=text");
    let found = acme.admin.get(&only).set("accept", SINGLE).await?;
    assert_eq!(found.expect(200)?.json()?, json!({"text": "a"}));
    let more = json!([{"text": "b"}, {"text": "c"}]);
    acme.admin.post(&path, &more).await?.expect(201)?;
    let many = acme.admin.get(&path).set("accept", SINGLE).await?;
    many.refused(406, "NOT_ACCEPTABLE")?;
    let csv = acme.admin.get(&path).set("accept", "text/csv").await?;
    csv.refused(406, "NOT_ACCEPTABLE")?;
    let part = acme
        .admin
        .get(&path)
        .set("range", "0-1")
        .await?
        .expect(206)?;
    assert_eq!(part.one("content-range")?, "0-1/3");
    assert_eq!(part.at("/pagination/limit")?, 2);
    Ok(())
}
