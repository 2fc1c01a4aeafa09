//! `rate-limit`: how much one caller may ask for.
//!
//! A caller is a subject within its tenant and issuer, or an address where there is no
//! token; each profile of the routes table has buckets of its own. A tenant may have a
//! limit over all its callers besides: both are taken together or not at all.

use std::sync::Arc;

use postern_contract::{Code, Match, Profile, routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::gcra::{Bucket, Limit};
use super::limits::store::{Buckets, Key};
use super::limits::{address_key, fact, nanoseconds, refuse};
use crate::{ConfigError, Flow, Plugin, Reply, Request};

/// Limits each caller.
pub struct RateLimit {
    buckets: Arc<Buckets>,
}

/// The section `rate-limit` of the runner's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitSettings {
    /// Buckets that are kept, of callers and addresses, 24 bytes each. Beyond it the
    /// bucket nearest to full makes room, and its owner starts from full again.
    pub buckets: usize,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self { buckets: 65_536 }
    }
}

/// A route's limit per caller. Routes with the same profile share the buckets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// A profile of the routes table, instead of the one that the table gives the route.
    profile: Option<String>,
    /// Requests a minute instead of the profile's, at least 1.
    rate: Option<u32>,
    /// Requests at once from full instead of the profile's, at least 1.
    burst: Option<u32>,
    /// How many requests each request of this route counts as, at least 1. More than
    /// the profile's burst counts as all of it.
    cost: u32,
    /// A limit over all callers of a tenant together.
    tenant: Option<TenantLimit>,
    /// Count and log what would be refused, and let it pass.
    shadow: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TenantLimit {
    /// Requests a minute, at least 1.
    rate: u32,
    /// Requests at once from full, at least 1.
    burst: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            profile: None,
            rate: None,
            burst: None,
            cost: 1,
            tenant: None,
            shadow: false,
        }
    }
}

impl RateLimit {
    pub(crate) fn new(buckets: Arc<Buckets>) -> Self {
        Self { buckets }
    }

    fn caller(&self, profile: &Profile, limit: Limit, request: &Request<'_>) -> Key {
        match &request.facts.identity {
            Some(who) => {
                let tenant = who.tenant.as_deref().unwrap_or_default();
                let pieces = [&who.issuer, tenant, &who.subject].map(str::as_bytes);
                self.buckets.key(&profile.name, limit, &pieces)
            }
            None => self
                .buckets
                .key(&profile.name, limit, &[&address_key(request.src_ip())]),
        }
    }

    fn tenant(&self, config: &RateLimitConfig, request: &Request<'_>) -> Option<(Key, Limit)> {
        let TenantLimit { rate, burst } = config.tenant?;
        let who = request.facts.identity.as_ref()?;
        let pieces = [&*who.issuer, who.tenant.as_deref()?].map(str::as_bytes);
        let limit = Limit { rate, burst };
        Some((self.buckets.key(TENANT, limit, &pieces), limit))
    }
}

/// The policy's name of the limit over a whole tenant.
const TENANT: &str = "tenant";

impl RateLimit {
    fn decide(&self, config: &RateLimitConfig, request: &mut Request<'_>) -> Flow {
        let named = config
            .profile
            .as_ref()
            .and_then(|name| routes().profiles().get(name));
        let profile: &'static Profile = match (named, request.route()) {
            (Some(profile), _) => profile,
            (None, Ok(Match::Found(route, _))) => &route.profile,
            (None, _) => {
                let message = "rate-limit: this path is not in the routes table, so its route must name a profile";
                return Flow::Stop(Reply::refuse(Code::GatewayMisconfigured, message));
            }
        };
        let now = nanoseconds(request.arrived());
        let limit = Limit {
            rate: config.rate.unwrap_or(profile.rate),
            burst: config.burst.unwrap_or(profile.burst),
        };
        let caller = (self.caller(profile, limit, request), limit);
        let named = |bucket: &Bucket| (profile.name.as_str(), *bucket);
        let ((policy, bucket), decision) = match self.tenant(config, request) {
            None => {
                let ([bucket], decision) = self.buckets.decide([caller], now, config.cost);
                (named(&bucket), decision)
            }
            Some(tenant) => {
                let (buckets, decision) = self.buckets.decide([caller, tenant], now, config.cost);
                let [caller, tenant] = buckets;
                // The client is told of the limit that will stop it first.
                if tenant.remaining(now) < caller.remaining(now) {
                    ((TENANT, tenant), decision)
                } else {
                    (named(&caller), decision)
                }
            }
        };
        let verdict = match decision {
            Ok(()) => Flow::Next,
            Err(wait) => refuse(policy, bucket.limit.rate, wait, config.shadow),
        };
        request.facts.rate_limit = Some(fact(policy, &bucket, now));
        verdict
    }
}

