//! `address-limit`: how much one client address may ask for, whoever it says it is.
//!
//! Stands before the first signature is checked, because checking one costs a hundred
//! times what refusing does. It guards this machine, so it is decided on this machine,
//! whatever store `rate-limit` shares; that one has a limit of addresses of its own.

use std::sync::Arc;

use postern_contract::routes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::gcra::Limit;
use super::limits::limiter::Limiter;
use super::limits::{Items, address_key, fact, in_microseconds, refuse};
use super::rate_limit::{check_limit, check_profile};
use crate::{ConfigError, Flow, Plugin, Request};

/// Limits each client address.
pub struct AddressLimit {
    limiter: Arc<Limiter>,
}

/// A route's limit per address. Routes with equal settings share the buckets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AddressLimitConfig {
    /// A profile of the routes table (`observability`), instead of `rate` and `burst`.
    profile: Option<String>,
    /// Requests a minute, at least 1. Many users may share one address.
    rate: u32,
    /// Requests at once from full, at least 1.
    burst: u32,
    /// Count and log what would be refused, and let it pass.
    shadow: bool,
}

impl Default for AddressLimitConfig {
    fn default() -> Self {
        Self {
            profile: None,
            rate: 6_000,
            burst: 1_000,
            shadow: false,
        }
    }
}

const POLICY: &str = "address";

impl AddressLimit {
    pub(crate) fn new(limiter: Arc<Limiter>) -> Self {
        Self { limiter }
    }
}

impl AddressLimitConfig {
    fn limit(&self) -> Limit {
        let profile = self
            .profile
            .as_ref()
            .and_then(|name| routes().profiles().get(name));
        match profile {
            Some(profile) => Limit {
                rate: profile.rate,
                burst: profile.burst,
            },
            None => Limit {
                rate: self.rate,
                burst: self.burst,
            },
        }
    }
}

impl AddressLimit {
    fn decide(&self, config: &AddressLimitConfig, request: &mut Request<'_>) -> Flow {
        let (limit, now) = (
            config.limit(),
            in_microseconds(request.arrived_since_1970()),
        );
        let address = address_key(request.src_ip());
        let key = self.limiter.key(POLICY, limit, &[&address], &[]);
        let mut items = Items::default();
        items.push(POLICY, limit, key);
        let decision = self.limiter.decide_here(&items, now, 1);
        if let Some((item, bucket)) = decision.tightest(&items, 1) {
            request.facts.rate_limit = Some(fact(item, bucket, now));
        }
        match decision.wait {
            0 => Flow::Next,
            wait => refuse(POLICY, limit.rate, wait, config.shadow),
        }
    }
}

impl Plugin for AddressLimit {
    const NAME: &'static str = "address-limit";
    type Config = AddressLimitConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        check_profile(config.profile.as_deref())?;
        check_limit("rate", config.limit())
    }

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        Some(self.decide(config, request))
    }
}
