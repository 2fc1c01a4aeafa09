//! `rate-limit`: how much one caller may ask for.
//!
//! A caller is a subject within its tenant and issuer, or an address where there is no
//! token; each profile of the routes table has buckets of its own. Besides, a route may
//! limit all callers of a tenant together, by its plan too, all callers of one address,
//! and everybody on one route of the table. All are taken together or not at all, and none
//! if the tenant's calls of the month are used up ([`super::limits::calls`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use postern_contract::{Code, Match, Profile, Route, routes};
use schemars::JsonSchema;
use serde::Deserialize;

use super::authorize::Plans;
use super::limits::calls::{Calls, whose};
use super::limits::gcra::{LONGEST, Limit};
use super::limits::keys::owner;
use super::limits::limiter::{Limiter, Outcome};
use super::limits::settings::OnStoreDown;
pub use super::limits::settings::{Mode, RateLimitSettings, RedisSettings};
use super::limits::{Items, address_key, fact, in_microseconds, refuse, shadowed};
use crate::{ConfigError, Flow, Identity, Plugin, Reply, Request};

/// Limits each caller.
pub struct RateLimit {
    limiter: Arc<Limiter>,
    calls: Arc<Calls>,
    plans: Plans,
}

/// A route's limits. Routes with equal limits share the buckets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RateLimitConfig {
    /// A profile of the routes table, instead of the one that the table gives the route.
    profile: Option<String>,
    /// Requests a minute instead of the profile's, at least 1.
    rate: Option<u32>,
    /// Requests at once from full instead of the profile's, at least 1.
    burst: Option<u32>,
    /// How many requests each request counts as, at least 1. More than a limit's burst
    /// counts as all of it.
    cost: u32,
    /// The same for single routes of the table, by their id.
    costs: BTreeMap<String, u32>,
    /// A limit over all callers of a tenant together.
    tenant: Option<Figures>,
    /// A limit over all callers of a tenant together, by the tenant's plan: the directory's
    /// word, or the token's for a tenant that the directory was not asked about yet.
    plans: BTreeMap<String, Figures>,
    /// A limit over all callers of one address together.
    address: Option<Figures>,
    /// A limit over everybody together, for each route of the table.
    route: Option<Figures>,
    /// Who decides when the store that all runners share is away.
    on_store_down: OnStoreDown,
    /// Count and log what would be refused, and let it pass.
    shadow: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// Requests a minute, at least 1.
    rate: u32,
    /// Requests at once from full, at least 1.
    burst: u32,
}

impl From<Figures> for Limit {
    fn from(Figures { rate, burst }: Figures) -> Self {
        Self { rate, burst }
    }
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self {
            profile: None,
            rate: None,
            burst: None,
            cost: 1,
            costs: BTreeMap::new(),
            tenant: None,
            plans: BTreeMap::new(),
            address: None,
            route: None,
            on_store_down: OnStoreDown::default(),
            shadow: false,
        }
    }
}

/// The policies' names besides the profiles'.
const TENANT: &str = "tenant";
const PLAN: &str = "plan";
const ADDRESS: &str = "caller-address";
const ROUTE: &str = "route";
const CALLS: &str = "calls";

/// A request with all its limits, ready to be decided.
struct Demand {
    items: Items,
    cost: u32,
    now: u64,
}

impl RateLimit {
    pub(crate) fn new(limiter: Arc<Limiter>, calls: Arc<Calls>, plans: Plans) -> Self {
        Self {
            limiter,
            calls,
            plans,
        }
    }

    fn demand(&self, config: &RateLimitConfig, request: &Request<'_>) -> Result<Demand, Reply> {
        let route = match request.route() {
            Ok(Match::Found(route, _)) => Some(*route),
            _ => None,
        };
        let named = config.profile.as_ref();
        let named = named.and_then(|name| routes().profiles().get(name));
        let Some(profile) = named.or(route.map(|route| &route.profile)) else {
            let message = "rate-limit: this path is not in the routes table, so its route must name a profile";
            return Err(Reply::refuse(Code::GatewayMisconfigured, message));
        };
        let now = in_microseconds(request.arrived_since_1970());
        if let Some(whose) = whose_calls(request)
            && let Err(exceeded) = self.calls.left(&whose, now)
            && !shadowed(CALLS, config.shadow)
        {
            return Err(exceeded.reply(now));
        }
        let cost = route.and_then(|route| config.costs.get(&route.id));
        Ok(Demand {
            items: self.items(config, profile, route, request),
            cost: cost.copied().unwrap_or(config.cost),
            now,
        })
    }

