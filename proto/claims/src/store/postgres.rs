//! Claims in `PostgreSQL`, an unlogged table.

use std::time::Duration;

use postern_postgres_url::options;
use sqlx::FromRow as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::types::PgInterval;
use sqlx::postgres::{PgArguments, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::query::Query;

use super::{Claim, ClaimError, Holder, LEASE, SCHEMA, UrlError};

/// How many lapsed claims one sweep removes at most.
const SWEEP_BATCH: i64 = 1_000;

#[derive(Debug)]
pub(super) struct Postgres {
    pool: PgPool,
}

/// A claim that was there first, or ours.
type Row = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

impl Postgres {
    pub(super) fn connect(
        url: &str,
        connections: u32,
        patience: Duration,
    ) -> Result<Self, UrlError> {
        let options = options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(patience)
            // A look at a connection before its use is a round trip; a broken one is
            // replaced when it fails.
            .test_before_acquire(false);
        Ok(Self::over(pool.connect_lazy_with(
            options.application_name("postern-claims"),
        )))
    }

    pub(super) fn over(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(super) async fn migrate(&self) -> Result<(), sqlx::Error> {
        let mut alone = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('postern_claims.schema', 0))")
            .execute(&mut *alone)
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *alone).await?;
        alone.commit().await
    }

    pub(super) async fn claim(
        &self,
        scope: &[u8; 32],
        holder: Holder,
    ) -> Result<Claim, ClaimError> {
        // Where nothing could be inserted and the snapshot shows no row, somebody
        // inserted it after the snapshot: it is running. A statement that is repeated
        // because its answer was lost finds the claim of its own holder.
        let statement = || {
            sqlx::query(
                "WITH mine AS (
                    INSERT INTO postern_claims.claim AS c (scope, holder, lapses_at)
                    VALUES ($1, $2, now() + $3)
                    ON CONFLICT (scope) DO UPDATE
                    SET holder = excluded.holder, lapses_at = excluded.lapses_at,
                        fingerprint = NULL, outcome = NULL
                    WHERE c.lapses_at <= now()
                    RETURNING holder)
                 SELECT holder, NULL::bytea, NULL::bytea FROM mine
                 UNION ALL
                 SELECT holder, fingerprint, outcome FROM postern_claims.claim
                 WHERE scope = $1 AND NOT EXISTS (SELECT FROM mine)",
            )
            .bind(scope.as_slice())
            .bind(holder.0.as_slice())
            .bind(interval(LEASE))
        };
        let row = self.ask(statement).await?;
        let row = row.map(|row| Row::from_row(&row)).transpose()?;
        Ok(match row {
            Some((_, Some(fingerprint), outcome)) => match fingerprint.try_into() {
                Ok(fingerprint) => Claim::Done {
                    fingerprint,
                    outcome,
                },
                Err(_) => Claim::Running,
            },
            Some((of, None, _)) if of == holder.0 => Claim::New(holder),
            Some((_, None, _)) | None => Claim::Running,
        })
    }

    pub(super) async fn extend(
        &self,
        scope: &[u8; 32],
        holder: Holder,
        lease: Duration,
    ) -> Result<bool, ClaimError> {
        let held = self.ask(|| {
            sqlx::query(
                "UPDATE postern_claims.claim SET lapses_at = now() + $3
                 WHERE scope = $1 AND holder = $2 AND fingerprint IS NULL RETURNING true",
            )
            .bind(scope.as_slice())
            .bind(holder.0.as_slice())
            .bind(interval(lease))
        });
        Ok(held.await?.is_some())
    }

    pub(super) async fn done(
        &self,
        scope: &[u8; 32],
        fingerprint: &[u8; 32],
        outcome: Option<&[u8]>,
        remaining: Duration,
    ) -> Result<(), ClaimError> {
        let done = self.ask(|| {
            sqlx::query(
                "INSERT INTO postern_claims.claim (scope, holder, lapses_at, fingerprint, outcome)
                 VALUES ($1, $2, now() + $3, $4, $5)
                 ON CONFLICT (scope) DO UPDATE
                 SET lapses_at = excluded.lapses_at, fingerprint = excluded.fingerprint, outcome = excluded.outcome",
            )
            .bind(scope.as_slice())
            .bind([0_u8; 16].to_vec())
            .bind(interval(remaining))
            .bind(fingerprint.as_slice())
            .bind(outcome)
        });
        done.await?;
        Ok(())
    }

    pub(super) async fn release(&self, scope: &[u8; 32], holder: Holder) -> Result<(), ClaimError> {
        let released = self.ask(|| {
            sqlx::query("DELETE FROM postern_claims.claim WHERE scope = $1 AND holder = $2 AND fingerprint IS NULL")
                .bind(scope.as_slice())
                .bind(holder.0.as_slice())
        });
        released.await?;
        Ok(())
    }

    pub(super) async fn sweep(&self) -> Result<u64, ClaimError> {
        let swept = self.ask(|| {
            sqlx::query(
                "WITH gone AS (
                    DELETE FROM postern_claims.claim WHERE scope IN (
                        SELECT scope FROM postern_claims.claim WHERE lapses_at <= now()
                        ORDER BY lapses_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                    RETURNING true)
                 SELECT count(*) FROM gone",
            )
            .bind(SWEEP_BATCH)
        });
        let count: Option<(i64,)> = swept
            .await?
            .map(|row| sqlx::FromRow::from_row(&row))
            .transpose()?;
        Ok(count.map_or(0, |(count,)| count.unsigned_abs()))
    }

    /// Runs a statement that may be run twice, and gives its row. After a restart every
    /// pooled connection is broken, so it goes on to the next as often as there are some.
    async fn ask<'q>(
        &self,
        statement: impl Fn() -> Query<'q, sqlx::Postgres, PgArguments>,
    ) -> Result<Option<PgRow>, ClaimError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut lent = Lent(Some(self.pool.acquire().await?));
            match statement().fetch_optional(lent.connection()?).await {
                Ok(row) => {
                    lent.give_back();
                    return Ok(row);
                }
                Err(error) if broken(&error) && tries <= self.pool.size() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether the connection is to blame, and another one may do better.
fn broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // 57P01: what a server says to its connections when it is shut down.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code == "57P01"),
        _ => false,
    }
}

/// A connection that goes back to its pool only when its statement was answered. Given
/// up in the middle, the pool would wait for the rest of the answer, which may never
/// come, and keep its place until the kernel gives up.
struct Lent(Option<PoolConnection<sqlx::Postgres>>);

impl Lent {
    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval {
        months: 0,
        days: 0,
        microseconds,
    }
}
