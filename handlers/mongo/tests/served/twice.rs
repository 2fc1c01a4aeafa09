//! The same key again, whatever became of what it did.

use std::time::Duration;

use bson::{Document, doc};
use http::Method;
use postern_mongo::Bounds;
use serde_json::{Value, json};

use postern_served::{Answer, Ask};

use crate::away::Failing;
use crate::support::{Served, Workspace, bounds};

async fn ask(
    served: &Served,
    workspace: &Workspace,
    (method, path, body): (Method, &str, Value),
    key: &str,
) -> Answer {
    let ask = Ask::new(workspace, method, path).header("idempotency-key", key);
    let ask = match body {
        Value::Null => ask,
        body => ask.json(&body),
    };
    ask.send(served).await
}

fn post(path: &str, body: Value) -> (Method, &str, Value) {
    (Method::POST, path, body)
}

fn delete(path: &str) -> (Method, &str, Value) {
    (Method::DELETE, path, Value::Null)
}

fn is(answer: &Answer, status: u16) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
}

#[tokio::test]
async fn a_key_outlives_its_collection_and_the_plan() {
    let served = Served::with(bounds(), Some(1)).await;
    let workspace = served.workspace().await;
    let insert = post("documents", json!({"_id": 1}));
    let change = json!({"operations": [{"updateOne": {"filter": {"_id": 1}, "update": {"$set": {"a": 1}}}}]});
    let steps = [
        ("insert", insert),
        ("bulk", post("bulk", change)),
        (
            "put",
            (Method::PUT, "documents/2?upsert=true", json!({"a": 1})),
        ),
    ];
    let mut firsts = Vec::new();
    for (key, step) in &steps {
        let first = ask(&served, &workspace, step.clone(), key).await;
        assert!(first.status.is_success(), "{}", first.text());
        firsts.push(first);
    }
    let gone = ask(&served, &workspace, delete("collections/things"), "drop");
    is(&gone.await, 200);
    for full in [false, true] {
        if full {
            let other = post("collections/others/documents", json!({"_id": 1}));
            is(&ask(&served, &workspace, other, "other").await, 201);
        }
        for ((key, step), first) in steps.iter().zip(&firsts) {
            let again = ask(&served, &workspace, step.clone(), key).await;
            assert_eq!(again.text(), first.text(), "{key}, plan full: {full}");
            assert_eq!(again.headers["x-idempotency-replayed"], "true");
        }
        let names = workspace.database.list_collection_names().await.unwrap();
        assert!(!names.contains(&"things".to_owned()), "{names:?}");
    }
}

/// An attempt that met a server that was away did nothing: what others do meanwhile is theirs.
#[tokio::test]
async fn what_others_made_or_dropped_is_not_the_keys() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let create = || post("collections", json!({"name": "things"}));
    let how = doc! { "errorCode": 189 };
    let failing = Failing::new(&served, "listCollections", how.clone(), 0).await;
    is(&ask(&served, &workspace, create(), "create").await, 503);
    failing.end().await;
    is(&ask(&served, &workspace, create(), "others").await, 201);
    is(&ask(&served, &workspace, create(), "create").await, 409);

    let gone = || delete("collections/things");
    let failing = Failing::new(&served, "listCollections", how, 0).await;
    is(&ask(&served, &workspace, gone(), "drop").await, 503);
    failing.end().await;
    is(&ask(&served, &workspace, gone(), "others-drop").await, 200);
    is(&ask(&served, &workspace, gone(), "drop").await, 404);
}

/// A drop waits for transactions on its collection, no longer than an operation may take;
/// meanwhile other tenants make theirs, and the same key drops it later.
#[tokio::test]
async fn a_drop_that_waits_ends_and_others_go_on() {
    let short = Bounds {
        max_time: Duration::from_secs(2),
        ..bounds()
    };
    let served = Served::with(short, None).await;
    let (first, second) = (served.workspace().await, served.workspace().await);
    let mut sessions = Vec::new();
    for workspace in [&first, &second] {
        let thing = workspace.mark(doc! { "_id": 1 });
        workspace.fill("things", [thing]).await;
        let mut session = served.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let things = workspace.database.collection::<Document>("things");
        let insert = things.insert_one(doc! { "_id": 2 });
        insert.session(&mut session).await.unwrap();
        sessions.push(session);
    }
    let gone = |workspace| ask(&served, workspace, delete("collections/things"), "drop");
    let third = served.workspace().await;
    let made = ask(
        &served,
        &third,
        post("collections", json!({"name": "a"})),
        "a",
    );
    let (one, other, made) = tokio::join!(gone(&first), gone(&second), made);
    for waited in [one, other] {
        assert_eq!(waited.refused(), (504, "STATEMENT_TIMEOUT".into()));
    }
    is(&made, 201);
    for session in &mut sessions {
        session.abort_transaction().await.unwrap();
    }
    is(&gone(&first).await, 200);
    is(&gone(&second).await, 200);
}

