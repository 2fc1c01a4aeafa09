//! Our own plugins, one module each, in the order in which a request meets them.
//!
//! | plugin | asks | and stands there because |
//! |---|---|---|
//! | [`correlation_id`] | has the request a name? | every refusal after it carries it |
//! | [`headers`] | is it well-formed, is there such a route? | costs nothing and needs nobody |
//! | [`address_limit`] | does this address ask too much? | before the first signature is checked |
//! | [`jwt`] | who asks? | all that follows is about somebody |
//! | [`rate_limit`] | does this caller ask too much? | before anybody else is asked |
//! | [`authorize`] | may they? | asks the directory at most |
//! | [`idempotency`] | was it done before? | nothing is claimed before all else has passed |
//! | [`context`] | | tells the upstream what was found out |
//!
//! The catch-all route ends with [`no_route`] instead.

pub mod address_limit;
pub mod authorize;
mod cache;
pub mod context;
pub mod correlation_id;
pub mod headers;
pub mod idempotency;
pub mod jwt;
mod limits;
pub mod no_route;
mod preflight;
pub mod rate_limit;

use std::sync::Arc;

use crate::{Registry, RunnerConfig};

/// Every plugin of this house with what it shares between routes.
///
/// # Errors
/// A section of the configuration that cannot be used.
pub fn house(config: &RunnerConfig) -> anyhow::Result<Registry> {
    let sections = &config.plugins;
    let limits: rate_limit::RateLimitSettings = sections.get("rate-limit")?.unwrap_or_default();
    let limiter = Arc::new(limits.limiter()?);
    let calls = Arc::new(limits::calls::Calls::default());
    let headers = headers::Headers::new(sections.get("headers")?.unwrap_or_default())?;
    let authorize = authorize::Authorize::new(sections.get("authorize")?.unwrap_or_default())?;
    let jwt = jwt::Jwt::new(sections.get("jwt")?.unwrap_or_default())?;
    let jwt = jwt.told_by(authorize.directory());
    let idempotency = idempotency::Idempotency::new(sections.get("idempotency")?)?;
    let context = context::Context::new(sections.get("context")?)?;

    let registry = Registry::new()
        .with(correlation_id::CorrelationId)
        .with(headers)
        .with(address_limit::AddressLimit::new(Arc::clone(&limiter)))
        .with(rate_limit::RateLimit::new(
            Arc::clone(&limiter),
            Arc::clone(&calls),
            authorize.plans(),
        ))
        .with(idempotency)
        .with(no_route::NoRoute);
    let registry = limits::register(limiter, registry);
    let registry = match authorize.clients() {
        Some(client) => registry.with_task("calls", move |stop| calls.report(client, stop)),
        None => registry,
    };
    let registry = jwt.register(registry);
    let registry = authorize.register(registry);
    Ok(context.register(registry))
}
