//! Users that read views: how many there are, and when they end.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use http::Method;
use mongodb::Collection;
use postern_harness::wait_for;
use postern_served::{Answer, Ask};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::{Served, Workspace};

/// Where it is written down when each ends.
fn endings(served: &Served) -> Collection<Document> {
    served.client.database("postern").collection("credential")
}

async fn world() -> (Served, Workspace) {
    let served = Served::new().await;
    let workspace = served.workspace().await;
    let seed = [workspace.mark(doc! { "_id": 1 })];
    workspace.fill("things", seed).await;
    (served, workspace)
}

async fn create(served: &Served, workspace: &Workspace) -> Answer {
    let ask = Ask::new(workspace, Method::POST, "credentials");
    let body = json!({"collections": ["things"]});
    ask.json(&body).send(served).await
}

async fn users(workspace: &Workspace) -> usize {
    let told = workspace.database.run_command(doc! { "usersInfo": 1 });
    told.await.unwrap().get_array("users").unwrap().len()
}

/// Sweeps until this many users are left in the workspace and no due ending but `stuck`.
async fn swept(served: &Served, workspace: &Workspace, left: usize, stuck: &[&str]) {
    let stop = CancellationToken::new();
    let sweeping = served.family.sweep(Duration::from_millis(10), stop.clone());
    let done = async {
        let limit = Duration::from_secs(60);
        let due = doc! { "expiresAt": { "$lte": DateTime::now() }, "_id": { "$nin": stuck } };
        let waited = wait_for("what is due to end", limit, async || {
            let users = users(workspace).await;
            let due = endings(served).count_documents(due.clone()).await?;
            anyhow::ensure!((users, due) == (left, 0), "{users} users, {due} due");
            Ok(())
        });
        let waited = waited.await;
        stop.cancel();
        waited
    };
    let ((), done) = tokio::join!(sweeping, done);
    done.unwrap();
}

/// More than a hundred at once, and one in front that the server does not end.
#[tokio::test]
async fn one_that_cannot_be_ended_holds_up_no_other() {
    let (served, workspace) = world().await;
    assert_eq!(create(&served, &workspace).await.status.as_u16(), 201);
    let due = |user: String, database: &str, after: i64| doc! { "_id": user, "database": database, "expiresAt": DateTime::from_millis(after) };
    let name = workspace.database.name();
    let stuck = format!("a-stuck-{name}");
    endings(&served)
        .insert_one(due(stuck.clone(), "no database", 0))
        .await
        .unwrap();
    let gone = (0..250).map(|n| due(format!("gone-{n}-{name}"), name, 1));
    endings(&served).insert_many(gone).await.unwrap();
    let over = doc! { "$set": { "expiresAt": DateTime::from_millis(2) } };
    let ours = doc! { "database": name };
    endings(&served).update_many(ours, over).await.unwrap();
    swept(&served, &workspace, 0, &[&stuck]).await;
    let by_name = doc! { "_id": &stuck };
    let left = endings(&served).delete_one(by_name).await.unwrap();
    assert_eq!(left.deleted_count, 1, "it is tried again");
}

#[tokio::test]
async fn they_end_with_their_workspace() {
    let (served, workspace) = world().await;
    let other = served.workspace().await;
    other.fill("things", [other.mark(doc! { "_id": 1 })]).await;
    for workspace in [&workspace, &other] {
        let answer = create(&served, workspace).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    }
    served.plan.closed.lock().unwrap().push(workspace.id);
    swept(&served, &workspace, 0, &[]).await;
    assert_eq!(users(&other).await, 1);
}

#[tokio::test]
async fn a_workspace_has_a_hundred_at_once() {
    let (served, workspace) = world().await;
    let name = workspace.database.name();
    let later = DateTime::from_millis(DateTime::now().timestamp_millis() + 3_600_000);
    let live = (0..99)
        .map(|n| doc! { "_id": format!("live-{n}-{name}"), "database": name, "expiresAt": later });
    endings(&served).insert_many(live).await.unwrap();
    assert_eq!(create(&served, &workspace).await.status.as_u16(), 201);
    let answer = create(&served, &workspace).await;
    let told = (answer.status.as_u16(), answer.code());
    assert_eq!(
        told,
        (403, "QUOTA_EXCEEDED".to_owned()),
        "{}",
        answer.text()
    );
    let ours = doc! { "database": name };
    assert_eq!(endings(&served).count_documents(ours).await.unwrap(), 100);
    assert_eq!(users(&workspace).await, 1);
}
