//! The claim store in `PostgreSQL`: one round trip a claim.

use std::time::Duration;

use sqlx::postgres::{PgPool, types::PgInterval};

/// What makes the store's schema; run by the control plane's migrations.
pub const SCHEMA: &str = include_str!("../schema.sql");

/// How long a claim runs before it lapses, unless its handler extends it.
pub const LEASE: Duration = Duration::from_secs(5);

/// How many lapsed claims one [sweep](ClaimStore::sweep) removes at most.
const SWEEP_BATCH: i64 = 1_000;

/// Who holds a claim: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

impl Holder {
    /// A holder that nobody else is.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn random() -> Result<Self, sqlx::Error> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| sqlx::Error::Io(std::io::Error::other("no randomness from the system")))?;
        Ok(Self(bytes))
    }
}

/// What became of an attempt to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Claimed for [`LEASE`]: go on.
    New(Holder),
    /// Somebody else's, whatever the payload.
    Running,
    /// Finished.
    Done {
        /// Of the request that finished it.
        fingerprint: [u8; 32],
        /// Sealed; none where it was too large to copy: let the request go on, the record has it.
        outcome: Option<Vec<u8>>,
    },
}

/// The claims of one deployment.
#[derive(Clone, Debug)]
pub struct ClaimStore {
    pool: PgPool,
}

/// Whether the claim is ours; else the fingerprint and outcome of whoever was first.
type Row = (bool, Option<Vec<u8>>, Option<Vec<u8>>);

impl ClaimStore {
    /// A store over this pool, whose acquire time-out bounds every call's wait for a connection.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Claims a scope, or tells who was there first.
    ///
    /// # Errors
    /// When the store does not answer: the caller decides whether to go on without a claim.
    pub async fn claim(&self, scope: &[u8; 32]) -> Result<Claim, sqlx::Error> {
        let holder = Holder::random()?;
        // Where nothing could be inserted and the snapshot shows no row, somebody
        // inserted it after the snapshot: it is running.
        let row: Option<Row> = sqlx::query_as(
            "WITH mine AS (
                INSERT INTO postern_claims.claim AS c (scope, holder, lapses_at)
                VALUES ($1, $2, now() + $3)
                ON CONFLICT (scope) DO UPDATE
                SET holder = excluded.holder, lapses_at = excluded.lapses_at,
                    fingerprint = NULL, outcome = NULL
                WHERE c.lapses_at <= now()
                RETURNING true)
             SELECT true, NULL::bytea, NULL::bytea FROM mine
             UNION ALL
             SELECT false, fingerprint, outcome FROM postern_claims.claim
             WHERE scope = $1 AND NOT EXISTS (SELECT FROM mine)",
        )
        .bind(scope.as_slice())
        .bind(holder.0.as_slice())
        .bind(interval(LEASE))
        .fetch_optional(&self.pool)
        .await?;
        Ok(match row {
            Some((true, _, _)) => Claim::New(holder),
            Some((false, Some(fingerprint), outcome)) => match fingerprint.try_into() {
                Ok(fingerprint) => Claim::Done {
                    fingerprint,
                    outcome,
                },
                Err(_) => Claim::Running,
            },
            Some((false, None, _)) | None => Claim::Running,
        })
    }

    /// Keeps a running claim for another `lease`. Whether it was still held.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn extend(
        &self,
        scope: &[u8; 32],
        holder: Holder,
        lease: Duration,
    ) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(
            "UPDATE postern_claims.claim SET lapses_at = now() + $3
             WHERE scope = $1 AND holder = $2 AND fingerprint IS NULL",
        )
        .bind(scope.as_slice())
        .bind(holder.0.as_slice())
        .bind(interval(lease))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Copies a committed outcome, over whatever claim stands there: the record is the truth.
    /// `remaining` is how long the record is still valid.
    ///
    /// # Errors
    /// When the store does not answer; the claim then lapses and the record speaks.
    pub async fn done(
        &self,
        scope: &[u8; 32],
        fingerprint: &[u8; 32],
        outcome: Option<&[u8]>,
        remaining: Duration,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO postern_claims.claim (scope, holder, lapses_at, fingerprint, outcome)
             VALUES ($1, $2, now() + $3, $4, $5)
             ON CONFLICT (scope) DO UPDATE
             SET lapses_at = excluded.lapses_at, fingerprint = excluded.fingerprint, outcome = excluded.outcome",
        )
        .bind(scope.as_slice())
        .bind([0_u8; 16].as_slice())
        .bind(interval(remaining))
        .bind(fingerprint.as_slice())
        .bind(outcome)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives a running claim up, so that a retry need not wait for the lease's end.
    ///
    /// # Errors
    /// When the store does not answer; the claim then lapses.
    pub async fn release(&self, scope: &[u8; 32], holder: Holder) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM postern_claims.claim WHERE scope = $1 AND holder = $2 AND fingerprint IS NULL")
            .bind(scope.as_slice())
            .bind(holder.0.as_slice())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Removes lapsed claims, a bounded number. How many there were: as many as
    /// the bound means that there may be more.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn sweep(&self) -> Result<u64, sqlx::Error> {
        let done = sqlx::query(
            "DELETE FROM postern_claims.claim WHERE scope IN (
                SELECT scope FROM postern_claims.claim WHERE lapses_at <= now()
                ORDER BY lapses_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
        )
        .bind(SWEEP_BATCH)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
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
