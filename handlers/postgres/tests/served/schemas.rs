//! Changes of schemas are seen, without a request failing.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::cases::seeded;
use postern_served::Ask;

use crate::support::{Served, bounds, guarded};

const SOON: Duration = Duration::from_secs(1);

async fn follows(told: bool) {
    let served = Served::with(bounds(), None, told).await;
    let workspace = seeded(&served).await;
    served.get(&workspace, "rows/labels").await.ok();
    // A column, a table, a rename, a drop: each as soon as it is there.
    served
        .seed(
            &workspace,
            "ALTER TABLE labels ADD COLUMN colour text DEFAULT 'red'",
        )
        .await;
    let seen = served
        .get(&workspace, "rows/labels?select=colour&id=eq.1")
        .await;
    let seen = if seen.status == 200 {
        seen
    } else {
        tokio::time::sleep(SOON).await;
        served
            .get(&workspace, "rows/labels?select=colour&id=eq.1")
            .await
    };
    assert_eq!(seen.ok()["data"], json!([{"colour": "red"}]));
    tokio::time::sleep(SOON).await;
    served
        .seed(&workspace, "ALTER TABLE labels RENAME COLUMN colour TO hue")
        .await;
    tokio::time::sleep(SOON).await;
    // Every column is every column that there is now.
    let row = served.get(&workspace, "rows/labels/1").await.ok();
    assert_eq!(row["hue"], "red");
    served
        .seed(
            &workspace,
            &format!(
                "CREATE TABLE fresh (id int8 PRIMARY KEY, tenant_id text, workspace_id text);{}",
                guarded("fresh", &workspace)
            ),
        )
        .await;
    tokio::time::sleep(SOON).await;
    assert_eq!(
        served.get(&workspace, "rows/fresh").await.ok()["data"],
        json!([])
    );
    served.seed(&workspace, "DROP TABLE fresh").await;
    tokio::time::sleep(SOON).await;
    assert_eq!(served.get(&workspace, "rows/fresh").await.refused().0, 404);
    // A guard that goes is missed at once.
    served
        .seed(&workspace, "ALTER TABLE labels NO FORCE ROW LEVEL SECURITY")
        .await;
    tokio::time::sleep(SOON).await;
    assert_eq!(
        served.get(&workspace, "rows/labels").await.refused(),
        (403, "TABLE_NOT_PROTECTED".into())
    );
}

#[tokio::test]
async fn told_by_the_database() {
    follows(true).await;
}

#[tokio::test]
async fn found_by_looking() {
    follows(false).await;
}

/// Requests go on while columns come and go under them.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_for_it() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    let asking = async {
        for n in 0..150 {
            let answer = served.get(&workspace, "rows/labels?order=id").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let row = json!({"id": 1_000 + n, "name": "n"});
            let answer = served.post(&workspace, "rows/labels", &row).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    };
    let changing = async {
        for n in 0..12 {
            served
                .seed(
                    &workspace,
                    &format!("ALTER TABLE labels ADD COLUMN c{n} int"),
                )
                .await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            served
                .seed(&workspace, &format!("ALTER TABLE labels DROP COLUMN c{n}"))
                .await;
        }
    };
    futures::join!(asking, changing);
}

/// A read that is given up ends in PostgreSQL, too, and its connection serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_read_along() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    served
        .seed(
            &workspace,
            "CREATE VIEW slow WITH (security_invoker = true) AS SELECT l.id, pg_sleep(4)::text AS s FROM labels l; \
             GRANT SELECT ON slow TO PUBLIC",
        )
        .await;
    tokio::time::sleep(SOON).await;
    let running = "SELECT count(*)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%$schema%slow%' \
                   AND query NOT LIKE '%pg_stat_activity%'";
    let ask = Ask::new(&workspace, Method::GET, "rows/slow").send(&served);
    let left = tokio::time::timeout(Duration::from_millis(700), ask).await;
    assert!(left.is_err(), "it was not slow");
    let mut now = String::new();
    for _ in 0..30 {
        now = served.text(&workspace, running).await.unwrap();
        if now == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(now, "0");
    for _ in 0..20 {
        served.get(&workspace, "rows/labels").await.ok();
    }
}
