//! The directory of tenants and workspaces: asked, cached, watched.
//!
//! ```text
//! Watch ── heartbeat ──► live, in an epoch     cached entry of this epoch: used at once
//!       ── changed ────► entry dropped         anything else: asked for, one flight a key
//!       ── gap, reset ─► a new epoch           no answer: a known entry, for maxStaleness
//!       ── silence ────► not live, reconnect
//! ```
//!
//! An entry is good for as long as the watch that stood when it was asked for has neither
//! broken nor said that the entry changed. An answer older than what the watch has said
//! already is used for the request that asked and not kept.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hyper_util::rt::TokioIo;
use moka::sync::Cache;
use postern_contract::{TenantId, WorkspaceId};
use postern_directory::directory_client::DirectoryClient;
use postern_directory::event::Kind;
use postern_directory::get_request::Key;
use postern_directory::get_response::Entry as Answer;
use postern_directory::{Event, GetRequest, SILENCE, Tenant, WatchRequest, Workspace};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// How long a question may take before the directory counts as away.
const ANSWER: Duration = Duration::from_millis(500);
/// How long it then counts as away without being asked again.
const AWAY: Duration = Duration::from_secs(1);
/// How long an id without an entry is remembered, and how many of them.
const MISSING: Duration = Duration::from_secs(5);
const MAX_MISSING: u64 = 10_000;
/// Between two attempts to watch, at most.
const MAX_RECONNECT: Duration = Duration::from_secs(1);

/// Where the directory is.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(Box<Endpoint>),
}

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
    /// The watch that was live when it was asked for; 0: none was.
    epoch: u64,
    asked_at: Instant,
}

/// The directory does not answer, and nothing fresh enough is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the directory is away")]
pub(super) struct Away;

type Flight = Shared<BoxFuture<'static, Result<Arc<Entry>, Away>>>;

/// The directory as this process knows it.
pub(super) struct Directory {
    address: Address,
    max_staleness: Duration,
    client: ArcSwap<DirectoryClient<Channel>>,
    known: Cache<Box<str>, Arc<Entry>, RandomState>,
    missing: Cache<Box<str>, Arc<Entry>, RandomState>,
    flights: Mutex<HashMap<String, Flight>>,
    /// The epoch of the watch; 0: there is none. Read by every request.
    live: AtomicU64,
    /// Held while an entry is kept or dropped, so that neither overtakes the other.
    link: Mutex<Link>,
}

/// What the watch has said so far.
#[derive(Default)]
struct Link {
    /// The last epoch, live or not.
    epoch: u64,
    revision: u64,
    /// When the last watch broke.
    lost_at: Option<Instant>,
    away_until: Option<Instant>,
}

impl Address {
    /// `unix:/path` or `http://host:port`.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        const FIELD: &str = "plugins.authorize.directory";
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if !text.starts_with("http://") {
            bail!("{FIELD}: {text:?} is neither unix:/path nor http://host:port");
        }
        let endpoint = Endpoint::from_shared(text.to_owned()).context(FIELD)?;
        Ok(Self::Tcp(Box::new(
            endpoint.connect_timeout(ANSWER).tcp_nodelay(true),
        )))
    }

    /// A client that connects when it is first used.
    fn client(&self) -> DirectoryClient<Channel> {
        let channel = match self {
            Self::Tcp(endpoint) => endpoint.connect_lazy(),
            Self::Unix(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                // The name is for the request's authority only.
                Endpoint::from_static("http://directory").connect_with_connector_lazy(connect)
            }
        };
        DirectoryClient::new(channel)
    }
}

impl Directory {
    pub(super) fn new(address: Address, max_staleness: Duration, capacity: u64) -> Self {
        let cache = |capacity| Cache::builder().max_capacity(capacity);
        Self {
            client: ArcSwap::from_pointee(address.client()),
            address,
            max_staleness,
            known: cache(capacity).build_with_hasher(RandomState::new()),
            missing: cache(MAX_MISSING)
                .time_to_live(MISSING)
                .build_with_hasher(RandomState::new()),
            flights: Mutex::default(),
            live: AtomicU64::new(0),
            link: Mutex::default(),
        }
    }

    pub(super) fn client(&self) -> DirectoryClient<Channel> {
        DirectoryClient::clone(&self.client.load())
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
        let known = self.known.get(id).filter(of_now);
        known.or_else(|| self.missing.get(id).filter(of_now))
    }

    /// What the directory says of an id, or has said not too long ago if it is away.
    pub(super) async fn find(self: &Arc<Self>, id: &str) -> Result<Arc<Entry>, Away> {
        let Some(key) = key(id) else {
            // What is no id names nothing; there is no need to ask.
            return Ok(Arc::new(Entry {
                value: None,
                epoch: 0,
                asked_at: Instant::now(),
            }));
        };
        match self.ask(id, key).await {
            Ok(entry) => Ok(entry),
            Err(Away) => self
                .known
                .get(id)
                .filter(|entry| self.fresh_enough(entry))
                .ok_or(Away),
        }
    }