    fn items(
        &self,
        config: &RateLimitConfig,
        profile: &'static Profile,
        route: Option<&'static Route>,
        request: &Request<'_>,
    ) -> Items {
        let mut items = Items::default();
        let limit = Limit {
            rate: config.rate.unwrap_or(profile.rate),
            burst: config.burst.unwrap_or(profile.burst),
        };
        let address = address_key(request.src_ip());
        let caller = request.facts.identity.as_ref();
        let key = match caller {
            Some(who) => self.limiter.key_of_caller(&profile.name, limit, who),
            None => self.limiter.key(&profile.name, limit, &[&address], &[]),
        };
        items.push(&profile.name, limit, key);
        let mut add = |policy, limit: Limit, owner: &[&[u8]]| {
            items.push(policy, limit, self.limiter.key(policy, limit, owner, &[]));
        };
        if let Some(who) = caller.filter(|who| who.tenant.is_some()) {
            let owner = owner(who);
            if let Some(figures) = config.tenant {
                add(TENANT, figures.into(), &owner);
            }
            if let Some(figures) = self.limit_of_plan(config, who) {
                add(PLAN, figures.into(), &owner);
            }
        }
        if let Some(figures) = config.address {
            add(ADDRESS, figures.into(), &[&address]);
        }
        if let (Some(figures), Some(route)) = (config.route, route) {
            add(ROUTE, figures.into(), &[route.id.as_bytes()]);
        }
        items
    }

    /// The directory's word first: who runs a tenant's own issuer writes the token's.
    fn limit_of_plan(&self, config: &RateLimitConfig, who: &Identity) -> Option<Figures> {
        if config.plans.is_empty() {
            return None;
        }
        let known = self.plans.of(who.tenant.as_deref()?);
        config
            .plans
            .get(known.as_ref().or(who.plan.as_ref())?)
            .copied()
    }

    fn conclude(
        &self,
        config: &RateLimitConfig,
        request: &mut Request<'_>,
        demand: &Demand,
        outcome: Outcome,
    ) -> Flow {
        let decision = match outcome {
            Outcome::Decided(decision) => decision,
            Outcome::Open => return self.pass(request, demand),
            Outcome::Closed if config.shadow => return self.pass(request, demand),
            Outcome::Closed => {
                let message = "limits cannot be decided now: retry";
                let reply = Reply::refuse(Code::BackendUnavailable, message);
                return Flow::Stop(reply.with_header("Retry-After", "1"));
            }
        };
        let Some((item, bucket)) = decision.tightest(&demand.items, demand.cost) else {
            return self.pass(request, demand);
        };
        request.facts.rate_limit = Some(fact(item, bucket, decision.now));
        match decision.wait {
            0 => self.pass(request, demand),
            wait => match refuse(item.policy, item.limit.rate, wait, config.shadow) {
                Flow::Next => self.pass(request, demand),
                refused => refused,
            },
        }
    }

    /// A call that has passed all limits counts for its tenant's month.
    fn pass(&self, request: &Request<'_>, demand: &Demand) -> Flow {
        if let Some(whose) = whose_calls(request) {
            self.calls.count(&whose, demand.now);
        }
        Flow::Next
    }
}

