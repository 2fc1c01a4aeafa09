//! The runner's claim, kept while the handler works and marked when it is through.
//!
//! Whatever fails here costs speed only: a claim that nobody marks lapses, and the
//! next request finds the record.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postern_claims::{ClaimStore, Holder, LEASE};
use postern_context::Claim;
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

/// The claim of a request that is being judged. Dropped before its mutation has begun, it is
/// released: a client that leaves in the middle of its body takes the request's future
/// along, and its retry need not wait for the claim's end.
pub(crate) struct Pending {
    claim: Option<(ClaimStore, [u8; 32], Holder)>,
    begun: Begun,
}

/// Whether a mutation answers for the claim from now on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun(Arc<AtomicBool>);

impl Begun {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pending {
    pub(crate) fn new(store: Option<&ClaimStore>, claim: Option<&Claim>) -> Self {
        let named = claim.and_then(|claim| {
            let scope = claim.scope.as_slice().try_into().ok()?;
            Some((scope, Holder(claim.holder.as_slice().try_into().ok()?)))
        });
        let claim = store
            .zip(named)
            .map(|(store, (scope, holder))| (store.clone(), scope, holder));
        Self {
            claim,
            begun: Begun::default(),
        }
    }

    pub(crate) fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// Nothing was decided: a retry need not wait for the claim's end.
    pub(crate) async fn release(mut self) {
        if let Some((store, scope, holder)) = self.claim.take() {
            mark(store.release(&scope, holder)).await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((store, scope, holder)) = self.claim.take()
            && !self.begun.0.load(Ordering::Relaxed)
        {
            tokio::spawn(async move { mark(store.release(&scope, holder)).await });
        }
    }
}

/// Marks a claim; a failure to do so is logged and goes no further.
async fn mark<E: Display>(marking: impl Future<Output = Result<(), E>>) {
    match tokio::time::timeout(PATIENCE, marking).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a claim was not marked; it lapses"),
        Err(_) => tracing::warn!("a claim was not marked in time; it lapses"),
    }
}
