//! Whom the runner trusts: issuers by name, and templates of many.
//!
//! An issuer of a template is made when a token names it first, and is on trial until
//! its keys have come: only then does it take a place among those that are known, so
//! names that somebody invents push out nobody. Those that do not exist are remembered
//! for a while, and only so many are looked for in a second: for one client address, so
//! that who invents names is in nobody's way but its own, and for all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::fetch::{Http, keep_fetching};
use super::issuer::Issuer;
use super::refusal::Refusal;
use super::settings::{FetchSettings, IssuerSettings, JwtSettings};
use super::template::{SLUG, Template, allows};
use crate::plugins::limits::gcra::Limit;
use crate::plugins::limits::limiter::Limiter;
use crate::plugins::limits::store::Buckets;
use crate::plugins::limits::{Items, address_key, microseconds};

/// Issuers that one address may bring up at once, before `newIssuersPerSecond` counts: a
/// worker that was killed has left nothing, and many clients may share an address.
pub(super) const BURST: u32 = 200;
/// The same for all addresses together, which may bring up so many times more a second.
const BURST_OF_ALL: u32 = 1_000;
const MORE: u64 = 10;
/// Addresses that are counted at once.
const ADDRESSES: usize = 8_192;
/// Issuers of one template whose keys are fetched at the same time.
const FETCHES: usize = 32;
/// Issuers on trial at once, and how long one may be.
const MAX_TRIALS: u64 = 1_000;
const TRIAL: Duration = Duration::from_secs(60);
/// A known issuer of a template that no token named for so long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// Names without an issuer that are remembered.
const MAX_NOBODIES: u64 = 10_000;

/// Whom the runner trusts.
pub(super) struct Trust {
    named: HashMap<String, Arc<Issuer>>,
    families: Vec<Family>,
    /// Of templates, with keys.
    known: Cache<Box<str>, Arc<Issuer>>,
    /// Of templates, without keys yet.
    trials: Cache<Box<str>, Arc<Issuer>>,
    nobodies: Cache<Box<str>, ()>,
    newcomers: Limiter,
    leeway: u64,
    fetch: FetchSettings,
    pub(super) http: Http,
}

/// The issuers of one template.
struct Family {
    settings: Arc<IssuerSettings>,
    template: Template,
    turns: Arc<Semaphore>,
}

