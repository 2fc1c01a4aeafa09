//! Revoked tokens, in the order in which they were committed.

use postern_common::time::Time;
use sqlx::{FromRow, PgPool};

/// One that was committed.
#[derive(Debug, FromRow)]
pub(crate) struct Revocation {
    pub(crate) revision: i64,
    pub(crate) issuer: String,
    /// `jti`, `sid` or `sub`.
    pub(crate) claim: String,
    pub(crate) value: String,
    pub(crate) revoked_at: Time,
    pub(crate) expires_at: Time,
}

/// Inserts one, or renews it; in a statement of its own, so that nobody waits for long
/// behind the revision's row. The database's clock says when.
pub(crate) async fn insert(
    pool: &PgPool,
    issuer: &str,
    claim: &str,
    value: &str,
    expires_at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH next AS (
             UPDATE postern.directory_revision SET revocation = revocation + 1 RETURNING revocation
         ), told AS (
             SELECT pg_notify('postern_directory', '')
         )
         INSERT INTO postern.revocation AS r (revision, issuer, claim, value, revoked_at, expires_at)
         SELECT next.revocation, $1, $2, $3, now(), $4 FROM next, told
         ON CONFLICT ON CONSTRAINT revocation_once DO UPDATE SET
             revision = excluded.revision,
             revoked_at = greatest(r.revoked_at, excluded.revoked_at),
             expires_at = greatest(r.expires_at, excluded.expires_at)",
    )
    .bind(issuer)
    .bind(claim)
    .bind(value)
    .bind(expires_at)
    .execute(pool)
    .await?;
    Ok(())
}

/// Those committed after a revision that still count, oldest first, `limit` at most.
pub(crate) async fn after(
    pool: &PgPool,
    revision: i64,
    limit: i64,
) -> Result<Vec<Revocation>, sqlx::Error> {
    sqlx::query_as(
        "SELECT revision, issuer, claim, value, revoked_at, expires_at FROM postern.revocation
         WHERE revision > $1 AND expires_at > now() ORDER BY revision LIMIT $2",
    )
    .bind(revision)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Forgets those that mean no valid token any more, and an hour: clocks differ.
pub(crate) async fn forget(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM postern.revocation WHERE revision IN (
            SELECT revision FROM postern.revocation
            WHERE expires_at < now() - interval '1 hour' ORDER BY expires_at LIMIT 5000)",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
