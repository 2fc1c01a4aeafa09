//! The idempotent transaction: `docs/idempotency.md`, steps 2 to 4.
//!
//! ```text
//! begin → plain INSERT of the record → savepoint → the family's work
//!       → constraints → outcome into the record → commit → claim marked done
//! ```
//!
//! Record and effect commit together, so a kill at any instant leaves both or
//! neither; whoever comes next finds the record and replays it. The whole runs in
//! a task of its own that outlives the client's connection.

mod claim;
mod outside;
mod own_store;
mod record;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::header::RETRY_AFTER;
use postern_claims::{ClaimStore, OutcomeKeys};
use postern_contract::Code;
use postern_contract::code::Outcome;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, PgTransaction};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::failure::sqlstate;
use crate::faults::Faults;
use crate::{Failure, Reply};

pub(crate) use claim::{Begun, Pending};
pub use outside::{Attempt, Effect};
pub use own_store::{Decided, InStore, Kept, Sealed, Standing};
pub use record::migrate;

/// How long the INSERT of a record waits for another transaction with the same key.
const RECORD_WAIT: &str = "100ms";
/// How long work is tried again that lost against other transactions. Of many that change
/// one thing at once each may lose to all the others.
const AGAIN_FOR: Duration = Duration::from_secs(2);
/// The longest pause before an attempt is repeated.
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Names one action of one caller.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// The record's name: the digest of whose key it is.
    pub scope: [u8; 32],
    /// What makes two requests the same.
    pub fingerprint: [u8; 32],
    /// The token's tenant; empty for a platform token.
    pub tenant: String,
    /// Who holds the claim; empty where the runner took none.
    pub holder: Vec<u8>,
}

/// Bounds of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of outcomes kept for one tenant; beyond it bodies are omitted.
    pub quota: i64,
    /// After this a mutation is given up; whether it took effect is then unknown.
    pub deadline: Duration,
    /// The longest statement.
    pub statement: Duration,
}

/// Runs mutations, each at most once a key.
pub struct Ledger {
    pool: PgPool,
    keys: OutcomeKeys,
    claims: Option<ClaimStore>,
    tasks: TaskTracker,
    bounds: Bounds,
    faults: Faults,
    begin: String,
    savepoint: String,
    /// How many effects in other systems are under way at once.
    slots: Semaphore,
}

/// What a family does in the transaction. It may run more than once, each time
/// on a fresh transaction, when the database asks for that.
pub trait Work:
    for<'t> Fn(&'t mut PgConnection) -> BoxFuture<'t, Result<Reply, Failure>> + Send + Sync + 'static
{
}
impl<F> Work for F where
    F: for<'t> Fn(&'t mut PgConnection) -> BoxFuture<'t, Result<Reply, Failure>>
        + Send
        + Sync
        + 'static
{
}

/// How an attempt ended that is decided for good.
struct Ended {
    reply: Reply,
    sealed: Vec<u8>,
    remaining: Duration,
}

