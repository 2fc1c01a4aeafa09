//! A server that fails for a while: asked again within the bound, then 503; a commit of
//! unknown outcome is one effect all the same.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use http::Method;
use mongodb::Client;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use postern_served::{Answer, Ask};

use crate::support::{Served, Workspace};

/// The server fails these commands of one client. There is one such point in a server.
pub struct Failing {
    admin: Client,
    before: i32,
    _alone: MutexGuard<'static, ()>,
}

impl Failing {
    /// `times` 0: until the end.
    pub async fn new(served: &Served, command: &str, how: Document, times: i32) -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let mode = match times {
            0 => bson::Bson::from("alwaysOn"),
            times => doc! { "times": times }.into(),
        };
        let mut data = doc! { "failCommands": [command], "appName": &served.name };
        data.extend(how);
        let mut failing = Self {
            admin: served.client.clone(),
            before: 0,
            _alone: alone,
        };
        let point = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
        failing.before = failing.set(point).await;
        failing
    }

    /// How often it was in the way.
    pub async fn end(self) -> i32 {
        let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
        self.set(off).await - self.before
    }

    /// How often it has been in the way since the server started.
    async fn set(&self, point: Document) -> i32 {
        let set = self.admin.database("admin").run_command(point).await;
        match set.unwrap().get("count") {
            Some(bson::Bson::Int32(count)) => *count,
            Some(bson::Bson::Int64(count)) => i32::try_from(*count).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

async fn world() -> (Served, Workspace) {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    workspace
        .fill("things", [workspace.mark(doc! { "_id": 1 })])
        .await;
    (served, workspace)
}

async fn insert(served: &Served, workspace: &Workspace, key: &str) -> Answer {
    let ask = Ask::new(workspace, Method::POST, "documents").header("idempotency-key", key);
    ask.json(&json!({"key": key})).send(served).await
}

async fn with_key(workspace: &Workspace, key: &str) -> u64 {
    let things = workspace.database.collection::<Document>("things");
    things.count_documents(doc! { "key": key }).await.unwrap()
}

#[tokio::test]
async fn what_fails_for_a_moment_is_asked_again() {
    let (served, workspace) = world().await;
    let stepped_down = doc! { "errorCode": 11_602 };
    let closed = doc! { "closeConnection": true };
    for how in [stepped_down, closed] {
        for (command, ask) in [
            ("find", Ask::new(&workspace, Method::GET, "documents/1")),
            ("aggregate", Ask::new(&workspace, Method::GET, "documents")),
            (
                "aggregate",
                Ask::new(&workspace, Method::POST, "aggregate").json(&json!({"pipeline": []})),
            ),
            (
                "findAndModify",
                Ask::new(&workspace, Method::PATCH, "documents/1").json(&json!({"a": 1})),
            ),
        ] {
            // More often than the driver asks by itself.
            let failing = Failing::new(&served, command, how.clone(), 3).await;
            let answer = ask.send(&served).await;
            failing.end().await;
            assert_eq!(
                answer.status.as_u16(),
                200,
                "{command} {how}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn a_write_that_is_asked_again_happens_once() {
    let (served, workspace) = world().await;
    let label = "TransientTransactionError";
    let unknown = doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down" } };
    for (n, (command, how)) in [
        (
            "insert",
            doc! { "errorCode": 11_602, "errorLabels": [label] },
        ),
        ("insert", doc! { "errorCode": 10_107 }),
        ("insert", doc! { "closeConnection": true }),
        ("commitTransaction", unknown),
        ("commitTransaction", doc! { "errorCode": 11_600 }),
        ("commitTransaction", doc! { "errorCode": 189 }),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("again-{n}");
        // The driver asks once more by itself; the third time it is ours.
        let failing = Failing::new(&served, command, how.clone(), 2).await;
        let mut answer = insert(&served, &workspace, &key).await;
        let failed = failing.end().await;
        assert!(failed >= 2, "{command} {how}: {failed}");
        // On a slow machine the bound may be over before.
        for _ in 0..20 {
            if answer.status.as_u16() == 201 {
                break;
            }
            assert!(
                [504, 409].contains(&answer.status.as_u16()),
                "{}",
                answer.text()
            );
            answer = insert(&served, &workspace, &key).await;
        }
        let told = answer.text();
        assert_eq!(answer.status.as_u16(), 201, "{command} {how}: {told}");
        assert_eq!(with_key(&workspace, &key).await, 1, "{command} {how}");
        let again = insert(&served, &workspace, &key).await;
        assert_eq!(
            again.headers["x-idempotency-replayed"], "true",
            "{command} {how}"
        );
        assert_eq!(again.text(), answer.text());
    }
}

#[tokio::test]
async fn what_does_not_come_back_is_503() {
    let (served, workspace) = world().await;
    let failing = Failing::new(&served, "find", doc! { "errorCode": 11_600 }, 0).await;
    let began = Instant::now();
    let answer = Ask::new(&workspace, Method::GET, "documents/1")
        .send(&served)
        .await;
    failing.end().await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (503, "BACKEND_UNAVAILABLE".to_owned())
    );
    assert!(answer.headers.contains_key("retry-after"));
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

/// The commit is never heard of: the client is told so, and the same key tells later.
#[tokio::test]
async fn an_unknown_commit_is_told_and_then_known() {
    let (served, workspace) = world().await;
    let unknown = doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down" } };
    let failing = Failing::new(&served, "commitTransaction", unknown, 0).await;
    let answer = insert(&served, &workspace, "unknown").await;
    failing.end().await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (504, "BACKEND_UNAVAILABLE".to_owned())
    );
    assert!(answer.headers.contains_key("retry-after"));
    let again = insert(&served, &workspace, "unknown").await;
    assert_eq!(again.status.as_u16(), 201, "{}", again.text());
    assert_eq!(with_key(&workspace, "unknown").await, 1);
}
