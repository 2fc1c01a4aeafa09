//! The directory of tenants and workspaces: asked, cached, watched.
//!
//! ```text
//! Watch ── heartbeat ──► live, in an epoch     cached entry of this epoch: used at once
//!       ── changed ────► entry dropped         anything else: asked for, one flight a key
//!       ── gap, reset ─► a new epoch           no answer: a known entry, for maxStaleness
//!       ── silence ────► not live, reconnect
//! ```
//!
//! An entry is good for as long as the watch under which it was kept has neither broken
//! nor said that the entry changed ([`link`]). An answer that does not know of a change of
//! its key which the watch has told is used for those who asked before that was heard, and
//! not kept. `docs/directory.md` has what follows from it, with the numbers.

mod address;
mod flights;
mod link;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use futures::FutureExt as _;
use postern_contract::{TenantId, WorkspaceId};
use postern_directory::directory_client::DirectoryClient;
use postern_directory::get_request::Key;
use postern_directory::get_response::Entry as Answer;
use postern_directory::{GetRequest, GetResponse, Tenant, Workspace};
use tokio::sync::watch::Sender;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use crate::plugins::cache;
pub(in crate::plugins) use address::Address;
pub use address::DirectoryTls;
use flights::Flights;
use link::Link;

/// How long a question may take before the directory counts as away.
const ANSWER: Duration = Duration::from_millis(500);
/// How long it then counts as away without being asked again, unless a watch stands before.
const AWAY: Duration = Duration::from_secs(1);
/// How long an id without an entry is remembered, and how many of them.
const MISSING: Duration = Duration::from_secs(5);
const MAX_MISSING: u64 = 10_000;

type Entries = cache::Entries<Box<str>, Arc<Entry>, RandomState>;

/// A tenant or a workspace.
#[derive(Debug)]
pub(super) enum Value {
    Tenant(Tenant),
    Workspace(Workspace),
}

/// What the directory said of an id.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None`: there is no such tenant or workspace.
    pub(super) value: Option<Value>,
    /// It knows of every change up to this one.
    revision: u64,
    /// The epoch in which it was kept; 0: none.
    epoch: u64,
    asked_at: Instant,
}

/// The directory does not answer, and nothing fresh enough is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the directory is away")]
pub(super) struct Away;

/// The directory as this process knows it.
pub(super) struct Directory {
    address: Address,
    max_staleness: Duration,
    /// Replaced whenever the watch breaks.
    connection: Sender<DirectoryClient<Channel>>,
    known: Entries,
    missing: Entries,
    flights: Flights,
    /// The epoch of the watch; 0: there is none. Read by every request.
    live: AtomicU64,
    /// Held while an entry is kept or dropped, so that neither overtakes the other.
    link: Mutex<Link>,
}

