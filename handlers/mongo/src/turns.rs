//! Whose turn it is to make or drop a collection: one at a time for a tenant, so that what
//! was counted for its quota still holds when it is used.
//!
//! In this process they wait here, in the order in which they came; what other processes do
//! is kept out by the quotas' owner. So a tenant takes one of its connections at most.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use postern_common::Failure;
use postern_contract::{Code, TenantId};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::family::{Quotas, Reservation};

/// The longest wait for a turn.
const WAIT: Duration = Duration::from_secs(10);
/// Tenants at once: each holds a connection of the quotas' owner.
const AT_ONCE: usize = 2;
/// Tenants remembered, and for how long. Who is forgotten in its turn is still kept apart
/// from others by the quotas' owner.
const TENANTS: u64 = 10_000;
const REMEMBERED: Duration = Duration::from_secs(60);

/// The queues.
pub(crate) struct Turns {
    tenants: Cache<TenantId, Arc<Mutex<()>>>,
    slots: Arc<Semaphore>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    reservation: Box<dyn Reservation>,
    _slot: OwnedSemaphorePermit,
    _here: OwnedMutexGuard<()>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let tenants = Cache::builder()
            .max_capacity(TENANTS)
            .time_to_idle(REMEMBERED);
        Self {
            tenants: tenants.build(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Waits for the tenant's turn.
    ///
    /// # Errors
    /// It did not come in time; the quotas' owner's.
    pub(crate) async fn wait(
        &self,
        tenant: TenantId,
        quotas: &dyn Quotas,
    ) -> Result<Turn, Failure> {
        let turn = async {
            let queue = self.tenants.get_with(tenant, async { Arc::default() });
            let here = queue.await.lock_owned().await;
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            Ok(Turn {
                _slot: slot.map_err(Failure::internal)?,
                reservation: quotas.reserve(tenant).await?,
                _here: here,
            })
        };
        let ended = tokio::time::timeout(WAIT, turn).await;
        ended.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::SerializationFailure,
                "many collections are made or dropped at once; retry with the same Idempotency-Key",
            ))
        })
    }
}

impl Turn {
    /// How many collections the tenant may have.
    pub(crate) fn limit(&self) -> Option<i64> {
        self.reservation.limit()
    }

    /// The tenant has so many now.
    pub(crate) async fn used(self, collections: i64) {
        self.reservation.used(collections).await;
    }
}