impl Trust {
    pub(super) fn new(settings: &JwtSettings) -> Self {
        let (leeway, fetch) = (settings.leeway_seconds, settings.fetch);
        let (mut named, mut families) = (HashMap::new(), Vec::new());
        for issuer in settings.issuers.iter().cloned().map(Arc::new) {
            match Template::parse(&issuer.issuer) {
                Some(template) if issuer.issuer.contains(SLUG) => families.push(Family {
                    settings: issuer,
                    template,
                    turns: Arc::new(Semaphore::new(FETCHES)),
                }),
                _ => {
                    let (name, turns) = (issuer.issuer.clone(), Arc::new(Semaphore::new(1)));
                    let issuer = Issuer::new(issuer, None, leeway, fetch, turns);
                    named.insert(name, Arc::new(issuer));
                }
            }
        }
        let cache = |capacity| {
            Cache::builder()
                .max_capacity(capacity)
                // The usual policy would rather refuse a newcomer than push one out.
                .eviction_policy(EvictionPolicy::lru())
                .eviction_listener(|_, issuer: Arc<Issuer>, cause| {
                    // Explicit: it moves on to those that are known.
                    if cause != RemovalCause::Explicit {
                        issuer.retire();
                    }
                })
        };
        Self {
            named,
            families,
            known: cache(settings.max_issuers).time_to_idle(IDLE).build(),
            trials: cache(MAX_TRIALS).time_to_live(TRIAL).build(),
            nobodies: Cache::builder()
                .max_capacity(MAX_NOBODIES)
                .time_to_live(fetch.unknown_issuer())
                .build(),
            newcomers: Limiter::local(Buckets::new(ADDRESSES)),
            leeway,
            fetch,
            http: Http::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.families.is_empty()
    }

    /// Whether the settings name an issuer, or a template, so.
    pub(super) fn names(&self, name: &str) -> bool {
        let of_family = |family: &Family| family.settings.issuer == name;
        self.named.contains_key(name) || self.families.iter().any(of_family)
    }

    /// The issuers that are there from the start.
    pub(super) fn named(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.named.values()
    }

    /// All that are known, those that are named first.
    pub(super) fn settled(&self) -> impl Iterator<Item = Arc<Issuer>> {
        let of_templates = self.known.iter().map(|(_, issuer)| issuer);
        self.named().cloned().chain(of_templates)
    }

    /// The issuer of this name, if it is trusted; `from` is the client that names it.
    pub(super) fn find(&self, name: &str, from: Option<IpAddr>) -> Result<Arc<Issuer>, Refusal> {
        if let Some(issuer) = self
            .named
            .get(name)
            .cloned()
            .or_else(|| self.known.get(name))
        {
            issuer.make_sure();
            return Ok(issuer);
        }
        let (family, slug) = self.family(name).ok_or(Refusal::UntrustedIssuer)?;
        if self.nobodies.contains_key(name) {
            return Err(Refusal::UntrustedIssuer);
        }
        if let Some(issuer) = self.trials.get(name) {
            self.settle(&issuer);
            return if issuer.is_nobody() {
                Err(Refusal::UntrustedIssuer)
            } else {
                Ok(issuer)
            };
        }
        if !self.admits(from) {
            return Err(Refusal::NoKeys);
        }
        let issuer = self.trials.get_with(name.into(), || {
            let issuer = self.make(family, slug);
            tokio::spawn(keep_fetching(Arc::clone(&issuer), self.http.clone()));
            issuer
        });
        Ok(issuer)
    }

    /// Has the issuer of this name, if it is trusted, given its keys. One of a template is
    /// known if it then has some.
    pub(super) fn take_in(&self, name: &str, give: impl FnOnce(&Issuer)) {
        if let Some(issuer) = self.named.get(name) {
            give(issuer);
        } else if let Some((family, slug)) = self.family(name) {
            let issuer = self.make(family, slug);
            give(&issuer);
            if issuer.has_keys() {
                tokio::spawn(keep_fetching(Arc::clone(&issuer), self.http.clone()));
                self.known.insert(name.into(), issuer);
            }
        }
    }

    fn make(&self, family: &Family, slug: &str) -> Arc<Issuer> {
        let (settings, turns) = (Arc::clone(&family.settings), Arc::clone(&family.turns));
        let issuer = Issuer::new(settings, Some(slug), self.leeway, self.fetch, turns);
        Arc::new(issuer)
    }

    /// Ends the trial of an issuer of which something is known by now.
    pub(super) fn settle(&self, issuer: &Arc<Issuer>) {
        let name = issuer.name();
        if issuer.slug().is_none() || !self.trials.contains_key(name) {
            return;
        }
        if issuer.has_keys() {
            // Two requests may settle it at the same time; one of its name is enough.
            let known = self.known.get_with(name.into(), || Arc::clone(issuer));
            self.trials.invalidate(name);
            // Now, not when the cache finds time: beyond the bound an issuer ends.
            self.known.run_pending_tasks();
            if !Arc::ptr_eq(&known, issuer) {
                issuer.retire();
            }
        } else if issuer.is_nobody() {
            self.nobodies.insert(name.into(), ());
            self.trials.invalidate(name);
            issuer.retire();
        }
    }

    /// The template that stands for an issuer of this name, and its slug.
    fn family<'n>(&self, name: &'n str) -> Option<(&Family, &'n str)> {
        self.families.iter().find_map(|family| {
            let slug = family.template.slug(name)?;
            let allowed = family.settings.allow.iter().any(|rule| allows(rule, slug));
            allowed.then_some((family, slug))
        })
    }

    /// Whether a client may bring up one more issuer.
    fn admits(&self, from: Option<IpAddr>) -> bool {
        let limit = |times: u64, burst| Limit {
            rate: u32::try_from(self.fetch.new_issuers_per_second.saturating_mul(60 * times))
                .unwrap_or(u32::MAX),
            burst,
        };
        let address = address_key(from);
        let mut items = Items::default();
        for (policy, limit, owner) in [
            ("new issuers of an address", limit(1, BURST), &address[..]),
            ("new issuers", limit(MORE, BURST_OF_ALL), &[]),
        ] {
            let key = self.newcomers.key(policy, limit, &[owner], &[]);
            items.push(policy, limit, key);
        }
        let now = microseconds(SystemTime::now());
        self.newcomers.decide_here(&items, now, 1).wait == 0
    }
}