fn whose_calls<'r>(request: &'r Request<'_>) -> Option<Cow<'r, str>> {
    whose(request.facts.identity.as_ref()?)
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
        if let (Some(rate), Some(burst)) = (config.rate, config.burst) {
            check_limit("rate", Limit { rate, burst })?;
        }
        if config.cost == 0 {
            return Err(ConfigError::new("cost", "must be at least 1"));
        }
        for (route, cost) in &config.costs {
            if *cost == 0 {
                return Err(ConfigError::new(
                    format!("costs.{route}"),
                    "must be at least 1",
                ));
            }
            if routes().get(route).is_none() {
                let reason = "there is no such route in the routes table";
                return Err(ConfigError::new(format!("costs.{route}"), reason));
            }
        }
        let single = [
            ("tenant", config.tenant),
            ("address", config.address),
            ("route", config.route),
        ];
        for (field, figures) in single {
            if let Some(figures) = figures {
                check_limit(field, figures.into())?;
            }
        }
        for (plan, figures) in &config.plans {
            check_limit(&format!("plans.{plan}"), (*figures).into())?;
        }
        Ok(())
    }

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        let demand = match self.demand(config, request) {
            Ok(demand) => demand,
            Err(reply) => return Some(Flow::Stop(reply)),
        };
        let Demand { items, cost, now } = &demand;
        let outcome = self
            .limiter
            .at_once(items, *now, *cost, config.on_store_down)?;
        Some(self.conclude(config, request, &demand, outcome))
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        let demand = match self.demand(config, request) {
            Ok(demand) => demand,
            Err(reply) => return Flow::Stop(reply),
        };
        let Demand { items, cost, now } = &demand;
        let outcome = self
            .limiter
            .decide(items, *now, *cost, config.on_store_down)
            .await;
        self.conclude(config, request, &demand, outcome)
    }
}

/// Whether a limit can be held.
pub(super) fn check_limit(field: &str, limit: Limit) -> Result<(), ConfigError> {
    if limit.rate == 0 || limit.burst == 0 {
        return Err(ConfigError::new(field, "rate and burst must be at least 1"));
    }
    if limit.capacity() > LONGEST {
        let reason = "at this rate the burst would take more than a year to come back";
        return Err(ConfigError::new(field, reason));
    }
    Ok(())
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
    use super::super::limits::store::Buckets;
    use super::*;
    use crate::Registry;
    use crate::plugins::limits::microseconds;
    use crate::testkit::{self, Simulated};

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
                let identity = Identity {
                    issuer: (*issuer).into(),
                    tenant: Some((*tenant).into()),
                    subject: (*subject).into(),
                    ..Identity::default()
                };
                request.facts.identity = Some(identity.into());
            }
            Flow::Next
        }
    }

    fn registry() -> Registry {
        let limiter = Arc::new(Limiter::local(Buckets::new(1_024)));
        let limits = Registry::new().with(RateLimit::new(
            Arc::clone(&limiter),
            Arc::default(),
            Plans::default(),
        ));
        limits.with(AddressLimit::new(limiter)).with(Who)
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
        let seconds = reset - microseconds(std::time::SystemTime::now()) / 1_000_000;
        assert!(
            (13..=16).contains(&seconds),
            "30 come back in 15 s, not in {seconds}"
        );
        assert!(
            header("ratelimit").starts_with("\"provisioning\";r=0;t=1;pk=:"),
            "{}",
            header("ratelimit")
        );
        let policy = header("ratelimit-policy");
        assert!(
            policy.starts_with("\"provisioning\";q=120;w=60;pk=:"),
            "{policy}"
        );
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
            ("rate-limit", r#"{"costs": {"no.such.route": 2}}"#),
            ("rate-limit", r#"{"costs": {"tenants.create": 0}}"#),
            (
                "rate-limit",
                r#"{"plans": {"growth": {"rate": 1, "burst": 0}}}"#,
            ),
            ("rate-limit", r#"{"route": {"rate": 1, "burst": 1000000}}"#),
            ("rate-limit", r#"{"onStoreDown": "perhaps"}"#),
            ("rate-limit", r#"{"tenant": {"rate": 0, "burst": 1}}"#),
            ("rate-limit", r#"{"rates": 5}"#),
            ("address-limit", r#"{"burst": 0}"#),
            ("address-limit", r#"{"profile": "no_such"}"#),
        ] {
            assert!(registry.chain([(name, config)]).is_err(), "{config}");
        }
    }
}
