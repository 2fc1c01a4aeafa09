//! The records' statements.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use postern_claims::{Body, Outcome};
use postern_contract::header::IDEMPOTENCY_BODY;
use sqlx::{FromRow, PgConnection, PgPool};

use super::{Keyed, Sealed};
use crate::reply::KEPT_HEADERS;
use crate::{Failure, Reply};

/// How many expired records one statement of the sweep removes.
pub(super) const SWEEP_BATCH: u64 = 500;

/// Brings the records' schema up to date, in the database that holds the effects.
///
/// # Errors
/// When the database refuses or a migration was changed after it ran.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    let mut migrator = sqlx::migrate!();
    migrator.create_schema("postern_idempotency");
    migrator.dangerous_set_table_name("postern_idempotency.migration");
    migrator.run(pool).await
}

/// A record that stands.
pub(super) struct Found {
    pub(super) fingerprint: [u8; 32],
    pub(super) outcome: Option<Vec<u8>>,
    pub(super) expired: bool,
    pub(super) remaining: Duration,
}

/// A duplicate is an error, which stops whatever is pipelined behind it.
pub(super) async fn insert(
    transaction: &mut PgConnection,
    keyed: &Keyed,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO postern_idempotency.record (scope, tenant, fingerprint, expires_at)
         VALUES ($1, $2, $3, now() + interval '24 hours')",
    )
    .bind(keyed.scope.as_slice())
    .bind(&keyed.tenant)
    .bind(keyed.fingerprint.as_slice())
    .execute(transaction)
    .await?;
    Ok(())
}

/// Locks a record that has no outcome yet, at once or with SQLSTATE 55P03; `false`: it has
/// one by now, or is gone.
pub(super) async fn lock_unfinished(
    transaction: &mut PgConnection,
    scope: &[u8; 32],
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query(
        "SELECT FROM postern_idempotency.record WHERE scope = $1 AND outcome IS NULL FOR UPDATE NOWAIT",
    )
    .bind(scope.as_slice())
    .fetch_optional(transaction)
    .await?;
    Ok(found.is_some())
}

/// Removes a record that came to nothing.
pub(super) async fn remove(
    transaction: &mut PgConnection,
    scope: &[u8; 32],
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM postern_idempotency.record WHERE scope = $1 AND outcome IS NULL")
        .bind(scope.as_slice())
        .execute(transaction)
        .await?;
    Ok(())
}

/// Writes the outcome: whole while the tenant's quota allows it, else without its
/// body. The quota's row is the last lock that the transaction takes.
pub(super) async fn finish(
    transaction: &mut PgConnection,
    keyed: &Keyed,
    sealed: Sealed,
    quota: i64,
) -> Result<Vec<u8>, Failure> {
    let Sealed {
        whole,
        without_body,
    } = sealed;
    let written: (bool,) = sqlx::query_as(
        "WITH fits AS (
            INSERT INTO postern_idempotency.kept AS k (tenant, bytes) SELECT $2, $5 WHERE $5 <= $6
            ON CONFLICT (tenant) DO UPDATE SET bytes = k.bytes + excluded.bytes
            WHERE k.bytes + excluded.bytes <= $6
            RETURNING true)
         UPDATE postern_idempotency.record
         SET outcome = CASE WHEN EXISTS (SELECT FROM fits) THEN $3 ELSE $4 END,
             bytes = CASE WHEN EXISTS (SELECT FROM fits) THEN $5 ELSE 0 END
         WHERE scope = $1
         RETURNING EXISTS (SELECT FROM fits)",
    )
    .bind(keyed.scope.as_slice())
    .bind(&keyed.tenant)
    .bind(&whole)
    .bind(&without_body)
    .bind(i64::try_from(whole.len()).unwrap_or(i64::MAX))
    .bind(quota)
    .fetch_one(transaction)
    .await?;
    Ok(if written.0 { whole } else { without_body })
}

pub(super) async fn find(pool: &PgPool, scope: &[u8; 32]) -> Result<Option<Found>, Failure> {
    #[derive(FromRow)]
    struct Row {
        fingerprint: Vec<u8>,
        outcome: Option<Vec<u8>>,
        remaining: f64,
    }
    let row: Option<Row> = sqlx::query_as(
        "SELECT fingerprint, outcome, extract(epoch FROM expires_at - now())::float8 AS remaining
         FROM postern_idempotency.record WHERE scope = $1",
    )
    .bind(scope.as_slice())
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let fingerprint = row
        .fingerprint
        .try_into()
        .map_err(|_| Failure::internal("a fingerprint is not of 32 bytes"))?;
    Ok(Some(Found {
        fingerprint,
        outcome: row.outcome,
        expired: row.remaining <= 0.0,
        remaining: Duration::try_from_secs_f64(row.remaining).unwrap_or_default(),
    }))
}

/// What is kept of an answer.
pub(super) fn outcome(reply: &Reply) -> Outcome {
    let kept = KEPT_HEADERS.iter().filter_map(|name| {
        let value = reply.headers.get(name)?;
        Some((name.as_str().to_owned(), value.as_bytes().to_vec()))
    });
    Outcome::new(reply.status.as_u16(), kept.collect(), reply.body.to_vec())
}

/// The answer of a kept outcome.
pub(super) fn replay(outcome: Outcome) -> Reply {
    let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = Reply::empty(status);
    reply.replayed = true;
    for (name, value) in outcome.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            reply.headers.insert(name, value);
        }
    }
    match outcome.body {
        Body::Whole(body) => reply.body = Bytes::from(body),
        Body::Omitted => {
            reply.headers.remove(CONTENT_TYPE);
            reply
                .headers
                .insert(IDEMPOTENCY_BODY, HeaderValue::from_static("omitted"));
        }
    }
    reply
}

pub(super) async fn remove_expired(pool: &PgPool, scope: &[u8; 32]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH gone AS (
            DELETE FROM postern_idempotency.record WHERE scope = $1 AND expires_at <= now() RETURNING tenant, bytes)
         UPDATE postern_idempotency.kept k SET bytes = greatest(0, k.bytes - gone.bytes)
         FROM gone WHERE k.tenant = gone.tenant",
    )
    .bind(scope.as_slice())
    .execute(pool)
    .await?;
    Ok(())
}

/// Removes expired records, [`SWEEP_BATCH`] at most, and gives the number. One
/// sweeper at a time: two could lock the quotas' rows in opposite order.
pub(super) async fn sweep(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let (swept,): (i64,) = sqlx::query_as(
        "WITH alone AS MATERIALIZED (
            SELECT pg_try_advisory_xact_lock(hashtextextended('postern_idempotency.sweep', 0)) AS got),
         gone AS (
            DELETE FROM postern_idempotency.record WHERE scope IN (
                SELECT scope FROM postern_idempotency.record
                WHERE expires_at <= now() AND (SELECT got FROM alone)
                ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING tenant, bytes),
         sums AS (SELECT tenant, sum(bytes)::bigint AS bytes FROM gone GROUP BY tenant),
         less AS (
            UPDATE postern_idempotency.kept k SET bytes = greatest(0, k.bytes - sums.bytes)
            FROM sums WHERE k.tenant = sums.tenant)
         SELECT count(*) FROM gone",
    )
    .bind(i64::try_from(SWEEP_BATCH).unwrap_or(i64::MAX))
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(swept).unwrap_or_default())
}