impl Ledger {
    /// A ledger in this database. Tasks are awaited through `tasks` when draining.
    #[must_use]
    pub fn new(
        pool: PgPool,
        keys: OutcomeKeys,
        claims: Option<ClaimStore>,
        tasks: TaskTracker,
        bounds: Bounds,
        faults: Faults,
    ) -> Self {
        let statement = bounds.statement.as_millis();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = '{statement}ms'; \
             SET LOCAL idle_in_transaction_session_timeout = '{}ms'; SET LOCAL lock_timeout = '{RECORD_WAIT}'",
            bounds.deadline.as_millis()
        );
        let savepoint = format!("SET LOCAL lock_timeout = '{statement}ms'; SAVEPOINT work");
        Self {
            slots: outside::slots(&pool),
            pool,
            keys,
            claims,
            tasks,
            bounds,
            faults,
            begin,
            savepoint,
        }
    }

    /// Carries out a mutation, or replays what became of it before.
    ///
    /// # Errors
    /// What the work refused, where that is not kept; `IDEMPOTENCY_KEY_REUSED`,
    /// `IDEMPOTENCY_IN_PROGRESS`, `IDEMPOTENCY_OUTCOME_UNKNOWN`; the database's failures.
    pub async fn run(
        self: &Arc<Self>,
        keyed: Option<Keyed>,
        correlation_id: &str,
        work: impl Work,
    ) -> Result<Reply, Failure> {
        let (ledger, correlation_id) = (Arc::clone(self), correlation_id.to_owned());
        self.in_task(async move { ledger.carry_out(keyed, &correlation_id, &work).await })
            .await
    }

    /// In a task that outlives the client, for as long as a mutation may take.
    async fn in_task(
        &self,
        mutation: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
    ) -> Result<Reply, Failure> {
        let deadline = self.bounds.deadline;
        let task = async move {
            tokio::time::timeout(deadline, mutation)
                .await
                .unwrap_or(Err(Failure::Deadline))
        };
        let span = tracing::debug_span!("mutation");
        match self.tasks.spawn(task.instrument(span)).await {
            Ok(ended) => ended,
            Err(error) => Err(Failure::Panicked(error.to_string())),
        }
    }

    async fn carry_out(
        &self,
        keyed: Option<Keyed>,
        correlation_id: &str,
        work: &impl Work,
    ) -> Result<Reply, Failure> {
        let mut attempts = Attempts::new();
        let Some(keyed) = keyed else {
            loop {
                let ended = self.without_key(work).await;
                match attempts.pause(&ended) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return ended,
                }
            }
        };
        let claim = claim::Held::keep(self.claims.clone(), &keyed);
        let ended = loop {
            let ended = self.once(&keyed, correlation_id, work).await;
            match attempts.pause(&ended) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break ended,
            }
        };
        count(&ended);
        match ended {
            Ok(Ended {
                reply,
                sealed,
                remaining,
            }) => {
                claim.done(&keyed, &sealed, remaining).await;
                self.faults.at("after-claim").await;
                Ok(reply)
            }
            // The chain releases the claim.
            Err(failure) => Err(failure),
        }
    }

    /// The operator lets requests pass without a key: nothing to replay, still one transaction.
    async fn without_key(&self, work: &impl Work) -> Result<Reply, Failure> {
        let mut transaction = self
            .pool
            .begin_with(AssertSqlSafe(self.begin.as_str()))
            .await?;
        sqlx::raw_sql(AssertSqlSafe(self.savepoint.as_str()))
            .execute(&mut *transaction)
            .await?;
        let reply = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(reply)
    }

    /// One attempt on one transaction.
    async fn once(
        &self,
        keyed: &Keyed,
        correlation_id: &str,
        work: &impl Work,
    ) -> Result<Ended, Failure> {
        self.faults.at("before-record").await;
        let mut transaction = self
            .pool
            .begin_with(AssertSqlSafe(self.begin.as_str()))
            .await?;
        if let Err(error) = record::insert(&mut transaction, keyed).await {
            return match sqlstate(&error).as_deref() {
                Some("23505") => {
                    transaction.rollback().await?;
                    self.found(keyed).await?.ok_or_else(outcome_unknown)
                }
                Some("55P03") => Err(in_progress()),
                _ => Err(error.into()),
            };
        }
        self.faults.at("after-record").await;
        sqlx::raw_sql(AssertSqlSafe(self.savepoint.as_str()))
            .execute(&mut *transaction)
            .await?;
        let reply = match work(&mut transaction).await {
            Ok(reply) => {
                sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE")
                    .execute(&mut *transaction)
                    .await?;
                reply
            }
            Err(failure) if failure.is_kept() => {
                sqlx::raw_sql("ROLLBACK TO SAVEPOINT work")
                    .execute(&mut *transaction)
                    .await?;
                Reply::refusal(&failure, correlation_id)
            }
            Err(failure) => return Err(failure),
        };
        self.faults.at("after-effect").await;
        self.ended(transaction, keyed, reply).await
    }

    /// Writes the outcome and commits it with everything.
    async fn ended(
        &self,
        mut transaction: PgTransaction<'static>,
        keyed: &Keyed,
        reply: Reply,
    ) -> Result<Ended, Failure> {
        let sealed = self.seal(keyed, &reply)?;
        let sealed = record::finish(&mut transaction, keyed, sealed, self.bounds.quota).await?;
        self.faults.at("before-commit").await;
        transaction.commit().await?;
        self.faults.at("after-commit").await;
        let remaining = Duration::from_secs(postern_contract::idempotency::TTL_SECONDS);
        Ok(Ended {
            reply,
            sealed,
            remaining,
        })
    }

    /// The key has been used: replay, refuse, or make room if that was a day ago. `None`:
    /// it was started, and there is no outcome.
    async fn found(&self, keyed: &Keyed) -> Result<Option<Ended>, Failure> {
        let Some(found) = record::find(&self.pool, &keyed.scope).await? else {
            // It expired and was swept between INSERT and SELECT.
            return Err(lost_race());
        };
        if found.expired {
            record::remove_expired(&self.pool, &keyed.scope).await?;
            return Err(lost_race());
        }
        let Some(sealed) = &found.outcome else {
            return if found.fingerprint == keyed.fingerprint {
                Ok(None)
            } else {
                Err(reused())
            };
        };
        self.open(keyed, &found.fingerprint, sealed, found.remaining)
            .map(Some)
    }

    /// What a finished record says to a request that found it.
    fn open(
        &self,
        keyed: &Keyed,
        fingerprint: &[u8],
        sealed: &[u8],
        remaining: Duration,
    ) -> Result<Ended, Failure> {
        if fingerprint != keyed.fingerprint {
            return Err(reused());
        }
        match self.keys.open(&keyed.scope, sealed) {
            Ok(outcome) => Ok(Ended {
                reply: record::replay(outcome),
                sealed: sealed.to_vec(),
                remaining,
            }),
            Err(error) => {
                tracing::error!(%error, "a kept outcome cannot be opened");
                Err(outcome_unknown())
            }
        }
    }

    /// Removes what expired, a bounded number at a time, until nothing is left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sweep(&self) -> Result<u64, sqlx::Error> {
        let mut swept = 0;
        loop {
            let batch = record::sweep(&self.pool).await?;
            swept += batch;
            if batch < record::SWEEP_BATCH {
                break;
            }
        }
        if let Some(claims) = &self.claims {
            // A store of their own may be down; they lapse without a sweep, too.
            match claims.sweep().await {
                Ok(lapsed) => swept += lapsed,
                Err(error) => tracing::warn!(%error, "claims were not swept"),
            }
        }
        Ok(swept)
    }
}

