//! Changes of schemas are seen, without a request failing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use http::Method;
use postern_served::{Answer, Ask};
use serde_json::json;

use crate::cases::seeded;
use crate::support::{Served, Workspace, bounds, guarded};

/// How soon a change is to be seen. A loaded machine may miss it now and then.
const SOON: Duration = Duration::from_secs(1);

/// Waits until a read or a call is answered so, and says how long that took.
async fn until(
    served: &Served,
    workspace: &Workspace,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> Duration {
    let began = Instant::now();
    let probe = async || {
        let answer = match path.starts_with("rpc/") {
            true => served.post(workspace, path, &json!({})).await,
            false => served.get(workspace, path).await,
        };
        ensure!(wanted(&answer), "{answer:?}");
        Ok(())
    };
    let seen = postern_harness::wait_for(path, Duration::from_secs(20), probe);
    seen.await.unwrap();
    began.elapsed()
}

async fn follows(told: bool) {
    let served = Served::with(bounds(), None, told).await;
    let workspace = seeded(&served).await;
    served.get(&workspace, "rows/labels").await.ok();
    let fresh = format!(
        "CREATE TABLE fresh (id int8 PRIMARY KEY, tenant_id text, workspace_id text);{}",
        guarded("fresh", &workspace)
    );
    type Wanted = fn(&Answer) -> bool;
    let has = |answer: &Answer| answer.status == 200;
    let opened =
        |answer: &Answer| answer.status == 403 && answer.refused().1 == "TABLE_NOT_PROTECTED";
    let steps: [(&str, &str, Wanted); 9] = [
        (
            "ALTER TABLE labels ADD COLUMN colour text DEFAULT 'red'",
            "rows/labels?select=colour&id=eq.1",
            |answer| answer.status == 200 && answer.json()["data"] == json!([{"colour": "red"}]),
        ),
        // Every column is every column that there is now.
        (
            "ALTER TABLE labels RENAME COLUMN colour TO hue",
            "rows/labels/1",
            |answer| answer.status == 200 && answer.json()["hue"] == "red",
        ),
        (&fresh, "rows/fresh", has),
        ("DROP TABLE fresh", "rows/fresh", |answer| {
            answer.status == 404
        }),
        // A policy that opens a table is seen, and that it is gone.
        (
            "CREATE POLICY everybody ON labels USING (true)",
            "rows/labels",
            opened,
        ),
        ("DROP POLICY everybody ON labels", "rows/labels", has),
        // What a role may call is in the catalog, too.
        (
            "CREATE FUNCTION closed_yet() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'; \
             REVOKE ALL ON FUNCTION closed_yet() FROM PUBLIC",
            "rpc/closed_yet",
            |answer| answer.status == 404,
        ),
        (
            "GRANT EXECUTE ON FUNCTION closed_yet() TO PUBLIC",
            "rpc/closed_yet",
            has,
        ),
        // A guard that goes is missed.
        (
            "ALTER TABLE labels NO FORCE ROW LEVEL SECURITY",
            "rows/labels",
            opened,
        ),
    ];
    let mut took = Vec::new();
    for (change, path, wanted) in steps {
        served.seed(&workspace, change).await;
        took.push(until(&served, &workspace, path, wanted).await);
    }
    took.sort();
    assert!(took[4] <= SOON, "{took:?}");
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
    let running = "SELECT count(*)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%$schema%slow%' \
                   AND query NOT LIKE '%pg_stat_activity%'";
    let runs = async |wanted: &str| {
        let probe = async || {
            let now = served.text(&workspace, running).await;
            ensure!(now.as_deref() == Some(wanted), "{now:?} run");
            Ok(())
        };
        // It would take longer by itself.
        let waited = postern_harness::wait_for("the read", Duration::from_secs(3), probe);
        waited.await.unwrap();
    };
    // The view is seen by a read that finds no row.
    until(&served, &workspace, "rows/slow?id=eq.0", |answer| {
        answer.status == 200
    })
    .await;
    tokio::select! {
        answer = Ask::new(&workspace, Method::GET, "rows/slow").send(&served) => panic!("{answer:?}"),
        () = runs("1") => {}
    }
    runs("0").await;
    for _ in 0..20 {
        served.get(&workspace, "rows/labels").await.ok();
    }
}