    /// One question for all who ask the same at the same time.
    async fn ask(self: &Arc<Self>, id: &str, key: Key) -> Result<Arc<Entry>, Away> {
        if self
            .link()
            .away_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(Away);
        }
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(id) {
                Some(flight) => flight.clone(),
                None => {
                    // A task of its own: it ends even if everybody who waits gives up.
                    let task = tokio::spawn(Arc::clone(self).fly(id.to_owned(), key));
                    let flight = async { task.await.unwrap_or(Err(Away)) }.boxed().shared();
                    flights.insert(id.to_owned(), flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    async fn fly(self: Arc<Self>, id: String, key: Key) -> Result<Arc<Entry>, Away> {
        let epoch = self.live.load(Ordering::Acquire);
        let asked_at = Instant::now();
        let mut client = self.client();
        let answer = timeout(ANSWER, client.get(GetRequest { key: Some(key) })).await;
        let outcome = match answer {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                let value = answer.entry.map(|entry| match entry {
                    Answer::Tenant(tenant) => Value::Tenant(tenant),
                    Answer::Workspace(workspace) => Value::Workspace(workspace),
                });
                let entry = Arc::new(Entry {
                    value,
                    epoch,
                    asked_at,
                });
                self.keep(&id, &entry, answer.revision);
                Ok(entry)
            }
            failed => {
                let error = failed.map_or("no answer in time".into(), |status| {
                    status
                        .err()
                        .map(|status| status.to_string())
                        .unwrap_or_default()
                });
                tracing::warn!(error, "the directory is away");
                self.link().away_until = Some(Instant::now() + AWAY);
                Err(Away)
            }
        };
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        outcome
    }

    /// Remembers an answer, unless the watch has said something since that it may not know of.
    fn keep(&self, id: &str, entry: &Arc<Entry>, revision: u64) {
        let mut link = self.link();
        link.away_until = None;
        if revision < link.revision {
            return;
        }
        let (in_it, other) = match entry.value {
            Some(_) => (&self.known, &self.missing),
            None => (&self.missing, &self.known),
        };
        other.invalidate(id);
        in_it.insert(id.into(), Arc::clone(entry));
    }

    /// Whether an entry may be used while the directory is away.
    fn fresh_enough(&self, entry: &Entry) -> bool {
        let link = self.link();
        // Of the last watch's epoch: it was true for as long as that watch stood.
        let true_at = match link.lost_at {
            Some(lost_at) if entry.epoch == link.epoch => lost_at,
            _ => entry.asked_at,
        };
        true_at.elapsed() <= self.max_staleness
    }

    /// Watches for changes for as long as the process lives.
    pub(super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            let mut pause = Duration::ZERO;
            loop {
                // A new connection each time: the old one may be dead without knowing it.
                let client = self.address.client();
                self.client.store(Arc::new(client.clone()));
                let reason = self.follow(client).await;
                if self.lost() {
                    tracing::warn!(reason, "the directory is no longer watched; reconnecting");
                    pause = Duration::ZERO;
                }
                sleep(pause).await;
                pause = (pause * 2).clamp(Duration::from_millis(50), MAX_RECONNECT);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Follows one watch until it breaks, and says why it did.
    async fn follow(&self, mut client: DirectoryClient<Channel>) -> String {
        const SILENT: &str = "no heartbeat in time";
        let mut events = match timeout(SILENCE, client.watch(WatchRequest {})).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return status.to_string(),
            Err(_) => return SILENT.into(),
        };
        let mut first = true;
        loop {
            match timeout(SILENCE, events.message()).await {
                Ok(Ok(Some(event))) => self.take(event, std::mem::take(&mut first)),
                Ok(Ok(None)) => return "the stream ended".into(),
                Ok(Err(status)) => return status.to_string(),
                Err(_) => return SILENT.into(),
            }
        }
    }

    fn take(&self, Event { revision, kind }: Event, first: bool) {
        let mut link = self.link();
        let known = link.revision;
        link.revision = revision;
        let missed_nothing = match &kind {
            Some(Kind::Heartbeat(_)) => revision == known,
            Some(Kind::TenantChanged(id) | Kind::WorkspaceChanged(id)) => {
                self.known.invalidate(&**id);
                self.missing.invalidate(&**id);
                revision == known || revision == known.saturating_add(1)
            }
            // Forget everything; or something that this version does not know.
            Some(Kind::Reset(_)) | None => false,
        };
        if first || !missed_nothing {
            link.epoch += 1;
            link.away_until = None;
            self.live.store(link.epoch, Ordering::Release);
        }
    }

    /// The watch broke. Whether it had stood.
    fn lost(&self) -> bool {
        let mut link = self.link();
        let stood = self.live.swap(0, Ordering::AcqRel) != 0;
        if stood {
            link.lost_at = Some(Instant::now());
        }
        stood
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
