//! One trusted issuer: its settings, the last good key set, and the wish for a newer one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::cache::Verified;
use super::claims::{self, Claims};
use super::keys::{KeySet, Rules};
use super::refusal::Refusal;
use super::settings::{FetchSettings, IssuerSettings};

/// One trusted issuer.
pub(super) struct Issuer {
    settings: IssuerSettings,
    algorithms: Vec<Algorithm>,
    leeway: u64,
    pub(super) fetch: FetchSettings,
    keys: ArcSwap<KeySet>,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Whether a fetch runs that a request may wait for.
    running: AtomicBool,
    /// Fetches that ended, well or not.
    ended: watch::Sender<u64>,
    last_end: Mutex<Option<Instant>>,
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings, leeway: u64, fetch: FetchSettings) -> Self {
        Self {
            algorithms: settings
                .algorithms
                .iter()
                .map(|algorithm| (*algorithm).into())
                .collect(),
            settings,
            leeway,
            fetch,
            keys: ArcSwap::default(),
            wanted: Notify::new(),
            // The first fetch begins with the process.
            running: AtomicBool::new(true),
            ended: watch::Sender::new(0),
            last_end: Mutex::new(None),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.issuer
    }

    pub(super) fn audiences(&self) -> &[String] {
        &self.settings.audiences
    }

    pub(super) fn jwks_uri(&self) -> Option<&str> {
        self.settings.jwks_uri.as_deref()
    }

    pub(super) fn keys(&self) -> Arc<KeySet> {
        self.keys.load_full()
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.load().is_empty()
    }

    pub(super) fn generation(&self) -> u64 {
        self.keys.load().generation()
    }

    /// Takes a fetched key set into use. What was there before is dropped: a key that the
    /// issuer no longer publishes verifies nothing more.
    pub(super) fn replace_keys(&self, json: &[u8]) -> Result<(), String> {
        let rules = Rules {
            issuer: self.name(),
            algorithms: &self.algorithms,
            leeway: self.leeway,
        };
        let new = KeySet::read(json, &rules)?;
        let before = self.keys();
        self.keys.store(Arc::new(new.after(&before)));
        Ok(())
    }

    /// What a verified token of this issuer says.
    pub(super) fn read(
        &self,
        position: usize,
        generation: u64,
        claims: &Claims,
    ) -> Result<Verified, Refusal> {
        Ok(Verified {
            identity: Arc::new(claims::identity(claims, &self.settings.claims)?),
            issuer: position,
            generation,
            audiences: claims::audiences(claims)?,
            not_before: claims::seconds(claims, "nbf")?,
            expires_at: claims::seconds(claims, "exp")?,
        })
    }

    /// Has the keys fetched once for all who ask at the same time, and waits for it, but
    /// no longer than `fetch.wait_ms`. Shortly after a fetch nothing happens, so that
    /// invented key names cost the issuer at most one fetch per `fetch.unknown_key_ms`.
    pub(super) async fn await_newer_keys(&self) {
        let mut ended = self.ended.subscribe();
        if !self.running.load(Ordering::Acquire) {
            let last = *self.last_end.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|end| end.elapsed() < self.fetch.unknown_key()) {
                return;
            }
            self.running.store(true, Ordering::Release);
            self.wanted.notify_one();
        }
        // Beyond the wait the request is answered with what is known.
        let _ = timeout(self.fetch.wait(), ended.changed()).await;
    }

    /// Until somebody wants newer keys.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub(super) fn fetch_begins(&self) {
        self.running.store(true, Ordering::Release);
    }

    pub(super) fn fetch_ended(&self) {
        *self.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.running.store(false, Ordering::Release);
        self.ended.send_modify(|count| *count += 1);
    }
}
