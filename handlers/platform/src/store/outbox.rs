//! Steps that follow a committed change, in other systems.
//!
//! An entry is written with the change that asks for it. Any handler that has the
//! capability's backend takes it, keeps its row locked while it works (so a crash
//! frees it at once), and marks it done together with what it means for the workspace.

use std::time::Duration;

use sqlx::{FromRow, PgConnection, PgPool, PgTransaction};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub(crate) enum Step {
    /// Make what the capability needs.
    Provision,
    /// Destroy it.
    Purge,
}

/// An entry that is due, with its workspace.
#[derive(Debug, FromRow)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) step: Step,
    pub(crate) capability: String,
    pub(crate) attempts: i32,
    pub(crate) workspace_id: String,
    pub(crate) tenant_id: String,
    pub(crate) deactivated: bool,
}

/// Asks for capabilities to be provisioned.
pub(crate) async fn provision(
    db: &mut PgConnection,
    workspace: &str,
    capabilities: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO postern.outbox (workspace_id, capability, step) SELECT $1, unnest($2::text[]), 'provision'",
    )
    .bind(workspace)
    .bind(capabilities)
    .execute(db)
    .await?;
    Ok(())
}

/// Takes the next due entry of these capabilities; others skip it while the
/// transaction lasts.
pub(crate) async fn take(
    pool: &PgPool,
    capabilities: &[String],
) -> Result<Option<(PgTransaction<'static>, Entry)>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let entry = sqlx::query_as(
        "SELECT o.id, o.step, o.capability, o.attempts, o.workspace_id, w.tenant_id,
                w.status = 'deactivated' AS deactivated
         FROM postern.outbox o JOIN postern.workspace w ON w.id = o.workspace_id
         WHERE o.done_at IS NULL AND o.due_at <= now() AND o.capability = ANY ($1)
         ORDER BY o.due_at, o.id LIMIT 1 FOR UPDATE OF o SKIP LOCKED",
    )
    .bind(capabilities)
    .fetch_optional(&mut *transaction)
    .await?;
    Ok(entry.map(|entry| (transaction, entry)))
}

/// There is nothing to do any more: the workspace ended before it was provisioned.
pub(crate) async fn skipped(db: &mut PgConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE postern.outbox SET done_at = now() WHERE id = $1")
        .bind(entry.id)
        .execute(db)
        .await?;
    Ok(())
}

/// A capability is provisioned. The workspace turns active when every capability
/// that has a backend here is; one that ended meanwhile is purged like the others.
pub(crate) async fn provisioned(
    db: &mut PgConnection,
    entry: &Entry,
    backed: &[String],
) -> Result<(), sqlx::Error> {
    skipped(db, entry).await?;
    sqlx::query(
        "WITH changed AS (
            UPDATE postern.workspace
            SET provisioned = array_append(array_remove(provisioned, $2), $2),
                version = version + 1, updated_at = now(),
                status = CASE WHEN status = 'provisioning' AND NOT EXISTS (
                    SELECT FROM unnest(capabilities) c
                    WHERE c = ANY ($3) AND c <> $2 AND NOT c = ANY (provisioned)) THEN 'active' ELSE status END
            WHERE id = $1
            RETURNING id, status, purge_after)
         INSERT INTO postern.outbox (workspace_id, capability, step, due_at)
         SELECT id, $2, 'purge', purge_after FROM changed WHERE status = 'deactivated'",
    )
    .bind(&entry.workspace_id)
    .bind(&entry.capability)
    .bind(backed)
    .execute(db)
    .await?;
    Ok(())
}

/// What a capability had is destroyed.
pub(crate) async fn purged(db: &mut PgConnection, entry: &Entry) -> Result<(), sqlx::Error> {
    skipped(db, entry).await?;
    sqlx::query(
        "UPDATE postern.workspace
         SET provisioned = array_remove(provisioned, $2), version = version + 1, updated_at = now() WHERE id = $1",
    )
    .bind(&entry.workspace_id)
    .bind(&entry.capability)
    .execute(db)
    .await?;
    Ok(())
}

/// The step failed: again after `pause`.
pub(crate) async fn failed(
    db: &mut PgConnection,
    entry: &Entry,
    pause: Duration,
    error: &str,
) -> Result<(), sqlx::Error> {
    let shown: String = error.chars().filter(|c| *c != '\0').take(500).collect();
    sqlx::query(
        "UPDATE postern.outbox
         SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2), last_error = $3 WHERE id = $1",
    )
    .bind(entry.id)
    .bind(pause.as_secs_f64())
    .bind(shown)
    .execute(db)
    .await?;
    Ok(())
}

/// How many entries of these capabilities are overdue, for the metrics.
pub(crate) async fn overdue(pool: &PgPool, capabilities: &[String]) -> Result<i64, sqlx::Error> {
    let (count,): (i64,) = sqlx::query_as(
        "SELECT count(*) FROM postern.outbox
         WHERE done_at IS NULL AND due_at <= now() AND capability = ANY ($1)",
    )
    .bind(capabilities)
    .fetch_one(pool)
    .await?;
    Ok(count)
}

/// Forgets what was done a week ago, a bounded number at a time.
pub(crate) async fn forget(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM postern.outbox WHERE id IN (
            SELECT id FROM postern.outbox WHERE done_at < now() - interval '7 days' LIMIT 1000)",
    )
    .execute(pool)
    .await?;
    Ok(())
}
