//! One effect a key, whoever is killed whenever.

use anyhow::Result;
use postern_harness::stack::Stack;
use postern_suites::points::killed_at;
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{notes, rows, workspace};

/// Where an insert can be held.
const POINTS: [&str; 5] = [
    "before-record",
    "after-effect",
    "before-commit",
    "after-commit",
    "after-claim",
];

/// Kills the handlers while an insert stands at a point, and repeats it until it is
/// answered: then there is one row.
#[tokio::test]
async fn handlers_killed_at_every_point() -> Result<()> {
    let mut stack = Stack::start_with(|plan| {
        plan.postgres = true;
        // They are started again on a machine that is busy.
        plan.handlers = json!({"database": {"acquireMs": 20_000}});
    })
    .await?;
    let (writers, path, schema) = {
        let acme = stack.with_tenant("acme").await?;
        let dev = workspace(&acme).await?;
        notes(&acme, &dev).await?;
        let mut writers = Vec::new();
        for point in POINTS {
            // Each has its own rate, which the repeated insert may use up.
            writers.push((point, acme.member("tenant_admin").await?));
        }
        (writers, rows(&dev, "notes"), super::data::schema(&dev))
    };
    for (point, writer) in &writers {
        killed_at(&mut stack, point, || {
            writer.post(&path, &json!({"text": point})).key(point)
        })
        .await?;
        let mut db = postern_suites::database::connect(&stack).await?;
        let count = format!("SELECT count(*) FROM {schema}.notes WHERE text = $1");
        let effects: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(point)
            .fetch_one(&mut db)
            .await?;
        assert_eq!(effects, 1, "{point}");
    }
    Ok(())
}