impl Plugin for RateLimit {
    const NAME: &'static str = "rate-limit";
    type Config = RateLimitConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        check_profile(config.profile.as_deref())?;
        for (name, value) in [("rate", config.rate), ("burst", config.burst)] {
            if value == Some(0) {
                return Err(ConfigError::new(name, "must be at least 1"));
            }
        }
        if config.cost == 0 {
            return Err(ConfigError::new("cost", "must be at least 1"));
        }
        match config.tenant {
            Some(TenantLimit { rate: 0, .. } | TenantLimit { burst: 0, .. }) => Err(
                ConfigError::new("tenant", "rate and burst must be at least 1"),
            ),
            _ => Ok(()),
        }
    }

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        Some(self.decide(config, request))
    }
}

/// Whether a configured profile is one of the routes table.
pub(super) fn check_profile(profile: Option<&str>) -> Result<(), ConfigError> {
    let profiles = routes().profiles();
    match profile {
        Some(name) if !profiles.contains_key(name) => {
            let known = profiles
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            Err(ConfigError::new(
                "profile",
                format!("there is no profile {name:?}; there are: {known}"),
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::address_limit::AddressLimit;
    use super::*;
    use crate::testkit::{self, Simulated};
    use crate::{Identity, Registry};

    /// Takes the caller from the request's `who`: issuer, tenant and subject with blanks between.
    struct Who;

    #[derive(Deserialize, JsonSchema)]
    struct WhoConfig {}

    impl Plugin for Who {
        const NAME: &'static str = "who";
        type Config = WhoConfig;

        async fn on_request(&self, _: &WhoConfig, request: &mut Request<'_>) -> Flow {
            let who = std::str::from_utf8(request.header("who").unwrap_or_default()).unwrap();
            if let [issuer, tenant, subject] = who.split(' ').collect::<Vec<_>>().as_slice() {
                request.facts.identity = Some(Arc::new(Identity {
                    issuer: (*issuer).into(),
                    tenant: Some((*tenant).into()),
                    subject: (*subject).into(),
                    ..Identity::default()
                }));
            }
            Flow::Next
        }
    }

    fn registry() -> Registry {
        let buckets = Arc::new(Buckets::new(1_024));
        let limits = Registry::new().with(RateLimit::new(Arc::clone(&buckets)));
        limits.with(AddressLimit::new(buckets)).with(Who)
    }

    async fn passed(
        registry: &Registry,
        conf: &[(&str, &str)],
        request: &Simulated,
        calls: usize,
    ) -> usize {
        let chain = registry.chain(conf.iter().copied()).unwrap();
        let mut passed = 0;
        for _ in 0..calls {
            passed += usize::from(request.judge(&chain).await.goes_on());
        }
        passed
    }

    fn by(who: &str) -> Simulated {
        testkit::request("POST", "/v1/tenants").header("who", who)
    }

    const CALLERS: [(&str, &str); 2] = [("who", "{}"), ("rate-limit", "{}")];

    #[tokio::test]
    async fn everybody_has_the_burst_of_the_routes_profile() {
        let registry = registry();
        // provisioning: 120 a minute and 30 at once. A slow machine may see one or two come back.
        let all = passed(&registry, &CALLERS, &by("i t a"), 50).await;
        assert!((30..34).contains(&all), "{all}");
        for other in ["i t b", "i other a", "other t a"] {
            assert_eq!(
                passed(&registry, &CALLERS, &by(other), 30).await,
                30,
                "{other}"
            );
        }
        let nobody = testkit::request("GET", "/health");
        assert_eq!(passed(&registry, &CALLERS, &nobody, 80).await, 80);
        assert!(passed(&registry, &CALLERS, &nobody, 80).await < 10);
        let elsewhere = nobody.src_ip([198, 51, 100, 7]);
        assert_eq!(passed(&registry, &CALLERS, &elsewhere, 80).await, 80);
    }

    #[tokio::test]
    async fn a_refusal_says_when_to_come_back() {
        let registry = registry();
        passed(&registry, &CALLERS, &by("i t a"), 40).await;
        let chain = registry.chain(CALLERS).unwrap();
        let refused = by("i t a").judge(&chain).await;
        assert_eq!(
            (refused.status(), refused.code()),
            (Some(429), Some(Code::RateLimited))
        );
        let header = |name: &str| refused.header(name).unwrap_or_default().to_owned();
        assert_eq!(header("retry-after"), "1");
        assert_eq!(header("x-ratelimit-limit"), "120");
        assert_eq!(header("x-ratelimit-remaining"), "0");
        let reset: u64 = header("x-ratelimit-reset").parse().unwrap();
        let seconds = reset - nanoseconds(std::time::SystemTime::now()) / 1_000_000_000;
        assert!(
            (13..=16).contains(&seconds),
            "30 come back in 15 s, not in {seconds}"
        );
        assert!(
            header("ratelimit").starts_with("\"provisioning\";r=0;t="),
            "{}",
            header("ratelimit")
        );
        assert_eq!(header("ratelimit-policy"), "\"provisioning\";q=120;w=60");
    }

    #[tokio::test]
    async fn a_tenants_limit_is_shared_and_taken_together() {
        let registry = registry();
        let tenant = [
            ("who", "{}"),
            ("rate-limit", r#"{"tenant": {"rate": 60, "burst": 40}}"#),
        ];
        assert_eq!(passed(&registry, &tenant, &by("i t a"), 30).await, 30);
        assert!((10..13).contains(&passed(&registry, &tenant, &by("i t b"), 30).await));
        assert_eq!(passed(&registry, &tenant, &by("i other a"), 30).await, 30);
        // What the tenant's limit refused did not count for the caller.
        assert!(passed(&registry, &CALLERS, &by("i t b"), 30).await >= 17);
    }

    #[tokio::test]
    async fn cost_and_shadow_and_profile() {
        let registry = registry();
        let costly = [("who", "{}"), ("rate-limit", r#"{"cost": 10}"#)];
        assert_eq!(passed(&registry, &costly, &by("i t a"), 10).await, 3);
        let shadow = [("who", "{}"), ("rate-limit", r#"{"shadow": true}"#)];
        assert_eq!(passed(&registry, &shadow, &by("i t a"), 100).await, 100);
        let profile = [
            ("who", "{}"),
            ("rate-limit", r#"{"profile": "native_admin"}"#),
        ];
        assert!((15..18).contains(&passed(&registry, &profile, &by("i t a"), 30).await));
    }

    #[tokio::test]
    async fn an_address_is_limited_whoever_it_says_it_is() {
        let registry = registry();
        let address = [
            ("address-limit", r#"{"rate": 60, "burst": 5}"#),
            ("who", "{}"),
        ];
        let mut all = 0;
        for n in 0..10 {
            all += passed(&registry, &address, &by(&format!("i t {n}")), 1).await;
        }
        assert!((5..7).contains(&all), "{all}");
        assert_eq!(
            passed(
                &registry,
                &address,
                &by("i t a").src_ip([198, 51, 100, 7]),
                5
            )
            .await,
            5
        );
    }

    #[test]
    fn settings_that_cannot_be() {
        let registry = registry();
        for (name, config) in [
            ("rate-limit", r#"{"profile": "no_such"}"#),
            ("rate-limit", r#"{"cost": 0}"#),
            ("rate-limit", r#"{"tenant": {"rate": 0, "burst": 1}}"#),
            ("rate-limit", r#"{"rates": 5}"#),
            ("address-limit", r#"{"burst": 0}"#),
            ("address-limit", r#"{"profile": "no_such"}"#),
        ] {
            assert!(registry.chain([(name, config)]).is_err(), "{config}");
        }
    }
}
