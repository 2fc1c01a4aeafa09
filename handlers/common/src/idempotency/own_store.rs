//! Mutations whose effect is in a store of the family's own: its record stands there
//! too, and is written by the family's driver. What does not depend on the store is here:
//! the task, the deadline, the claim, repeated attempts, and the record's sealed form.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use postern_claims::{Body, Outcome};

use super::{
    Attempts, Ended, Keyed, Ledger, claim, count, in_progress, lost_race, outcome_unknown, record,
    reused,
};
use crate::faults::Faults;
use crate::{Failure, Reply};

/// An outcome, sealed for its record.
#[derive(Debug)]
pub struct Sealed {
    /// With its body.
    pub whole: Vec<u8>,
    /// Without: where the tenant's quota of kept bytes is full.
    pub without_body: Vec<u8>,
}

/// How an attempt ended that is decided for good.
#[derive(Debug)]
pub struct Decided {
    /// The answer.
    pub reply: Reply,
    /// What the record keeps; none: there was no key.
    pub kept: Option<Kept>,
}

/// What a record keeps, for the claim's copy.
#[derive(Debug)]
pub struct Kept {
    /// The sealed outcome.
    pub sealed: Vec<u8>,
    /// How long it is kept still.
    pub remaining: Duration,
}

/// A record that stands, as the store has it.
#[derive(Debug)]
pub struct Standing {
    /// 32 bytes.
    pub fingerprint: Vec<u8>,
    /// The sealed outcome; none: it was started and never ended.
    pub outcome: Option<Vec<u8>>,
    /// How long it is kept still; zero: it expired.
    pub remaining: Duration,
}

/// One attempt: record and effect in one transaction of the store. It may run more than
/// once, when the store asks for that (`SERIALIZATION_FAILURE`).
pub trait InStore:
    Fn() -> BoxFuture<'static, Result<Decided, Failure>> + Send + Sync + 'static
{
}
impl<F> InStore for F where
    F: Fn() -> BoxFuture<'static, Result<Decided, Failure>> + Send + Sync + 'static
{
}

impl Ledger {
    /// Carries out a mutation in a store of the family's own, in a task that outlives
    /// the client.
    ///
    /// # Errors
    /// What the attempt refused for good.
    pub async fn run_in_store(
        self: &Arc<Self>,
        keyed: Option<Keyed>,
        attempt: impl InStore,
    ) -> Result<Reply, Failure> {
        let ledger = Arc::clone(self);
        self.in_task(async move { ledger.in_store(keyed, attempt).await })
            .await
    }

    async fn in_store(
        &self,
        keyed: Option<Keyed>,
        attempt: impl InStore,
    ) -> Result<Reply, Failure> {
        let claim = keyed
            .as_ref()
            .map(|keyed| claim::Held::keep(self.claims.clone(), keyed));
        let mut attempts = Attempts::new();
        let decided = loop {
            let decided = attempt().await;
            match attempts.pause(&decided) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => break decided,
            }
        };
        let ended = decided.map(|Decided { reply, kept }| {
            let (sealed, remaining) =
                kept.map_or_else(Default::default, |kept| (kept.sealed, kept.remaining));
            Ended {
                reply,
                sealed,
                remaining,
            }
        });
        count(&ended);
        let ended = ended?;
        if let (Some(claim), Some(keyed)) = (claim, keyed) {
            claim.done(&keyed, &ended.sealed, ended.remaining).await;
            self.faults.at("after-claim").await;
        }
        Ok(ended.reply)
    }

    /// Seals an answer for its record.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn seal(&self, keyed: &Keyed, reply: &Reply) -> Result<Sealed, Failure> {
        let outcome = record::outcome(reply);
        let without_body = Outcome {
            body: Body::Omitted,
            ..outcome.clone()
        };
        let seal = |outcome| {
            self.keys
                .seal(&keyed.scope, outcome)
                .map_err(Failure::internal)
        };
        Ok(Sealed {
            whole: seal(&outcome)?,
            without_body: seal(&without_body)?,
        })
    }

    /// What a record that stands already means for a request: its answer again, or a
    /// refusal. One that expired or went meanwhile asks for another attempt.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED`, `IDEMPOTENCY_OUTCOME_UNKNOWN`, or the other attempt.
    pub fn replay(&self, keyed: &Keyed, standing: Option<Standing>) -> Result<Decided, Failure> {
        let Some(standing) = standing.filter(|standing| !standing.remaining.is_zero()) else {
            return Err(lost_race());
        };
        let Some(sealed) = &standing.outcome else {
            return Err(if standing.fingerprint == keyed.fingerprint {
                outcome_unknown()
            } else {
                reused()
            });
        };
        let ended = self.open(keyed, &standing.fingerprint, sealed, standing.remaining)?;
        Ok(Decided {
            reply: ended.reply,
            kept: Some(Kept {
                sealed: ended.sealed,
                remaining: ended.remaining,
            }),
        })
    }

    /// Another request holds the record's lock.
    #[must_use]
    pub fn in_progress() -> Failure {
        in_progress()
    }

    /// Bytes of outcomes kept for one tenant.
    #[must_use]
    pub fn quota(&self) -> i64 {
        self.bounds.quota
    }

    /// The longest that a mutation may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.bounds.deadline
    }

    /// Where tests hold a mutation.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
