//! Exactly once, and versions of rows.

use http::Method;
use serde_json::json;

use crate::both_ways;
use crate::cases::seeded;
use postern_served::Ask;

use crate::support::{Served, Way, bounds};

both_ways!(
    a_repeated_write_is_replayed,
    a_refusal_by_the_data_is_kept,
    a_key_outlives_its_table,
    many_at_once_with_one_key,
    ten_thousand_rows_or_none,
    versions,
);

async fn a_repeated_write_is_replayed(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let post = |key: &str, body: serde_json::Value| {
        Ask::new(&workspace, Method::POST, "rows/plain?select=id,v")
            .header("idempotency-key", key)
            .json(&body)
    };
    let first = post("k-1", json!({"id": 7, "v": "x"})).send(&served).await;
    let again = post("k-1", json!({"id": 7, "v": "x"})).send(&served).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.body, again.body);
    assert!(!first.headers.contains_key("x-idempotency-replayed"));
    assert_eq!(again.headers["x-idempotency-replayed"], "true");
    let other = post("k-1", json!({"id": 8, "v": "x"})).send(&served).await;
    assert_eq!(other.refused(), (422, "IDEMPOTENCY_KEY_REUSED".into()));
    let count = "SELECT count(*)::text FROM $schema.plain WHERE id = 7";
    assert_eq!(served.text(&workspace, count).await.as_deref(), Some("1"));
}

async fn a_refusal_by_the_data_is_kept(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let post = || {
        Ask::new(&workspace, Method::POST, "rows/labels")
            .header("idempotency-key", "k-dup")
            .json(&json!({"id": 1, "name": "x"}))
    };
    let first = post().send(&served).await;
    assert_eq!(first.refused(), (409, "DUPLICATE_KEY".into()));
    let gone = Ask::new(
        &workspace,
        Method::DELETE,
        "rows/product_labels?label_id=eq.1",
    );
    gone.send(&served).await.ok();
    Ask::new(&workspace, Method::DELETE, "rows/labels/1")
        .send(&served)
        .await
        .ok();
    let again = post().send(&served).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.headers["x-idempotency-replayed"], "true");
    // What was malformed was never begun: mended, it runs under the same key.
    let put = |body: serde_json::Value| {
        Ask::new(&workspace, Method::POST, "rows/labels")
            .header("idempotency-key", "k-mended")
            .json(&body)
    };
    assert_eq!(put(json!({"id": "x"})).send(&served).await.refused().0, 400);
    put(json!({"id": 1, "name": "back"}))
        .send(&served)
        .await
        .ok();
}

async fn a_key_outlives_its_table(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let post = || {
        Ask::new(&workspace, Method::POST, "rows/plain")
            .header("idempotency-key", "k-table")
            .json(&json!({"id": 9}))
    };
    let first = post().send(&served).await;
    served.seed(&workspace, "DROP TABLE plain").await;
    let again = post().send(&served).await;
    assert_eq!(again.status, first.status);
    assert_eq!(again.body, first.body);
}

async fn many_at_once_with_one_key(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let asks = (0..12).map(|_| {
        Ask::new(&workspace, Method::POST, "rows/plain")
            .header("idempotency-key", "k-many")
            .json(&json!({"id": 77}))
            .send(&served)
    });
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().any(|answer| answer.status == 201));
    for answer in &answers {
        assert!(matches!(answer.status.as_u16(), 201 | 409), "{answer:?}");
    }
    let count = "SELECT count(*)::text FROM $schema.plain WHERE id = 77";
    assert_eq!(served.text(&workspace, count).await.as_deref(), Some("1"));
}

async fn ten_thousand_rows_or_none(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let rows: Vec<_> = (0..10_000)
        .map(|id| json!({"id": 1_000 + id, "name": "n"}))
        .collect();
    let path = "rows/labels?select=id";
    let done = Ask::new(&workspace, Method::POST, path)
        .header("prefer", "return=minimal")
        .json(&json!(rows))
        .send(&served)
        .await
        .ok();
    assert_eq!(done["inserted"], 10_000);
    let mut rows: Vec<_> = (0..10_000)
        .map(|id| json!({"id": 100_000 + id, "name": "n"}))
        .collect();
    rows[9_999] = json!({"id": 1, "name": "there already"});
    let answer = served.post(&workspace, path, &json!(rows)).await;
    assert_eq!(answer.refused(), (409, "DUPLICATE_KEY".into()));
    let count = "SELECT count(*)::text FROM $schema.labels";
    assert_eq!(
        served.text(&workspace, count).await.as_deref(),
        Some("10003")
    );
}

async fn versions(way: Way) {
    let served = Served::by(way, bounds()).await;
    let workspace = seeded(&served).await;
    let read = served.get(&workspace, "rows/labels/1").await;
    let etag = read.headers["etag"].to_str().unwrap().to_owned();
    let same = Ask::new(&workspace, Method::GET, "rows/labels/1")
        .header("if-none-match", &etag)
        .send(&served)
        .await;
    assert_eq!(same.status, 304);
    let patch = |etag: &str| {
        Ask::new(&workspace, Method::PATCH, "rows/labels/1")
            .header("if-match", etag)
            .json(&json!({"name": "new"}))
    };
    assert_eq!(patch(&etag).send(&served).await.ok()["updated"], 1);
    let stale = patch(&etag).send(&served).await;
    assert_eq!(stale.refused(), (412, "PRECONDITION_FAILED".into()));
    let after = served.get(&workspace, "rows/labels/1").await;
    assert_ne!(after.headers["etag"], *etag);
}
