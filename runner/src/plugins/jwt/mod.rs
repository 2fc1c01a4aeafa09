//! `jwt`: who asks, by a bearer token of a trusted issuer.
//!
//! ```text
//! Authorization ─ token ─ cache ──────────────────────────── Identity
//!                           └ iss → issuer ─ kid → key ─ signature, times ┘
//!                                     └ keys: fetched beside the requests
//! ```
//!
//! A verified token is remembered for as long as it is valid and its issuer's key set
//! stays the same, so a signature is checked once a token. Key sets are fetched in the
//! background ([`fetch`]); a request waits for one, and then a bounded time, only if no
//! key that is known could answer it.

mod bearer;
mod cache;
mod claims;
mod fetch;
mod issuer;
mod keys;
mod refusal;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_contract::Match;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{ConfigError, Flow, Identity, Plugin, Registry, Request};
use cache::{Tokens, Verified};
use issuer::Issuer;
use keys::Unfit;
use refusal::Refusal;
pub use settings::{ClaimNames, IssuerSettings, JwtSettings, SignatureAlgorithm};

/// Verifies bearer tokens.
pub struct Jwt {
    issuers: Vec<Arc<Issuer>>,
    tokens: Tokens,
    leeway: u64,
}

/// What a route asks of tokens beyond the runner's configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// Only tokens of these issuers (`iss`); by default of all that the runner trusts.
    issuers: Option<Vec<String>>,
    /// `aud` must hold one of these, instead of those that the issuer's settings name.
    audiences: Option<Vec<String>>,
}

impl Jwt {
    /// A plugin that trusts these issuers.
    ///
    /// # Errors
    /// What is wrong with the settings and where.
    pub fn new(settings: JwtSettings) -> anyhow::Result<Self> {
        settings.check()?;
        let JwtSettings {
            issuers,
            leeway_seconds: leeway,
            cached_tokens,
            fetch,
        } = settings;
        let issuers = issuers
            .into_iter()
            .map(|issuer| Arc::new(Issuer::new(issuer, leeway, fetch)));
        Ok(Self {
            issuers: issuers.collect(),
            tokens: Tokens::new(cached_tokens),
            leeway,
        })
    }

    /// Registers the plugin, the tasks that fetch its keys, and what readiness waits for.
    #[must_use]
    pub fn register(self, registry: Registry) -> Registry {
        let issuers = self.issuers.clone();
        let waiting = self.issuers.clone();
        let registry = registry.with(self).with_readiness("jwt", move || {
            match waiting.iter().find(|issuer| !issuer.has_keys()) {
                Some(issuer) => Err(format!("no keys of {} yet", issuer.name())),
                None => Ok(()),
            }
        });
        issuers.into_iter().fold(registry, |registry, issuer| {
            registry.with_task("jwt keys", move |stop| fetch::keep_fetching(issuer, stop))
        })
    }

    /// The token's identity, if it is remembered and still fits.
    fn remembered(
        &self,
        config: &JwtConfig,
        token: &[u8],
        now: u64,
    ) -> Option<Result<Arc<Identity>, Refusal>> {
        let known = self.tokens.get(token)?;
        let issuer = self.issuers.get(known.issuer)?;
        // Another key set than the one it was verified with: its key may be revoked.
        (issuer.generation() == known.generation).then(|| self.fits(config, issuer, &known, now))
    }

    /// The slow way: finds issuer and key, checks the signature, remembers the token.
    async fn verify(&self, config: &JwtConfig, token: &[u8]) -> Result<Arc<Identity>, Refusal> {
        let unverified = claims::peek(token)?;
        let named = |issuer: &Arc<Issuer>| *issuer.name() == *unverified.issuer;
        let position = self
            .issuers
            .iter()
            .position(named)
            .ok_or(Refusal::UntrustedIssuer)?;
        let issuer = self.issuers.get(position).ok_or(Refusal::UntrustedIssuer)?;
        let mut keys = issuer.keys();
        if matches!(keys.find(&unverified.header), Err(Unfit::Unknown)) {
            issuer.await_newer_keys().await;
            keys = issuer.keys();
        }
        if keys.is_empty() {
            return Err(Refusal::NoKeys);
        }
        let key = keys.find(&unverified.header)?;
        let claims = keys.verify(key, token)?;
        let verified = issuer.read(position, keys.generation(), &claims)?;
        let identity = self.fits(config, issuer, &verified, seconds());
        self.tokens.insert(token, verified);
        identity
    }

    /// What may differ between two requests with the same token: the time, the route.
    fn fits(
        &self,
        config: &JwtConfig,
        issuer: &Issuer,
        token: &Verified,
        now: u64,
    ) -> Result<Arc<Identity>, Refusal> {
        if now > token.expires_at.saturating_add(self.leeway) {
            return Err(Refusal::Expired);
        }
        if token.not_before > now.saturating_add(self.leeway) {
            return Err(Refusal::NotYet);
        }
        if config
            .issuers
            .as_ref()
            .is_some_and(|only| only.iter().all(|name| *name != *issuer.name()))
        {
            return Err(Refusal::UntrustedIssuer);
        }
        let accepted = config
            .audiences
            .as_deref()
            .unwrap_or_else(|| issuer.audiences());
        if token
            .audiences
            .iter()
            .all(|audience| !accepted.contains(audience))
        {
            return Err(Refusal::Audience);
        }
        Ok(Arc::clone(&token.identity))
    }
}

impl Plugin for Jwt {
    const NAME: &'static str = "jwt";
    type Config = JwtConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        if self.issuers.is_empty() {
            let reason = "the runner trusts no issuer: name one under plugins.jwt.issuers in its configuration";
            return Err(ConfigError::new("", reason));
        }
        let trusted = |name: &String| self.issuers.iter().any(|issuer| *issuer.name() == **name);
        if let Some(unknown) = config.issuers.iter().flatten().find(|name| !trusted(name)) {
            let reason =
                format!("the runner does not trust {unknown:?}: add it under plugins.jwt.issuers");
            return Err(ConfigError::new("issuers", reason));
        }
        match &config.audiences {
            Some(none) if none.is_empty() => {
                Err(ConfigError::new("audiences", "name at least one"))
            }
            _ => Ok(()),
        }
    }

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        if matches!(request.route(), Ok(Match::Found(route, _)) if route.is_public()) {
            return Some(Flow::Next);
        }
        let token = bearer::token(request).ok()?;
        let identity = self
            .remembered(config, token, seconds_at(request.arrived()))?
            .ok()?;
        request.facts.identity = Some(identity);
        Some(Flow::Next)
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        if matches!(request.route(), Ok(Match::Found(route, _)) if route.is_public()) {
            return Flow::Next;
        }
        let token = match bearer::token(request) {
            Ok(token) => token,
            Err(refusal) => return Flow::Stop(refusal.reply()),
        };
        let judged = match self.remembered(config, token, seconds_at(request.arrived())) {
            Some(judged) => judged,
            None => self.verify(config, token).await,
        };
        match judged {
            Ok(identity) => {
                request.facts.identity = Some(identity);
                Flow::Next
            }
            Err(refusal) => Flow::Stop(refusal.reply()),
        }
    }
}

/// Seconds since 1970, now.
fn seconds() -> u64 {
    seconds_at(SystemTime::now())
}

/// The same at another time.
fn seconds_at(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