/// Attempts of work that other transactions may be in the way of.
struct Attempts {
    /// From the first loss on: before it the attempt may have waited, as in a deadlock.
    until: Option<Instant>,
    longest: Duration,
}

impl Attempts {
    fn new() -> Self {
        Self {
            until: None,
            longest: Duration::from_millis(10),
        }
    }

    /// How long to wait before the attempt is repeated; `None`: it stands as it ended. At
    /// random, so that who lost together does not meet again.
    fn pause<T>(&mut self, ended: &Result<T, Failure>) -> Option<Duration> {
        let lost = matches!(ended, Err(failure) if failure.code() == Code::SerializationFailure);
        let mut part = [u8::MAX];
        let _ = aws_lc_rs::rand::fill(&mut part);
        let pause = self.longest * u32::from(part[0]) / u32::from(u8::MAX);
        self.longest = LONGEST_PAUSE.min(self.longest * 2);
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + AGAIN_FOR);
        (lost && now + pause < until).then_some(pause)
    }
}

fn reused() -> Failure {
    Failure::new(
        Code::IdempotencyKeyReused,
        "this Idempotency-Key was used for a different request; use a new key",
    )
}

fn in_progress() -> Failure {
    Failure::new(
        Code::IdempotencyInProgress,
        "a request with this Idempotency-Key is still running; retry it",
    )
    .with_header(RETRY_AFTER, "1")
}

fn outcome_unknown() -> Failure {
    Failure::new(
        Code::IdempotencyOutcomeUnknown,
        "this Idempotency-Key was used and what became of it is not known; look, then use a new key",
    )
}

/// The record vanished between two statements; the attempt is repeated.
fn lost_race() -> Failure {
    Failure::new(
        Code::SerializationFailure,
        "another request uses this Idempotency-Key; retry it",
    )
}

fn count(ended: &Result<Ended, Failure>) {
    let result = match ended {
        Ok(ended) if ended.reply.replayed => "replayed",
        Ok(_) => "executed",
        Err(failure) => match failure.code() {
            Code::IdempotencyKeyReused => "reused",
            Code::IdempotencyInProgress => "in_progress",
            Code::IdempotencyOutcomeUnknown => "unknown",
            code if code.outcome() == Outcome::Kept => "executed",
            _ => "released",
        },
    };
    metrics::counter!("postern_idempotency_total", "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lost_attempts_are_repeated_for_a_while_and_apart() {
        let began = Instant::now();
        let (mut attempts, mut pauses) = (Attempts::new(), Vec::new());
        while let Some(pause) = attempts.pause::<()>(&Err(lost_race())) {
            tokio::time::sleep(pause).await;
            pauses.push(pause);
        }
        assert!(began.elapsed() <= AGAIN_FOR, "{pauses:?}");
        // With pauses of 160 ms at most it takes 12 of them to fill the time.
        assert!(pauses.len() >= 12, "{pauses:?}");
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() > 3, "{pauses:?}");
    }

    #[test]
    fn what_was_decided_stands() {
        assert!(Attempts::new().pause(&Ok(())).is_none());
        assert!(Attempts::new().pause::<()>(&Err(in_progress())).is_none());
        assert!(
            Attempts::new()
                .pause::<()>(&Err(Failure::Deadline))
                .is_none()
        );
    }
}
