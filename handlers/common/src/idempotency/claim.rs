//! The runner's claim, kept while the handler works and marked when it is through.
//!
//! Whatever fails here costs speed only: a claim that nobody marks lapses, and the
//! next request finds the record.

use std::time::Duration;

use postern_claims::{ClaimStore, Holder, LEASE};
use tokio_util::task::AbortOnDropHandle;

use super::Keyed;

/// A larger outcome is not copied into the claim.
const MAX_COPY: usize = 64 << 10;
/// No wait for the claim store is longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A claim that is extended for as long as this value lives.
pub(super) struct Held {
    store: Option<ClaimStore>,
    _extending: Option<AbortOnDropHandle<()>>,
}

impl Held {
    pub(super) fn keep(store: Option<ClaimStore>, keyed: &Keyed) -> Self {
        let holder = <[u8; 16]>::try_from(keyed.holder.as_slice())
            .ok()
            .map(Holder);
        let running = holder.map(|holder| (keyed.scope, holder));
        let extending = store.clone().zip(running).map(|(store, (scope, holder))| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LEASE / 3).await;
                    if let Ok(false) = store.extend(&scope, holder, LEASE).await {
                        return;
                    }
                }
            }))
        });
        Self {
            store,
            _extending: extending,
        }
    }

    /// The outcome is committed: the runner may answer from its copy.
    pub(super) async fn done(self, keyed: &Keyed, sealed: &[u8], remaining: Duration) {
        let Some(store) = &self.store else { return };
        let copy = (sealed.len() <= MAX_COPY).then_some(sealed);
        mark(store.done(&keyed.scope, &keyed.fingerprint, copy, remaining)).await;
    }
}

/// Marks a claim; a failure to do so is logged and goes no further.
pub(crate) async fn mark(marking: impl Future<Output = Result<(), sqlx::Error>>) {
    match tokio::time::timeout(PATIENCE, marking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a claim was not marked; it lapses"),
        Err(_) => tracing::warn!("a claim was not marked in time; it lapses"),
    }
}
