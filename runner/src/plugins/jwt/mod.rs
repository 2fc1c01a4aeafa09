//! `jwt`: who asks, by a bearer token of a trusted issuer.
//!
//! ```text
//! Authorization ─ token ─ cache ───────────────────────────────── fits ─ Caller
//!                           └ iss → issuer ─ kid → key ─ signature ┘
//!                               └ trust       └ keys: fetched beside the requests
//! ```
//!
//! A verified token is remembered for as long as it is valid and its key is accepted, so
//! a signature is checked once a token. What may change meanwhile is asked of every
//! request, and costs some comparisons: the time, what the route wants, whether it was
//! revoked.
//!
//! | module | knows |
//! |---|---|
//! | [`bearer`], [`claims`], [`refusal`] | what is read of a request and a token, what is answered |
//! | [`trust`], [`template`] | which issuers there are |
//! | [`issuer`], [`keyring`], [`keys`] | an issuer's keys, over time, one by one |
//! | [`fetch`], [`carry`] | how they come, and outlive a worker |
//! | [`cache`] | tokens that were verified |
//! | [`revocations`], [`follow`], [`operator`] | tokens that were revoked, who says so |
//! | [`introspection`] | tokens that an issuer has to confirm |

mod bearer;
mod cache;
mod carry;
mod claims;
mod fetch;
mod follow;
mod introspection;
mod issuer;
mod keyring;
mod keys;
mod operator;
mod refusal;
mod revocations;
mod settings;
mod template;
#[cfg(test)]
mod tests;
mod trust;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use postern_contract::Match;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugins::authorize::Address;
use crate::{Caller, ConfigError, Flow, Plugin, Registry, Request};
use cache::{Tokens, Verified};
use introspection::{Introspection, Standing};
use refusal::Refusal;
use revocations::Revocations;
pub use settings::{
    ClaimNames, FetchSettings, IntrospectionSettings, IssuerSettings, JwtSettings,
    RevocationSettings, SignatureAlgorithm,
};
use trust::Trust;

/// Verifies bearer tokens.
pub struct Jwt {
    trust: Arc<Trust>,
    tokens: Tokens,
    revocations: Arc<Revocations>,
    /// Who tells of revoked tokens.
    directory: Option<Address>,
    max_staleness: Duration,
    introspection: Introspection,
    leeway: u64,
    wait: Duration,
}

