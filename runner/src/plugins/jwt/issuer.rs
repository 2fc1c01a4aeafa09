//! One trusted issuer: its settings, its keys, and the wish for newer ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use jsonwebtoken::{Algorithm, Header};
use moka::sync::Cache;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::keyring::Keyring;
use super::keys::{Key, KeySet, Rules, Unfit};
use super::refusal::Refusal;
use super::settings::{FetchSettings, IssuerSettings};
use super::template::{SLUG, Template};

/// Names of unknown keys that are remembered; beyond it the oldest is asked for again.
const MAX_UNKNOWN: u64 = 1_000;

/// One trusted issuer.
pub(super) struct Issuer {
    name: String,
    /// Of the template that stands for it.
    slug: Option<String>,
    pub(super) settings: Arc<IssuerSettings>,
    algorithms: Vec<Algorithm>,
    leeway: u64,
    pub(super) fetch: FetchSettings,
    ring: Mutex<Keyring>,
    /// What the ring holds, for requests.
    keys: ArcSwap<KeySet>,
    /// Names that a fetch did not bring a short while ago; made when there is one, as
    /// it takes more memory than all the rest.
    unknown: OnceLock<Cache<String, ()>>,
    /// Who fetches at the same time.
    turns: Arc<Semaphore>,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Fetches that have begun.
    begun: AtomicU64,
    /// The last that ended.
    ended: watch::Sender<Ended>,
    /// It is not needed any more.
    retired: CancellationToken,
}

/// A fetch that is over.
#[derive(Clone, Copy, Default)]
struct Ended {
    number: u64,
    how: Outcome,
}

/// What came of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    Keys,
    #[default]
    Failure,
    /// There is no such issuer.
    NoIssuer,
}

impl Issuer {
    /// The issuer that the settings name; for a template, the one with this slug. Its
    /// keys are fetched in one of these turns.
    pub(super) fn new(
        settings: Arc<IssuerSettings>,
        slug: Option<&str>,
        leeway: u64,
        fetch: FetchSettings,
        turns: Arc<Semaphore>,
    ) -> Self {
        Self {
            name: expand(&settings.issuer, slug),
            slug: slug.map(str::to_owned),
            algorithms: settings
                .algorithms
                .iter()
                .map(|algorithm| (*algorithm).into())
                .collect(),
            settings,
            leeway,
            fetch,
            ring: Mutex::default(),
            keys: ArcSwap::default(),
            unknown: OnceLock::new(),
            turns,
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::default(),
            retired: CancellationToken::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn slug(&self) -> Option<&str> {
        self.slug.as_deref()
    }

    /// One of its configured addresses.
    pub(super) fn address(&self, uri: &str) -> String {
        expand(uri, self.slug())
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.load().is_empty()
    }

    /// The key that a token names. One that is not known is waited for, but no longer
    /// than `fetch.waitMs`: until a fetch is over that began after this was asked, so
    /// what the issuer published before it signed the token is then known. One fetch
    /// serves all who wait; there is at most one per `fetch.unknownKeyMs`, and a name
    /// that it did not bring is not asked for again for `fetch.unknownKeySeconds`.
    pub(super) async fn key(&self, header: &Header) -> Result<Arc<Key>, Refusal> {
        match self.known(header) {
            Err(Unfit::Unknown) => {}
            known => return Ok(known?),
        }
        if header.kid.as_ref().is_some_and(|kid| self.is_unknown(kid)) {
            return Err(Refusal::UnknownKey);
        }
        let mut ended = self.ended.subscribe();
        let enough = self.begun.load(Ordering::Acquire) + 1;
        self.wanted.notify_one();
        let waiting = async {
            loop {
                let last = *ended.borrow_and_update();
                match self.known(header) {
                    Err(Unfit::Unknown) if last.number >= enough => {
                        return Err(self.still_unknown(header, last.how));
                    }
                    Err(Unfit::Unknown) => {}
                    known => return Ok(known?),
                }
                if ended.changed().await.is_err() {
                    return Err(Refusal::NoKeys);
                }
            }
        };
        // Beyond the wait nobody knows whether the token is good.
        timeout(self.fetch.wait(), waiting)
            .await
            .unwrap_or(Err(Refusal::NoKeys))
    }

    fn known(&self, header: &Header) -> Result<Arc<Key>, Unfit> {
        self.keys.load().find(header).map(Arc::clone)
    }

    fn still_unknown(&self, header: &Header, how: Outcome) -> Refusal {
        match (how, &header.kid) {
            _ if self.is_nobody() => return Refusal::UntrustedIssuer,
            (Outcome::Failure | Outcome::NoIssuer, _) => return Refusal::NoKeys,
            (Outcome::Keys, Some(kid)) => self.unknown().insert(kid.clone(), ()),
            (Outcome::Keys, None) => {}
        }
        Refusal::UnknownKey
    }

    fn is_unknown(&self, kid: &String) -> bool {
        let unknown = self.unknown.get();
        unknown.is_some_and(|unknown| unknown.contains_key(kid))
    }

    fn unknown(&self) -> &Cache<String, ()> {
        self.unknown.get_or_init(|| {
            Cache::builder()
                .max_capacity(MAX_UNKNOWN)
                .time_to_live(self.fetch.unknown_kid())
                .build()
        })
    }

    /// Where the settings say that its keys are.
    pub(super) fn jwks_uri(&self) -> Option<String> {
        let uri = self.settings.jwks_uri.as_ref();
        uri.map(|uri| self.address(uri))
    }

    /// What the issuer sent, as a key set.
    pub(super) fn read(&self, json: &[u8]) -> Result<KeySet, String> {
        let rules = Rules {
            issuer: self.name(),
            algorithms: &self.algorithms,
            leeway: self.leeway,
        };
        KeySet::read(json, &rules)
    }

    /// Takes a fetched key set into use.
    pub(super) fn take(&self, new: KeySet) {
        let (grace, keep) = (self.fetch.grace(), self.fetch.keep());
        self.change(|ring| {
            // Nobody would end the keys of an issuer that is forgotten.
            if !self.retired.is_cancelled() {
                ring.replace(new, Instant::now(), grace, keep);
            }
        });
    }

    /// Takes the set of a process before into use, for as long as it is good.
    pub(super) fn inherit(&self, set: KeySet, good_for: Duration) {
        let until = Instant::now() + good_for.min(self.fetch.keep());
        self.change(|ring| ring.inherit(set, until));
    }

    /// The last set that it published, and for how long that is good.
    pub(super) fn published(&self) -> Option<(Value, Duration)> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, until) = ring.published()?;
        Some((set, until.saturating_duration_since(Instant::now())))
    }

