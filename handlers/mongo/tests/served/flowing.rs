//! Long lists leave as they come, and nobody's query outlives who asked.

use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;
use http::Method;
use http_body_util::BodyExt;
use mongodb::Client;
use postern_harness::wait_for;
use postern_mongo::Bounds;
use serde_json::{Value, json};

use crate::away::Failing;
use postern_served::Ask;

use crate::support::{Served, Workspace, bounds};

/// How long something may take that follows by itself.
const SOON: Duration = Duration::from_secs(15);

/// Longer than any test: what ends before was ended.
const PATIENT: Bounds = Bounds {
    max_time: Duration::from_secs(120),
    max_results: 100,
    max_bytes: 256 << 20,
};

async fn filled(served: &Served, count: i32, size: usize) -> Workspace {
    let workspace = served.workspace().await;
    let text = "x".repeat(size);
    let document = |n: i32| workspace.mark(doc! { "_id": n, "text": &text });
    workspace.fill("things", (0..count).map(document)).await;
    workspace
}

/// What the server does in a workspace's database, idle cursors among it.
async fn operations(client: &Client, workspace: &Workspace) -> Vec<Document> {
    let look = [
        doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
        doc! { "$match": { "ns": { "$regex": format!("^{}\\.", workspace.database.name()) } } },
    ];
    let found = client.database("admin").aggregate(look).await.unwrap();
    found.try_collect().await.unwrap()
}

#[tokio::test]
async fn the_first_documents_leave_before_the_last_comes() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 1_000, 20 << 10).await;
    let ask = Ask::new(&workspace, Method::GET, "documents?limit=1000");
    let mut answer = ask.open(&served).await;
    assert_eq!(answer.status().as_u16(), 200);
    assert!(!answer.headers().contains_key("content-length"));
    let first = answer.body_mut().frame().await.unwrap().unwrap();
    let mut body = first.into_data().unwrap().to_vec();
    assert!(body.starts_with(b"{\"data\":[{\"_id\":0,"));
    // The rest waits at the server: 20 MB go into no buffer on the way.
    let waiting = operations(&served.client, &workspace).await;
    let cursor = waiting
        .iter()
        .find_map(|it| it.get_document("cursor").ok())
        .unwrap();
    let returned = cursor.get_i64("nDocsReturned").unwrap();
    assert!(
        returned < 1_000,
        "{returned} documents were fetched already"
    );
    body.extend(answer.into_body().collect().await.unwrap().to_bytes());
    let json: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["data"].as_array().unwrap().len(), 1_000);
    assert_eq!(json["pagination"]["total"], 1_000);
    assert_eq!(json["pagination"]["hasMore"], false);
}

#[tokio::test]
async fn a_short_list_is_whole_and_has_a_validator() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 3, 100).await;
    let answer = Ask::new(&workspace, Method::GET, "documents")
        .send(&served)
        .await;
    assert!(answer.headers.contains_key("content-length"));
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let again = Ask::new(&workspace, Method::GET, "documents").header("if-none-match", &etag);
    assert_eq!(again.send(&served).await.status.as_u16(), 304);
}

#[tokio::test]
async fn what_goes_wrong_in_the_middle_breaks_it_off() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 1_000, 5 << 10).await;
    let failing = Failing::new(&served, "getMore", doc! { "errorCode": 8 }, 1).await;
    let answer = Ask::new(&workspace, Method::GET, "documents?limit=1000")
        .open(&served)
        .await;
    assert_eq!(answer.status().as_u16(), 200);
    let mut body = answer.into_body();
    let mut came = Vec::new();
    let broken = loop {
        match body.frame().await {
            Some(Ok(frame)) => came.extend(frame.into_data().unwrap()),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    failing.end().await;
    assert!(broken, "the body has an end");
    assert!(came.starts_with(b"{\"data\":["));
    assert!(serde_json::from_slice::<Value>(&came).is_err());
}

/// A page that would be larger than an answer may be ends before, and says so.
#[tokio::test]
async fn a_page_ends_where_the_answer_is_full() {
    let max_bytes = 300 << 10;
    let served = Served::with(
        Bounds {
            max_bytes,
            ..PATIENT
        },
        None,
    )
    .await;
    let workspace = filled(&served, 100, 10 << 10).await;
    let (mut cursor, mut seen) = (String::new(), 0);
    loop {
        let ask = Ask::new(
            &workspace,
            Method::GET,
            &format!("documents?limit=1000{cursor}"),
        );
        let page = ask.send(&served).await;
        assert!(page.body.len() < max_bytes + 1_000, "{}", page.body.len());
        let json = page.json();
        for document in json["data"].as_array().unwrap() {
            assert_eq!(document["_id"], seen);
            seen += 1;
        }
        match &json["pagination"]["nextCursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    assert_eq!(seen, 100);
}

/// A pipeline that takes minutes.
fn slow() -> Value {
    let heavy = json!({"$reduce": {"input": {"$range": [0, 5_000]}, "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}});
    json!({"pipeline": [{"$project": {"x": heavy}}, {"$match": {"x": -1}}]})
}

async fn runs(served: &Served, workspace: &Workspace, wanted: bool) {
    let what = if wanted {
        "the query to run"
    } else {
        "the query to end"
    };
    wait_for(what, SOON, async || {
        let running = !operations(&served.client, workspace).await.is_empty();
        anyhow::ensure!(running == wanted, "it does not");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn who_goes_away_ends_an_aggregation() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 60_000, 1).await;
    let ask = Ask::new(&workspace, Method::POST, "aggregate").json(&slow());
    tokio::select! {
        answer = ask.open(&served) => panic!("{answer:?}"),
        () = runs(&served, &workspace, true) => {}
    }
    runs(&served, &workspace, false).await;
}

#[tokio::test]
async fn who_goes_away_ends_a_list_and_its_count() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 60_000, 1).await;
    let filter = json!({"$expr": {"$eq": [slow().pointer("/pipeline/0/$project/x"), -1]}});
    let path = format!("documents?filter={filter}");
    let ask = Ask::new(&workspace, Method::GET, &path);
    tokio::select! {
        answer = ask.open(&served) => panic!("{answer:?}"),
        () = runs(&served, &workspace, true) => {}
    }
    runs(&served, &workspace, false).await;
}

#[tokio::test]
async fn who_goes_away_in_the_middle_ends_a_list() {
    let served = Served::with(PATIENT, None).await;
    let workspace = filled(&served, 1_000, 20 << 10).await;
    let ask = Ask::new(&workspace, Method::GET, "documents?limit=1000");
    let mut answer = ask.open(&served).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert!(!operations(&served.client, &workspace).await.is_empty());
    drop(answer);
    runs(&served, &workspace, false).await;
}

/// Who waits is told within the bound of an operation, whatever was asked.
#[tokio::test]
async fn an_operation_has_a_bound() {
    let max_time = Duration::from_millis(500);
    let served = Served::with(
        Bounds {
            max_time,
            ..bounds()
        },
        None,
    )
    .await;
    let workspace = filled(&served, 60_000, 1).await;
    let ask = Ask::new(&workspace, Method::POST, "aggregate").json(&slow());
    let answer = ask.send(&served).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (504, "STATEMENT_TIMEOUT".to_owned())
    );
}
