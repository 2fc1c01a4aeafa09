//! Whom the runner trusts: issuers by name, and templates of many.
//!
//! An issuer of a template is made when a token names it first, and is on trial until
//! its keys have come: only then does it take a place among those that are known, so
//! names that somebody invents push out nobody. Those that do not exist are remembered
//! for a while, and only so many are looked for in a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::fetch::{Http, keep_fetching};
use super::issuer::Issuer;
use super::refusal::Refusal;
use super::settings::{FetchSettings, IssuerSettings, JwtSettings};
use super::template::{SLUG, Template, allows};

/// Issuers on trial at once, and how long one may be.
const MAX_TRIALS: u64 = 64;
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
    newcomers: Mutex<Allowance>,
    leeway: u64,
    fetch: FetchSettings,
    pub(super) http: Http,
}

/// The issuers of one template.
struct Family {
    settings: Arc<IssuerSettings>,
    template: Template,
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
                }),
                _ => {
                    let name = issuer.issuer.clone();
                    named.insert(name, Arc::new(Issuer::new(issuer, None, leeway, fetch)));
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
            newcomers: Mutex::new(Allowance::new(fetch.new_issuers_per_second)),
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

    /// The issuer of this name, if it is trusted.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Issuer>, Refusal> {
        if let Some(issuer) = self
            .named
            .get(name)
            .cloned()
            .or_else(|| self.known.get(name))
        {
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
        if !self.newcomers().take(Instant::now()) {
            return Err(Refusal::NoKeys);
        }
        let issuer = self.trials.get_with(name.into(), || {
            let settings = Arc::clone(&family.settings);
            let issuer = Issuer::new(settings, Some(slug), self.leeway, self.fetch);
            let issuer = Arc::new(issuer);
            tokio::spawn(keep_fetching(Arc::clone(&issuer), self.http.clone()));
            issuer
        });
        Ok(issuer)
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

    fn newcomers(&self) -> std::sync::MutexGuard<'_, Allowance> {
        self.newcomers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many in any second.
struct Allowance {
    per_second: u64,
    left: u64,
    since: Option<Instant>,
}

impl Allowance {
    fn new(per_second: u64) -> Self {
        Self {
            per_second,
            left: per_second,
            since: None,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|since| now - since >= Duration::from_secs(1))
        {
            self.since = Some(now);
            self.left = self.per_second;
        }
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_comes_back_with_the_second() {
        let mut allowance = Allowance::new(2);
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        let taken = [0, 10, 20, 999, 1000, 1001, 1002, 2500].map(|ms| allowance.take(after(ms)));
        assert_eq!(taken, [true, true, false, false, true, true, false, true]);
    }
}