/// Handlers that are killed behind the effect leave a record without an outcome. The retry
/// finds what was done, and does it to nothing that others have made since.
#[tokio::test]
async fn a_lost_answer_is_told_again() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let lose = async || {
        let lost =
            sqlx::query("UPDATE postern_idempotency.record SET outcome = NULL WHERE tenant = $1")
                .bind(workspace.tenant.to_string())
                .execute(&served.control_plane)
                .await;
        assert!(lost.unwrap().rows_affected() > 0);
    };
    let create = || {
        post(
            "collections",
            json!({"name": "things", "indexes": [{"keys": {"a": 1}}]}),
        )
    };
    let gone = || delete("collections/things");
    let first = ask(&served, &workspace, create(), "create").await;
    is(&first, 201);
    lose().await;
    let again = ask(&served, &workspace, create(), "create").await;
    assert_eq!(again.text(), first.text());

    is(&ask(&served, &workspace, gone(), "drop").await, 200);
    lose().await;
    let anew = post("documents", json!({"_id": 1}));
    is(&ask(&served, &workspace, anew, "anew").await, 201);
    is(&ask(&served, &workspace, gone(), "drop").await, 200);
    let things = workspace.database.collection::<Document>("things");
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);
}

/// The quota of kept bytes is the tenant's, over all its workspaces: above it a replay has
/// the status, and says that it has no body.
#[tokio::test]
async fn a_tenant_keeps_what_it_may() {
    let served = Served::keeping(20_000, bounds(), None).await;
    let (first, other) = (served.workspace().await, served.workspace().await);
    let second = served.workspace_of(first.tenant).await;
    for key in ["a", "b", "c"] {
        let large = post("documents", json!({"text": "x".repeat(9_000)}));
        is(&ask(&served, &first, large, key).await, 201);
    }
    let replayed = async |workspace: &Workspace| {
        let small = post("documents", json!({"_id": 1}));
        let told = ask(&served, workspace, small.clone(), "small").await;
        is(&told, 201);
        let again = ask(&served, workspace, small, "small").await;
        is(&again, 201);
        assert_eq!(again.headers["x-idempotency-replayed"], "true");
        (told, again)
    };
    // A tenant of its own: nothing of it is kept.
    let (told, again) = replayed(&other).await;
    assert_eq!(again.text(), told.text());
    // What was counted is remembered for a moment.
    let mut key = 0;
    postern_harness::wait_for(
        "the quota to be full",
        std::time::Duration::from_secs(60),
        async || {
            key += 1;
            let (key, insert) = (format!("n-{key}"), || post("documents", json!({"n": 1})));
            is(&ask(&served, &second, insert(), &key).await, 201);
            let again = ask(&served, &second, insert(), &key).await;
            is(&again, 201);
            anyhow::ensure!(
                again.headers.contains_key("x-idempotency-body"),
                "it was kept"
            );
            assert_eq!(again.text(), "");
            Ok(())
        },
    )
    .await
    .unwrap();
}

/// The server removes records that expired once a minute; until then they are as good as gone.
#[tokio::test]
async fn a_record_that_expired_is_gone() {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let insert = || post("documents", json!({"a": 1}));
    let first = ask(&served, &workspace, insert(), "old").await;
    is(&first, 201);
    let records = workspace.database.collection::<Document>("postern.record");
    let past = bson::DateTime::from_millis(bson::DateTime::now().timestamp_millis() - 1);
    let expired = doc! { "$set": { "expiresAt": past } };
    let expired = records.update_many(doc! {}, expired).await.unwrap();
    assert_eq!(expired.matched_count, 1);
    let anew = ask(&served, &workspace, insert(), "old").await;
    is(&anew, 201);
    assert!(!anew.headers.contains_key("x-idempotency-replayed"));
    let again = ask(&served, &workspace, insert(), "old").await;
    assert_eq!(again.text(), anew.text());
    assert_eq!(workspace.all("things").await.len(), 2);
}
