//! Connections to the data cluster, shared fairly.
//!
//! A tenant has at most its share of the pool under way at once, so one that asks for
//! slow things leaves connections to the others; what is above its share waits for its
//! own, in a queue of its own that is bounded, too. A connection whose request was given
//! up in the middle (the client left, the deadline passed) is cancelled and closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use postern_contract::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::Address;
use crate::errors::{Fault, described};

/// Bounds of the data pool and of what runs in it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at most.
    pub connections: usize,
    /// Connections that one tenant has at once at most.
    pub tenant_connections: usize,
    /// Requests of one tenant that wait for one at most.
    pub tenant_waiting: usize,
    /// How long a request waits for one.
    pub acquire: Duration,
    /// The longest statement.
    pub statement: Duration,
    /// Rows of a page without a limit.
    pub default_rows: u64,
    /// Rows of a page at most, and of an embedded list.
    pub max_rows: u64,
    /// Bytes of an answer at most.
    pub max_answer: usize,
}

/// How long an abandoned connection gets to come to rest.
const CLEANING: Duration = Duration::from_secs(2);

/// The data cluster.
pub(crate) struct Database {
    pool: Pool,
    tls: MakeRustlsConnect,
    pub(crate) bounds: Bounds,
    shares: Mutex<HashMap<TenantId, Arc<Share>>>,
}

/// What a tenant may use at once.
struct Share {
    connections: Arc<Semaphore>,
    queue: Semaphore,
}

/// Shares remembered at most; beyond it those that nobody uses are forgotten.
const MAX_SHARES: usize = 10_000;

impl Database {
    /// A pool of connections to this address, none of them yet.
    pub(crate) fn new(address: Address, bounds: Bounds) -> Result<Self, Fault> {
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let (config, tls) = address.parts();
        let manager = Manager::from_config(config, tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(bounds.connections)
            .create_timeout(Some(bounds.acquire))
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(Fault::internal)?;
        Ok(Self {
            pool,
            tls,
            bounds,
            shares: Mutex::default(),
        })
    }

    /// A connection for a tenant's request.
    pub(crate) async fn lease(&self, tenant: TenantId) -> Result<Lease, Fault> {
        let until = Instant::now() + self.bounds.acquire;
        let share = self.share(tenant);
        let permit = match Arc::clone(&share.connections).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _queued = share.queue.try_acquire().map_err(|_| Fault::Busy)?;
                let freed = Arc::clone(&share.connections).acquire_owned();
                let freed = tokio::time::timeout_at(until, freed).await;
                freed.map_err(|_| Fault::Busy)?.map_err(Fault::internal)?
            }
        };
        self.connection(Some(permit), until).await
    }

    /// A connection for what is nobody's request.
    pub(crate) async fn lease_for_upkeep(&self) -> Result<Lease, Fault> {
        let until = Instant::now() + self.bounds.acquire;
        self.connection(None, until).await
    }

    async fn connection(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        until: Instant,
    ) -> Result<Lease, Fault> {
        let object = match tokio::time::timeout_at(until, self.pool.get()).await {
            Ok(Ok(object)) => object,
            Ok(Err(PoolError::Backend(error))) => return Err(Fault::Away(described(&error))),
            Ok(Err(other)) => return Err(Fault::Away(other.to_string())),
            Err(_) => return Err(Fault::Away("all are in use, or none can be made".into())),
        };
        Ok(Lease {
            object: Some(object),
            tls: self.tls.clone(),
            settled: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            permit,
        })
    }

    fn share(&self, tenant: TenantId) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() >= MAX_SHARES {
            // Whoever waits or works holds a second handle.
            shares.retain(|_, share| {
                Arc::strong_count(share) > 1 || Arc::strong_count(&share.connections) > 1
            });
        }
        let new = || {
            Arc::new(Share {
                connections: Arc::new(Semaphore::new(self.bounds.tenant_connections)),
                queue: Semaphore::new(self.bounds.tenant_waiting),
            })
        };
        Arc::clone(shares.entry(tenant).or_insert_with(new))
    }

    /// Connections in use and idle, for the metrics.
    pub(crate) fn measure(&self) {
        let status = self.pool.status();
        let size = u32::try_from(status.size).unwrap_or(u32::MAX);
        let waiting = u32::try_from(status.waiting).unwrap_or(u32::MAX);
        metrics::gauge!("postern_data_connections").set(f64::from(size));
        metrics::gauge!("postern_data_waiting").set(f64::from(waiting));
    }
}

/// A connection in use. Dropped without [`Self::settle`], a transaction may be open on it
/// and answers on their way.
pub(crate) struct Lease {
    object: Option<Object>,
    tls: MakeRustlsConnect,
    settled: AtomicBool,
    grown: AtomicBool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// The connection.
    pub(crate) fn client(&self) -> &Client {
        #[expect(clippy::expect_used, reason = "taken in drop alone")]
        self.object.as_ref().expect("a lease holds its connection")
    }

    /// Everything sent has been answered, and no transaction is open.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// A row was so long that the connection's buffer is better not kept.
    pub(crate) fn has_grown(&self) {
        self.grown.store(true, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else {
            return;
        };
        if object.is_closed() {
            return;
        }
        if self.settled.load(Ordering::Relaxed) {
            if self.grown.load(Ordering::Relaxed) {
                drop(Object::take(object));
            }
            return;
        }
        let permit = self.permit.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(clean(object, self.tls.clone(), permit));
        } else {
            drop(Object::take(object));
        }
    }
}

/// Cancels what runs, waits until it has ended, and closes the connection. Nobody says when
/// a cancel has arrived: used again, the connection could meet it in the next request.
async fn clean(object: Object, tls: MakeRustlsConnect, permit: Option<OwnedSemaphorePermit>) {
    let ended = async {
        // What cannot be cancelled ends at its statement_timeout.
        let _ = object.cancel_token().cancel_query(tls).await;
        // An empty query is answered behind everything that was sent.
        let _ = object.batch_execute("").await;
    };
    let _ = tokio::time::timeout(CLEANING, ended).await;
    drop(Object::take(object));
    drop(permit);
}
