//! Effects in systems that have no part in the transaction: an identity provider, a
//! broker, an object store.
//!
//! ```text
//! record committed, without an outcome → its row locked → the effect
//!       → outcome into the record, with what goes along → commit → claim marked done
//! ```
//!
//! Who is killed on the way leaves the record without an outcome and without the lock.
//! A retry then finds it, and the effect is told to look first ([`Attempt::Again`]). A
//! record whose row is locked belongs to a request that still works.

use std::sync::Arc;

use futures::future::BoxFuture;
use postern_contract::Code;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::sync::Semaphore;

use super::{Attempts, Ended, Keyed, Ledger, claim, count, in_progress, lost_race};
use super::{record, sqlstate};
use crate::{Failure, Reply};

/// Whether somebody may have been here before with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nobody has.
    First,
    /// Somebody has and nobody knows how far that came: look, then answer or go on. A
    /// system that cannot be looked at answers `IDEMPOTENCY_OUTCOME_UNKNOWN`.
    Again,
}

/// What a family does in another system.
pub trait Effect: Send + Sync + 'static {
    /// Brings it about, or finds that it was.
    fn bring_about(&self, attempt: Attempt) -> BoxFuture<'_, Result<Reply, Failure>>;

    /// What is committed together with a success: the audit trail.
    fn note<'t>(&'t self, db: &'t mut PgConnection) -> BoxFuture<'t, Result<(), Failure>>;
}

/// Each holds a connection of the pool while the other system works.
pub(super) fn slots(pool: &sqlx::PgPool) -> Semaphore {
    let connections = pool.options().get_max_connections();
    Semaphore::new(usize::try_from(connections / 4).unwrap_or(1).max(1))
}

impl Ledger {
    /// Brings an effect about, or replays what became of it before.
    ///
    /// # Errors
    /// As [`Ledger::run`].
    pub async fn run_outside(
        self: &Arc<Self>,
        keyed: Option<Keyed>,
        correlation_id: &str,
        effect: impl Effect,
    ) -> Result<Reply, Failure> {
        let (ledger, correlation_id) = (Arc::clone(self), correlation_id.to_owned());
        self.in_task(async move { ledger.outside(keyed, &correlation_id, &effect).await })
            .await
    }

    async fn outside(
        &self,
        keyed: Option<Keyed>,
        correlation_id: &str,
        effect: &impl Effect,
    ) -> Result<Reply, Failure> {
        let Some(keyed) = keyed else {
            let reply = effect.bring_about(Attempt::First).await?;
            let mut transaction = self.pool.begin().await?;
            effect.note(&mut transaction).await?;
            transaction.commit().await?;
            return Ok(reply);
        };
        let claim = claim::Held::keep(self.claims.clone(), &keyed);
        let mut attempts = Attempts::new();
        let ended = loop {
            let ended = self.outside_once(&keyed, correlation_id, effect).await;
            match attempts.pause(&ended) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break ended,
            }
        };
        count(&ended);
        let ended = ended?;
        claim.done(&keyed, &ended.sealed, ended.remaining).await;
        self.faults.at("after-claim").await;
        Ok(ended.reply)
    }

    async fn outside_once(
        &self,
        keyed: &Keyed,
        correlation_id: &str,
        effect: &impl Effect,
    ) -> Result<Ended, Failure> {
        let _slot = self.slots.acquire().await.map_err(Failure::internal)?;
        self.faults.at("before-record").await;
        let mut connection = self.pool.acquire().await?;
        let inserted = record::insert(&mut connection, keyed).await;
        drop(connection);
        let attempt = match inserted {
            Ok(()) => Attempt::First,
            Err(error) if sqlstate(&error).as_deref() == Some("23505") => {
                match self.found(keyed).await? {
                    Some(ended) => return Ok(ended),
                    None => Attempt::Again,
                }
            }
            Err(error) => return Err(error.into()),
        };
        self.faults.at("after-record").await;
        let mut transaction = self
            .pool
            .begin_with(AssertSqlSafe(self.begin.as_str()))
            .await?;
        match record::lock_unfinished(&mut transaction, &keyed.scope).await {
            Ok(true) => {}
            // It ended between the two statements.
            Ok(false) => return Err(lost_race()),
            Err(error) if sqlstate(&error).as_deref() == Some("55P03") => return Err(in_progress()),
            Err(error) => return Err(error.into()),
        }
        let reply = match effect.bring_about(attempt).await {
            Ok(reply) => {
                effect.note(&mut transaction).await?;
                reply
            }
            Err(failure) if failure.is_kept() => Reply::refusal(&failure, correlation_id),
            Err(failure) => {
                if attempt == Attempt::First && nothing_happened(&failure) {
                    record::remove(&mut transaction, &keyed.scope).await?;
                    transaction.commit().await?;
                }
                return Err(failure);
            }
        };
        self.faults.at("after-effect").await;
        self.ended(transaction, keyed, reply).await
    }
}

/// A verdict on the request; the other failures leave open what the other system did.
fn nothing_happened(failure: &Failure) -> bool {
    !matches!(
        failure.code(),
        Code::BackendUnavailable
            | Code::Internal
            | Code::SerializationFailure
            | Code::StatementTimeout
    )
}
