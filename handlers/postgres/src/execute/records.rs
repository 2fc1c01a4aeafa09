//! The idempotency record in the workspace's cluster: written by the data login itself,
//! in a schema that no workspace's role can reach. The same statements as the control
//! plane's records, on a driver that pipelines.

use std::time::Duration;

use postern_common::idempotency::{Keyed, Sealed, Standing};
use postern_contract::TenantId;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

/// How many expired records one statement of the sweep removes.
const SWEEP_BATCH: i64 = 500;

/// A duplicate is an error, which stops whatever is pipelined behind it.
pub(super) async fn insert(client: &Client, keyed: &Keyed) -> Result<(), Error> {
    let (scope, fingerprint) = (keyed.scope.as_slice(), keyed.fingerprint.as_slice());
    let values: [(&(dyn ToSql + Sync), Type); 3] = [
        (&scope, Type::BYTEA),
        (&keyed.tenant, Type::TEXT),
        (&fingerprint, Type::BYTEA),
    ];
    let statement = "INSERT INTO postern_data.record (scope, tenant, fingerprint, expires_at)
         VALUES ($1, $2, $3, now() + interval '24 hours')";
    client.execute_typed(statement, &values).await.map(drop)
}

/// Writes the outcome: whole while the tenant's quota allows it, else without its body.
/// Whether it is whole.
pub(super) async fn finish(
    client: &Client,
    keyed: &Keyed,
    sealed: &Sealed,
    quota: i64,
) -> Result<bool, Error> {
    let scope = keyed.scope.as_slice();
    let bytes = i64::try_from(sealed.whole.len()).unwrap_or(i64::MAX);
    let values: [(&(dyn ToSql + Sync), Type); 6] = [
        (&scope, Type::BYTEA),
        (&keyed.tenant, Type::TEXT),
        (&sealed.whole, Type::BYTEA),
        (&sealed.without_body, Type::BYTEA),
        (&bytes, Type::INT8),
        (&quota, Type::INT8),
    ];
    let statement = "WITH fits AS (
            INSERT INTO postern_data.kept AS k (tenant, bytes) SELECT $2, $5 WHERE $5 <= $6
            ON CONFLICT (tenant) DO UPDATE SET bytes = k.bytes + excluded.bytes
            WHERE k.bytes + excluded.bytes <= $6
            RETURNING true)
         UPDATE postern_data.record
         SET outcome = CASE WHEN EXISTS (SELECT FROM fits) THEN $3 ELSE $4 END,
             bytes = CASE WHEN EXISTS (SELECT FROM fits) THEN $5 ELSE 0 END
         WHERE scope = $1
         RETURNING EXISTS (SELECT FROM fits)";
    client.query_typed_one(statement, &values).await?.try_get(0)
}

/// The record of a key. An expired one is removed, so that the next attempt finds room.
pub(super) async fn find(client: &Client, keyed: &Keyed) -> Result<Option<Standing>, Error> {
    let scope = keyed.scope.as_slice();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&scope, Type::BYTEA)];
    let statement = "SELECT fingerprint, outcome, extract(epoch FROM expires_at - now())::float8
         FROM postern_data.record WHERE scope = $1";
    let Some(row) = client.query_typed_opt(statement, &values).await? else {
        return Ok(None);
    };
    let remaining: f64 = row.try_get(2)?;
    let standing = Standing {
        fingerprint: row.try_get(0)?,
        outcome: row.try_get(1)?,
        remaining: Duration::try_from_secs_f64(remaining).unwrap_or_default(),
    };
    if standing.remaining.is_zero() {
        let statement = "WITH gone AS (
                DELETE FROM postern_data.record WHERE scope = $1 AND expires_at <= now() RETURNING tenant, bytes)
             UPDATE postern_data.kept k SET bytes = greatest(0, k.bytes - gone.bytes)
             FROM gone WHERE k.tenant = gone.tenant";
        client.execute_typed(statement, &values).await?;
    }
    Ok(Some(standing))
}

/// Removes expired records, a bounded number, and gives the number. One sweeper at a
/// time: two could lock the quotas' rows in opposite order.
pub(crate) async fn sweep(client: &Client) -> Result<bool, Error> {
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&SWEEP_BATCH, Type::INT8)];
    let statement = "WITH alone AS MATERIALIZED (
            SELECT pg_try_advisory_xact_lock(hashtextextended('postern_data.sweep', 0)) AS got),
         gone AS (
            DELETE FROM postern_data.record WHERE scope IN (
                SELECT scope FROM postern_data.record
                WHERE expires_at <= now() AND (SELECT got FROM alone)
                ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING tenant, bytes),
         sums AS (SELECT tenant, sum(bytes)::bigint AS bytes FROM gone GROUP BY tenant),
         less AS (
            UPDATE postern_data.kept k SET bytes = greatest(0, k.bytes - sums.bytes)
            FROM sums WHERE k.tenant = sums.tenant)
         SELECT count(*) FROM gone";
    let swept: i64 = client
        .query_typed_one(statement, &values)
        .await?
        .try_get(0)?;
    Ok(swept == SWEEP_BATCH)
}

/// How many tables a tenant has, in all its workspaces of this cluster. Two who count to
/// make one more wait for each other.
pub(super) async fn tables_of(client: &Client, tenant: TenantId) -> Result<i64, Error> {
    let tenant = tenant.to_string();
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&tenant, Type::TEXT)];
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended('postern_data.tables ' || $1, 0))";
    client.execute_typed(lock, &values).await?;
    let statement = "SELECT count(*) FROM postern_data.workspace w
         JOIN pg_namespace n ON n.nspname = w.schema
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         WHERE w.tenant = $1";
    client.query_typed_one(statement, &values).await?.try_get(0)
}
