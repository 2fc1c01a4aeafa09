//! A tenant's share of the pool: what is slow or too much in it is its own.

use std::time::Duration;

use postern_postgres::Bounds;

use crate::cases::seeded;
use crate::support::{Served, Workspace, bounds};

/// A view of the operator's that takes its time, once a row that is shown.
pub async fn view(served: &Served, workspace: &Workspace, takes: &str) {
    let sql = format!(
        "CREATE VIEW slow WITH (security_invoker = true) AS SELECT id, {takes}::text AS s FROM labels WHERE id = 1; \
         GRANT SELECT ON slow TO PUBLIC"
    );
    served.seed(workspace, &sql).await;
    let seen = async || {
        let answer = served.get(workspace, "rows/slow?id=eq.0").await;
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    };
    postern_harness::wait_for("the view to be seen", Duration::from_secs(20), seen)
        .await
        .unwrap();
}

/// A statement that takes too long is ended, and the neighbour's requests go on.
#[tokio::test(flavor = "multi_thread")]
async fn slow_statements_end_and_leave_room() {
    let bounds = Bounds {
        connections: 4,
        tenant_connections: 2,
        acquire: Duration::from_secs(20),
        statement: Duration::from_millis(700),
        ..bounds()
    };
    let served = Served::with(bounds, None, true).await;
    let (slow, quick) = (seeded(&served).await, seeded(&served).await);
    view(&served, &slow, "pg_sleep(30)").await;
    let slows = futures::future::join_all((0..6).map(|_| served.get(&slow, "rows/slow")));
    let quicks = async {
        for _ in 0..20 {
            served.get(&quick, "rows/labels").await.ok();
        }
    };
    let (slows, ()) = futures::join!(slows, quicks);
    for answer in slows {
        assert_eq!(answer.refused(), (504, "STATEMENT_TIMEOUT".into()));
    }
}

/// Two statements stand at a gate that is shut, three wait, and the next is refused at
/// once: all the same the neighbour is served, and its writes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_the_tenants_own() {
    let bounds = Bounds {
        connections: 4,
        tenant_connections: 2,
        tenant_waiting: 3,
        acquire: Duration::from_secs(60),
        statement: Duration::from_secs(60),
        ..bounds()
    };
    let served = Served::with(bounds, None, true).await;
    let (noisy, quiet) = (seeded(&served).await, seeded(&served).await);
    view(&served, &noisy, "pg_advisory_xact_lock_shared(4711)").await;
    let mut gate = served.admin.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(4711)")
        .execute(&mut *gate)
        .await
        .unwrap();
    let asks = (0..6).map(|_| Box::pin(served.get(&noisy, "rows/slow")));
    let (refused, _, held) = futures::future::select_all(asks).await;
    assert_eq!(refused.refused(), (503, "BACKEND_UNAVAILABLE".into()));
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let row = serde_json::json!({"id": 77, "name": "n"});
    let served_all_the_same = async {
        for _ in 0..20 {
            served.get(&quiet, "rows/labels").await.ok();
        }
        served.post(&quiet, "rows/labels", &row).await.ok();
    };
    // Whoever is held stays so, however often it is looked at.
    let held = futures::future::join_all(held);
    let held = match futures::future::select(held, Box::pin(served_all_the_same)).await {
        futures::future::Either::Left(_) => panic!("the gate is not shut"),
        futures::future::Either::Right(((), held)) => {
            gate.rollback().await.unwrap();
            held.await
        }
    };
    for answer in held {
        answer.ok();
    }
}
