//! The same key again, whatever became of what it did.

use bson::{Document, doc};
use http::Method;
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
