//! Decides, with whichever store the deployment has.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use super::keys::{Key, Naming};
use super::leases::Leases;
use super::redis::link::{Away, Link};
use super::redis::{Ask, Of, Shared};
use super::settings::{OnStoreDown, own};
use super::store::Buckets;
use super::{Decision, Items, Limit, microseconds};
use crate::Caller;

/// How often leases are looked through for what is not used.
const SWEEP: Duration = Duration::from_millis(500);
/// How long giving everything back may take when the process ends.
const FAREWELL: Duration = Duration::from_millis(200);

/// All buckets, and who decides with them.
pub(crate) struct Limiter {
    pub(super) naming: Naming,
    pub(super) buckets: Buckets,
    shared: Option<Shared>,
    leases: Option<Leases>,
}

/// What became of a request's limits.
pub(crate) enum Outcome {
    /// It passes, or has to wait.
    Decided(Decision),
    /// The store is away, and the route says what then.
    Open,
    /// The same.
    Closed,
}

impl Limiter {
    /// Each runner for itself.
    pub(crate) fn local(buckets: Buckets) -> Self {
        Self {
            naming: own(),
            buckets,
            shared: None,
            leases: None,
        }
    }

    /// All runners together; exactly, without leases.
    pub(super) fn shared(buckets: Buckets, shared: Shared, leases: Option<Leases>) -> Self {
        Self {
            naming: Naming::Shared,
            buckets,
            shared: Some(shared),
            leases,
        }
    }

    /// The key of a policy's bucket: of this owner, and of whom among those.
    pub(crate) fn key(&self, policy: &str, limit: Limit, owner: &[&[u8]], rest: &[&[u8]]) -> Key {
        self.naming.key(policy, limit, owner, rest)
    }

    /// The same of a caller among those of its tenant.
    pub(crate) fn key_of_caller(&self, policy: &str, limit: Limit, who: &Caller) -> Key {
        self.naming.key_of_caller(policy, limit, who)
    }

    /// Decides with the buckets of this process, whatever store there is.
    pub(crate) fn decide_here(&self, items: &Items, now: u64, cost: u32) -> Decision {
        self.buckets.decide(items, now, cost)
    }

    /// The decision where it takes no waiting.
    pub(crate) fn at_once(
        &self,
        items: &Items,
        now: u64,
        cost: u32,
        down: OnStoreDown,
    ) -> Option<Outcome> {
        let Some(shared) = &self.shared else {
            return Some(Outcome::Decided(self.decide_here(items, now, cost)));
        };
        if let Some(leases) = &self.leases
            && let Some(decision) = leases.decide(items, now, cost)
        {
            return Some(Outcome::Decided(decision));
        }
        (!shared.link().is_up()).then(|| self.without_store(items, now, cost, down))
    }

    /// The decision, with a store that has to be asked.
    pub(crate) async fn decide(
        &self,
        items: &Items,
        now: u64,
        cost: u32,
        down: OnStoreDown,
    ) -> Outcome {
        let Some(shared) = &self.shared else {
            return Outcome::Decided(self.decide_here(items, now, cost));
        };
        let decided = match &self.leases {
            None => self.exact(shared, items, now, cost).await,
            Some(leases) => {
                let asking = leases.ask(items, now, cost);
                let taken = shared.take(items, &asking.asks).await;
                taken.map(|(decision, taken)| {
                    self.buckets.mirror(items, &decision, now);
                    asking.decided(&decision, &taken, now)
                })
            }
        };
        match decided {
            Ok(decision) => Outcome::Decided(decision),
            Err(Away) => self.without_store(items, now, cost, down),
        }
    }

    async fn exact(
        &self,
        shared: &Shared,
        items: &Items,
        now: u64,
        cost: u32,
    ) -> Result<Decision, Away> {
        let ask = Ask {
            least: cost,
            most: cost,
        };
        let asks: Of<Ask> = [ask; super::MOST];
        let (decision, _) = shared.take(items, &asks).await?;
        self.buckets.mirror(items, &decision, now);
        Ok(decision)
    }

    fn without_store(&self, items: &Items, now: u64, cost: u32, down: OnStoreDown) -> Outcome {
        let (mode, outcome) = match down {
            OnStoreDown::Local => {
                let decision = self.decide_here(items, now, cost);
                ("local", Outcome::Decided(decision))
            }
            OnStoreDown::Open => ("open", Outcome::Open),
            OnStoreDown::Closed => ("closed", Outcome::Closed),
        };
        metrics::counter!("postern_limit_without_store_total", "mode" => mode).increment(1);
        outcome
    }

    /// The connection that a task has to keep.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.shared.as_ref().map(|shared| Arc::clone(shared.link()))
    }

    /// Gives back what is not used, and everything in the end.
    pub(crate) async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let (Some(shared), Some(leases)) = (&self.shared, &self.leases) else {
            return;
        };
        let mut sweep = interval(SWEEP);
        loop {
            let everything = tokio::select! {
                _ = sweep.tick() => false,
                () = stop.cancelled() => true,
            };
            let unused = leases.unused(microseconds(SystemTime::now()), everything);
            // Lost when the store is away: the buckets fill by themselves.
            if everything {
                let _ = timeout(FAREWELL, shared.give_back(unused.into_iter())).await;
                return;
            }
            let _ = shared.give_back(unused.into_iter()).await;
        }
    }
}