    /// A token names it. What a process before left is good, but may be old: once it is
    /// used it is fetched.
    pub(super) fn make_sure(&self) {
        if self.begun.load(Ordering::Acquire) == 0 {
            self.wanted.notify_one();
        }
    }

    /// Until there is a turn to fetch.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// Changes the ring, and what requests see of it.
    fn change(&self, change: impl FnOnce(&mut Keyring)) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ring);
        self.keys.store(Arc::new(ring.set()));
    }

    fn next_end(&self) -> Option<Instant> {
        self.ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_end()
    }

    /// Does the work, and ends keys whose time comes meanwhile.
    pub(super) async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let next = self.next_end();
            let ends = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = &mut work => return done,
                () = ends => self.change(|ring| ring.end(Instant::now())),
            }
        }
    }

    /// Until somebody wants newer keys.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The number of a fetch that begins.
    pub(super) fn fetch_begins(&self) -> u64 {
        // Whoever wanted one by now gets this one; nobody needs another for that.
        let _ = self.wanted.notified().now_or_never();
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(super) fn fetch_ended(&self, number: u64, how: Outcome) {
        self.ended.send_replace(Ended { number, how });
    }

    /// Whether it is of a template and a fetch found that there is no such issuer. One
    /// that is named or had keys is taken to be away for a while.
    pub(super) fn is_nobody(&self) -> bool {
        self.slug.is_some() && !self.has_keys() && self.ended.borrow().how == Outcome::NoIssuer
    }

    /// It is forgotten: its keys verify nothing more, and are not fetched any more.
    pub(super) fn retire(&self) {
        self.retired.cancel();
        self.change(Keyring::clear);
    }

    pub(super) fn retired(&self) -> &CancellationToken {
        &self.retired
    }
}

/// A text of the settings with its slug.
fn expand(text: &str, slug: Option<&str>) -> String {
    let template = slug.and_then(|slug| Some((Template::parse(text)?, slug)));
    match template {
        Some((template, slug)) => template.with(slug),
        None => {
            debug_assert!(
                slug.is_none() || !text.contains(SLUG),
                "checked at the start"
            );
            text.to_owned()
        }
    }
}
