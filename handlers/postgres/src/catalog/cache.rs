//! Catalogs, kept until something in their schema changes.
//!
//! ```text
//! DDL → event trigger → NOTIFY → listener ┐
//!       (or) fingerprints, polled         ├→ changed(schema) → next request reads anew
//! a name that is not known, a 42P01/42703 ┘
//! ```
//! A catalog is stamped with the count of changes at which its reading *began*; one
//! older than its schema's last change is never used, however late it arrives.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::future::Cache;

use super::{Catalog, load};
use crate::errors::Fault;
use crate::execute::{Database, Role, Session};

/// Schemas kept at most; beyond it the least used is read again.
const CAPACITY: u64 = 2_000;
/// A schema that nobody asked for so long is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// A schema is read anew on suspicion at most so often.
const AGAIN: Duration = Duration::from_millis(250);
/// The longest that a schema is read.
const READING: Duration = Duration::from_secs(10);
/// Changes remembered one by one; beyond it everything counts as changed.
const MAX_CHANGES: usize = 20_000;

/// A catalog with the time it was read.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) catalog: Arc<Catalog>,
    stamp: u64,
    read_at: Instant,
}

/// The catalogs of a cluster.
pub(crate) struct Catalogs {
    cache: Cache<String, Live>,
    /// Counts changes, of whatever schema.
    clock: AtomicU64,
    changes: Mutex<HashMap<String, u64>>,
    /// When everything changed last, as far as is known.
    everything: AtomicU64,
    /// Whether changes are told; else they are polled for.
    pub(crate) told: AtomicBool,
}

impl Catalogs {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::builder()
                .max_capacity(CAPACITY)
                .time_to_idle(IDLE)
                .build(),
            clock: AtomicU64::new(1),
            changes: Mutex::default(),
            everything: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }

    /// The schema as it is, or was until a change that is not known yet.
    pub(crate) async fn get(&self, db: &Database, session: &Session) -> Result<Live, Fault> {
        let schema = session.schema.as_str();
        let changed_at = self.changed_at(schema);
        let read = async || {
            let (stamp, read_at) = (self.clock.load(Ordering::SeqCst), Instant::now());
            let lease = db.lease(session.tenant).await?;
            let role = session.role(Role::Data);
            let loading = load(lease.client(), schema, &role);
            let loaded = tokio::time::timeout(READING, loading).await;
            let catalog =
                loaded.map_err(|_| Fault::Away("a schema is read for too long".into()))?;
            lease.settle();
            Ok::<_, Fault>(Live {
                catalog: Arc::new(catalog?),
                stamp,
                read_at,
            })
        };
        loop {
            // One reading for all who wait; it may have begun before the change.
            let live = self.cache.try_get_with_by_ref(schema, read()).await;
            let live = live.map_err(Fault::shared)?;
            if live.stamp >= changed_at {
                return Ok(live);
            }
            self.forget(&live).await;
        }
    }

    /// Forgets a catalog, where no newer one has come meanwhile.
    async fn forget(&self, old: &Live) {
        let schema = old.catalog.schema.as_str();
        if let Some(live) = self.cache.get(schema).await
            && Arc::ptr_eq(&live.catalog, &old.catalog)
        {
            self.cache.invalidate(schema).await;
        }
    }

    /// After something that `old` does not explain: the schema read anew; none: it is as it
    /// was. Where only a name was not found, which anybody can have as often as they like,
    /// it is not read again a moment after it was; `sure`: PostgreSQL itself missed it.
    pub(crate) async fn suspect(
        &self,
        db: &Database,
        session: &Session,
        old: &Live,
        sure: bool,
    ) -> Result<Option<Live>, Fault> {
        let schema = session.schema.as_str();
        let cached = self.cache.get(schema).await;
        let newer = cached.is_some_and(|live| !Arc::ptr_eq(&live.catalog, &old.catalog));
        if (sure || old.read_at.elapsed() >= AGAIN) && !newer {
            self.changed(schema);
        }
        let new = self.get(db, session).await?;
        Ok((new.catalog.fingerprint != old.catalog.fingerprint).then_some(new))
    }

    /// Something in a schema has changed.
    pub(crate) fn changed(&self, schema: &str) {
        let now = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() >= MAX_CHANGES {
            changes.clear();
            self.everything.store(now, Ordering::SeqCst);
        }
        changes.insert(schema.to_owned(), now);
    }

    /// Changes may have been missed.
    pub(crate) fn all_changed(&self) {
        let now = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        self.everything.store(now, Ordering::SeqCst);
    }

    fn changed_at(&self, schema: &str) -> u64 {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = changes.get(schema).copied().unwrap_or_default();
        own.max(self.everything.load(Ordering::SeqCst))
    }

    /// The schemas in use, with their fingerprints.
    pub(crate) fn in_use(&self) -> Vec<(String, String)> {
        let entry = |(schema, live): (Arc<String>, Live)| {
            ((*schema).clone(), live.catalog.fingerprint.clone())
        };
        self.cache.iter().map(entry).collect()
    }
}
