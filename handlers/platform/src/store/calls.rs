//! Calls a month: what runners let pass, added up.

use sqlx::{FromRow, PgPool};

/// Calls of one tenant in one month.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    pub(crate) tenant: String,
    /// Of the issuer that says so; empty: a common one.
    pub(crate) slug: String,
    /// An epoch second of the month.
    pub(crate) at: i64,
    pub(crate) calls: i64,
}

/// How a tenant stands in the month of the row it is told for.
#[derive(Debug, FromRow)]
pub(crate) struct Used {
    pub(crate) tenant: String,
    pub(crate) slug: String,
    pub(crate) at: i64,
    pub(crate) used: i64,
    /// `None`: no limit.
    pub(crate) limit: Option<i64>,
}

/// Adds a report, once however often it comes, and tells how its tenants then stand.
/// Tenants that do not exist are left out, and those that another tenant's issuer names.
pub(crate) async fn report(
    pool: &PgPool,
    reporter: &[u8],
    sequence: i64,
    calls: &[Calls],
) -> Result<Vec<Used>, sqlx::Error> {
    let tenants: Vec<_> = calls.iter().map(|row| row.tenant.as_str()).collect();
    let slugs: Vec<_> = calls.iter().map(|row| row.slug.as_str()).collect();
    let times: Vec<_> = calls.iter().map(|row| row.at).collect();
    let counts: Vec<_> = calls.iter().map(|row| row.calls).collect();
    let mut db = pool.begin().await?;
    let first = sqlx::query(
        "INSERT INTO postern.calls_report AS r (reporter, sequence) VALUES ($1, $2)
         ON CONFLICT (reporter) DO UPDATE SET sequence = excluded.sequence, at = now()
         WHERE r.sequence < excluded.sequence",
    )
    .bind(reporter)
    .bind(sequence)
    .execute(&mut *db)
    .await?;
    if first.rows_affected() == 1 {
        // In one order, so that two reports never wait for each other.
        sqlx::query(
            "INSERT INTO postern.usage AS u (tenant_id, quota, period, used)
             SELECT t.id, 'callsPerMonth', date_trunc('month', to_timestamp(c.at) AT TIME ZONE 'UTC')::date,
                    sum(c.calls)::bigint
             FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) AS c (tenant, at, calls, slug)
             JOIN postern.tenant t ON t.id = c.tenant AND c.slug IN ('', t.slug)
             WHERE c.calls > 0 GROUP BY 1, 3 ORDER BY 1, 3
             ON CONFLICT (tenant_id, quota, period) DO UPDATE SET used = u.used + excluded.used",
        )
        .bind(&tenants)
        .bind(&times)
        .bind(&counts)
        .bind(&slugs)
        .execute(&mut *db)
        .await?;
    }
    let used = sqlx::query_as(
        "SELECT t.id AS tenant, c.slug, c.at, coalesce(u.used, 0) AS used, p.calls_per_month AS limit
         FROM unnest($1::text[], $2::bigint[], $3::text[]) AS c (tenant, at, slug)
         JOIN postern.tenant t ON t.id = c.tenant AND c.slug IN ('', t.slug) JOIN postern.plan p ON p.id = t.plan
         LEFT JOIN postern.usage u ON u.tenant_id = t.id AND u.quota = 'callsPerMonth'
              AND u.period = date_trunc('month', to_timestamp(c.at) AT TIME ZONE 'UTC')::date",
    )
    .bind(&tenants)
    .bind(&times)
    .bind(&slugs)
    .fetch_all(&mut *db)
    .await?;
    db.commit().await?;
    Ok(used)
}

/// Forgets processes that have long ended.
pub(crate) async fn forget(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM postern.calls_report WHERE at < now() - interval '1 day'")
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}
