//! Effects in stores that have transactions of their own: the record lives there, in
//! the same transaction. What is the same wherever it lives is here: claims, sealing,
//! what a found record means, retries, the deadline.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use postern_claims::{Body, Outcome};
use postern_contract::idempotency::TTL_SECONDS;

use super::{Ended, Keyed, Ledger, claim, count, outcome_unknown, pause_before_retry, record, reused};
use crate::faults::Faults;
use crate::{Failure, Reply};

/// A family's mutation in such a store.
pub trait Transaction: Send + Sync + 'static {
    /// One attempt on a fresh transaction: record, effect, outcome, commit. A failure
    /// with `SERIALIZATION_FAILURE` is tried again.
    fn once<'a>(
        &'a self,
        ledger: &'a Ledger,
        keyed: &'a Keyed,
        correlation_id: &'a str,
    ) -> BoxFuture<'a, Result<Ended, Failure>>;

    /// The effect without a record: the operator lets requests pass without a key.
    fn without_key(&self) -> BoxFuture<'_, Result<Reply, Failure>>;
}

/// An outcome as it is kept.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// All of it.
    pub whole: Vec<u8>,
    /// Without its body: for a tenant that keeps too much already.
    pub without_body: Vec<u8>,
}

impl Ended {
    /// An outcome that has just been committed.
    #[must_use]
    pub fn committed(reply: Reply, sealed: Vec<u8>) -> Self {
        Self {
            reply,
            sealed,
            remaining: Duration::from_secs(TTL_SECONDS),
        }
    }
}

impl Ledger {
    /// Carries a mutation out, or replays what became of it before.
    ///
    /// # Errors
    /// As [`Ledger::run`].
    pub async fn run_elsewhere(
        self: &Arc<Self>,
        keyed: Option<Keyed>,
        correlation_id: &str,
        mutation: impl Transaction,
    ) -> Result<Reply, Failure> {
        let (ledger, correlation_id) = (Arc::clone(self), correlation_id.to_owned());
        self.in_task(async move { ledger.elsewhere(keyed, &correlation_id, &mutation).await })
            .await
    }

    async fn elsewhere(
        &self,
        keyed: Option<Keyed>,
        correlation_id: &str,
        mutation: &impl Transaction,
    ) -> Result<Reply, Failure> {
        let mut tries = 0;
        let Some(keyed) = keyed else {
            loop {
                let ended = mutation.without_key().await;
                match pause_before_retry(&ended, &mut tries) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return ended,
                }
            }
        };
        let claim = claim::Held::keep(self.claims.clone(), &keyed);
        let ended = loop {
            let ended = mutation.once(self, &keyed, correlation_id).await;
            match pause_before_retry(&ended, &mut tries) {
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

    /// An answer, sealed as it is kept.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn seal(&self, keyed: &Keyed, reply: &Reply) -> Result<Sealed, Failure> {
        let outcome = record::outcome(reply);
        let without_body = Outcome {
            body: Body::Omitted,
            ..outcome.clone()
        };
        let seal = |outcome| self.keys.seal(&keyed.scope, outcome).map_err(Failure::internal);
        Ok(Sealed {
            whole: seal(&outcome)?,
            without_body: seal(&without_body)?,
        })
    }

    /// What a finished record means for a request that found it.
    ///
    /// # Errors
    /// `IDEMPOTENCY_KEY_REUSED` when it is another request's,
    /// `IDEMPOTENCY_OUTCOME_UNKNOWN` when it cannot be opened.
    pub fn judge(
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

    /// Bytes of outcomes that are kept for one tenant.
    #[must_use]
    pub fn quota(&self) -> i64 {
        self.bounds.quota
    }

    /// Where a test may hold a mutation.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}