/// What a route asks of tokens beyond the runner's configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// Only tokens of these issuers, named as in the runner's configuration; by default
    /// of all that the runner trusts.
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
        let trust = Arc::new(Trust::new(&settings));
        Ok(Self {
            introspection: Introspection::new(&settings, trust.http.clone())?,
            trust,
            tokens: Tokens::new(settings.cached_tokens),
            revocations: Arc::new(Revocations::new(false)),
            directory: None,
            max_staleness: Duration::from_secs(settings.revocations.max_staleness_seconds),
            leeway: settings.leeway_seconds,
            wait: settings.fetch.wait(),
        })
    }

    /// Hears of revoked tokens from this directory, if there is one.
    #[must_use]
    pub(in crate::plugins) fn told_by(mut self, directory: Option<Address>) -> Self {
        self.revocations = Arc::new(Revocations::new(directory.is_some()));
        self.directory = directory;
        self
    }

    /// Registers the plugin, the tasks that fetch keys and follow revocations, what
    /// readiness waits for, what outlives a worker, and what an operator can do.
    #[must_use]
    pub fn register(self, registry: Registry) -> Registry {
        let issuers: Vec<_> = self.trust.named().cloned().collect();
        let (waiting, http) = (issuers.clone(), self.trust.http.clone());
        let (revocations, directory) = (Arc::clone(&self.revocations), self.directory.clone());
        let max_staleness = self.max_staleness;
        let (leaving, heir) = (Arc::clone(&self.trust), Arc::clone(&self.trust));
        let registry = registry.with_legacy(
            "jwt keys",
            move || leaving.leave(),
            move |left| heir.take_over(left),
        );
        let mut registry = registry.with(self).with_readiness("jwt", move || {
            match waiting.iter().find(|issuer| !issuer.has_keys()) {
                Some(issuer) => Err(format!("no keys of {} yet", issuer.name())),
                None => Ok(()),
            }
        });
        for issuer in issuers {
            let http = http.clone();
            registry = registry.with_task("jwt keys", async move |stop| {
                stop.run_until_cancelled(fetch::keep_fetching(issuer, http))
                    .await;
            });
        }
        let (told, to) = (Arc::clone(&revocations), directory.clone());
        registry = registry.with_command("/revocations", move |body| {
            operator::revoke(Arc::clone(&told), to.clone(), body)
        });
        let Some(directory) = directory else {
            return registry;
        };
        let asked = Arc::clone(&revocations);
        let ready = move || match asked.is_known() {
            true => Ok(()),
            false => Err("which tokens were revoked is not known".to_owned()),
        };
        registry
            .with_readiness("revocations", ready)
            .with_task("revocations", move |stop| {
                follow::follow(revocations, directory, max_staleness, stop)
            })
    }

    /// What was found out about a token, if its key is still accepted.
    fn remembered(&self, token: &[u8]) -> Option<Arc<Verified>> {
        let known = self.tokens.get(token)?;
        known.key.is_accepted().then_some(known)
    }

    /// The slow way: finds issuer and key, checks the signature, remembers the token.
    async fn verify(&self, token: &[u8], from: Option<IpAddr>) -> Result<Arc<Verified>, Refusal> {
        let unverified = claims::peek(token)?;
        let issuer = self.trust.find(&unverified.issuer, from)?;
        if !claims::is_of_type(&unverified.header, &issuer.settings.types) {
            return Err(Refusal::Type);
        }
        let found = issuer.key(&unverified.header).await;
        self.trust.settle(&issuer);
        let key = found?;
        let claims = key.verify(token)?;
        claims::is_bearer(&claims)?;
        let names = &issuer.settings.claims;
        let issued_at = claims::seconds(&claims, "iat")?;
        let verified = Arc::new(Verified {
            identity: claims::identity(&claims, names, issuer.slug())?.into(),
            audiences: claims::audiences(&claims)?,
            not_before: claims::seconds(&claims, "nbf")?.max(issued_at),
            expires_at: claims::seconds(&claims, "exp")?,
            marks: self.revocations.marks(&claims, names)?,
            standing: match issuer.settings.introspection {
                Some(_) => Standing::default(),
                None => Standing::unasked(),
            },
            key,
            issuer,
        });
        metrics::counter!("postern_jwt_verified_total").increment(1);
        self.tokens.insert(token, Arc::clone(&verified));
        Ok(verified)
    }

    /// What may differ between two requests with the same token: the time, the route,
    /// whether it was revoked.
    fn fits(&self, config: &JwtConfig, token: &Verified, now: u64) -> Result<Caller, Refusal> {
        if now > token.expires_at.saturating_add(self.leeway) {
            return Err(Refusal::Expired);
        }
        if token.not_before > now.saturating_add(self.leeway) {
            return Err(Refusal::NotYet);
        }
        let issuer = &*token.issuer.settings;
        if let Some(only) = &config.issuers
            && !only.contains(&issuer.issuer)
        {
            return Err(Refusal::UntrustedIssuer);
        }
        let accepted = config.audiences.as_ref().unwrap_or(&issuer.audiences);
        let is_ours = |audience: &String| accepted.contains(audience);
        if !token.audiences.iter().any(is_ours) {
            return Err(Refusal::Audience);
        }
        if let Some(clients) = &issuer.clients
            && !token
                .identity
                .client
                .as_ref()
                .is_some_and(|client| clients.contains(client))
        {
            return Err(Refusal::Client);
        }
        self.revocations.check(&token.marks)?;
        token.standing.check(now)?;
        Ok(token.identity.clone())
    }

    /// Who sent a token, whatever it takes to find out.
    async fn judge(
        &self,
        config: &JwtConfig,
        token: &[u8],
        arrived: u64,
        from: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        let (known, now) = match self.remembered(token) {
            Some(known) => (known, arrived),
            None => (self.verify(token, from).await?, seconds()),
        };
        self.revocations.await_first(self.wait).await;
        let judged = self.fits(config, &known, now);
        if judged != Err(Refusal::RevocationUnknown) {
            if judged == Err(Refusal::Expired) {
                self.tokens.remove(token);
            }
            return judged;
        }
        self.introspection.inquire(token, &known).await;
        self.fits(config, &known, seconds())
    }
}

impl Plugin for Jwt {
    const NAME: &'static str = "jwt";
    type Config = JwtConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        if self.trust.is_empty() {
            let reason = "the runner trusts no issuer: name one under plugins.jwt.issuers in its configuration";
            return Err(ConfigError::new("", reason));
        }
        let mut only = config.issuers.iter().flatten();
        if let Some(unknown) = only.find(|name| !self.trust.names(name)) {
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
        let known = self.remembered(bearer::token(request).ok()?)?;
        let now = request.arrived_since_1970().as_secs();
        request.facts.identity = Some(self.fits(config, &known, now).ok()?);
        Some(Flow::Next)
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        if matches!(request.route(), Ok(Match::Found(route, _)) if route.is_public()) {
            return Flow::Next;
        }
        let judged = match bearer::token(request) {
            Ok(token) => {
                let arrived = request.arrived_since_1970().as_secs();
                self.judge(config, token, arrived, request.src_ip()).await
            }
            Err(refusal) => Err(refusal),
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
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