impl Directory {
    pub(super) fn new(address: Address, max_staleness: Duration, capacity: u64) -> Self {
        let cache = |capacity| cache::with_room(capacity, RandomState::new());
        Self {
            connection: Sender::new(address.client()),
            address,
            max_staleness,
            known: cache(capacity),
            missing: cache(MAX_MISSING),
            flights: Flights::default(),
            live: AtomicU64::new(0),
            link: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn client(&self) -> DirectoryClient<Channel> {
        self.connection.borrow().clone()
    }

    /// Whether changes are being watched.
    pub(super) fn ready(&self) -> Result<(), String> {
        match self.live.load(Ordering::Acquire) {
            0 => Err("the directory is not being watched".into()),
            _ => Ok(()),
        }
    }

    /// What is known of an id and may be used without asking.
    pub(super) fn cached(&self, id: &str) -> Option<Arc<Entry>> {
        let live = self.live.load(Ordering::Acquire);
        if live == 0 {
            return None;
        }
        let of_now = |entry: &Arc<Entry>| entry.epoch == live;
        let lately = |entry: &Arc<Entry>| of_now(entry) && entry.asked_at.elapsed() < MISSING;
        let known = self.known.get(id).filter(of_now);
        known.or_else(|| self.missing.get(id).filter(lately))
    }

    /// What the directory says of an id, or has said not too long ago if it is away.
    pub(super) async fn find(self: &Arc<Self>, id: &str) -> Result<Arc<Entry>, Away> {
        let Some(key) = key(id) else {
            // What is no id names nothing; there is no need to ask.
            return Ok(Arc::new(Entry {
                value: None,
                revision: 0,
                epoch: 0,
                asked_at: Instant::now(),
            }));
        };
        match self.ask(id, key).await {
            Ok(entry) => Ok(entry),
            Err(Away) => {
                let entry = self.known.get(id);
                let entry = entry.filter(|entry| self.fresh_enough(entry)).ok_or(Away)?;
                metrics::counter!("postern_directory_stale_total").increment(1);
                Ok(entry)
            }
        }
    }

    async fn ask(self: &Arc<Self>, id: &str, key: Key) -> Result<Arc<Entry>, Away> {
        if self
            .link()
            .away_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(Away);
        }
        let start = |number| {
            // A task of its own: it ends even if everybody who waits gives up.
            let task = tokio::spawn(Arc::clone(self).fly(id.to_owned(), key, number));
            async { task.await.unwrap_or(Err(Away)) }.boxed()
        };
        let flight = self.flights.join(id, start);
        flight.await
    }

    async fn fly(self: Arc<Self>, id: String, key: Key, number: u64) -> Result<Arc<Entry>, Away> {
        let asked_at = Instant::now();
        let outcome = match self.get(key).await {
            Ok(answer) => Ok(self.keep(&id, answer, asked_at)),
            Err(error) => {
                tracing::warn!(error, "the directory is away");
                metrics::counter!("postern_directory_failures_total").increment(1);
                self.link().away_until = Some(Instant::now() + AWAY);
                Err(Away)
            }
        };
        self.flights.landed(&id, number);
        outcome
    }

    /// Asks; once more if the connection was given up meanwhile, because what goes over a
    /// dead one is lost and says nothing of the directory.
    async fn get(&self, key: Key) -> Result<GetResponse, String> {
        let mut connections = self.connection.subscribe();
        let ask = async |mut client: DirectoryClient<Channel>| {
            let request = GetRequest {
                key: Some(key.clone()),
            };
            match timeout(ANSWER, client.get(request)).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(status.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            }
        };
        let client = connections.borrow_and_update().clone();
        tokio::select! {
            biased;
            answer = ask(client) => match answer {
                Err(_) if connections.has_changed().unwrap_or(false) => {}
                answer => return answer,
            },
            _ = connections.changed() => {}
        }
        let client = connections.borrow_and_update().clone();
        ask(client).await
    }

    /// Remembers an answer, unless its key has changed since.
    fn keep(&self, id: &str, answer: GetResponse, asked_at: Instant) -> Arc<Entry> {
        let GetResponse { revision, entry } = answer;
        let value = entry.map(|entry| match entry {
            Answer::Tenant(tenant) => Value::Tenant(tenant),
            Answer::Workspace(workspace) => Value::Workspace(workspace),
        });
        let mut link = self.link();
        link.away_until = None;
        let entry = Arc::new(Entry {
            value,
            revision,
            epoch: self.live.load(Ordering::Acquire),
            asked_at,
        });
        if !link.is_news(id, revision) {
            return entry;
        }
        let (in_it, other) = match entry.value {
            Some(_) => (&self.known, &self.missing),
            None => (&self.missing, &self.known),
        };
        other.remove(id);
        in_it.insert(id.into(), Arc::clone(&entry));
        entry
    }

    /// Drops what is remembered of an id, unless it knows of this change already: the watch
    /// may tell later than an answer does.
    fn drop_older(&self, id: &str, revision: u64) {
        for cache in [&self.known, &self.missing] {
            if cache.get(id).is_some_and(|entry| entry.revision < revision) {
                cache.remove(id);
            }
        }
    }

    /// Whether an entry may be used while the directory is away.
    fn fresh_enough(&self, entry: &Entry) -> bool {
        let held_until = self.link().held_until(entry.epoch);
        let true_at = held_until.map_or(entry.asked_at, |until| until.max(entry.asked_at));
        true_at.elapsed() <= self.max_staleness
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a report that is refused so would be refused again.
pub(in crate::plugins) fn is_final(code: tonic::Code) -> bool {
    // The second is said of a message that is larger than the other side takes.
    matches!(code, tonic::Code::InvalidArgument | tonic::Code::OutOfRange)
}

/// An id as a question; `None` if it is no id.
fn key(id: &str) -> Option<Key> {
    if id.parse::<TenantId>().is_ok() {
        Some(Key::TenantId(id.to_owned()))
    } else if id.parse::<WorkspaceId>().is_ok() {
        Some(Key::WorkspaceId(id.to_owned()))
    } else {
        None
    }
}
