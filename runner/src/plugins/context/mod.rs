//! `context`: hands on what the chain found out. Last in the chain.
//!
//! Our handlers get one sealed header ([`postern_context`]) and believe no other. Other
//! upstreams (`mode: headers`) get plain headers that a client cannot forge ([`project`])
//! and the path as it was judged.

mod key_file;
mod project;

use std::sync::Arc;

use postern_context::View;
use postern_contract::{Code, Match, Params, Route, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::no_route::not_found;
use crate::{Caller, ConfigError, Flow, Plugin, Registry, Reply, Request};
pub use key_file::ContextSettings;
use key_file::KeyFile;

/// Seals or projects the context.
pub struct Context {
    keys: Option<Arc<KeyFile>>,
}

/// What kind of upstream a route has.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContextConfig {
    /// How the upstream is told who asks.
    mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// One of our handlers: `X-Postern-Context`, sealed for the route's family.
    #[default]
    Sealed,
    /// Any other upstream: `X-Auth-*`, each set or deleted, and the path as judged.
    Headers,
}

impl Context {
    /// A plugin that seals with the keys of a file; without settings only `mode: headers` works.
    ///
    /// # Errors
    /// When the key file cannot be read or is not one.
    pub fn new(settings: Option<ContextSettings>) -> anyhow::Result<Self> {
        Ok(Self {
            keys: settings.map(KeyFile::open).transpose()?.map(Arc::new),
        })
    }

    /// Registers the plugin and the task that follows its key file.
    #[must_use]
    pub fn register(self, registry: Registry) -> Registry {
        let keys = self.keys.clone();
        let registry = registry.with(self);
        match keys {
            None => registry,
            Some(keys) => registry.with_task("context keys", move |stop| keys.follow(stop)),
        }
    }

    fn seal(&self, request: &mut Request<'_>) -> Flow {
        let Some(keys) = &self.keys else {
            // `check` refuses such a route; this is for a chain that was built without it.
            return Flow::Stop(Reply::refuse(Code::GatewayMisconfigured, NO_KEYS));
        };
        let sealed = match request.route() {
            Ok(Match::Found(route, params)) => {
                let now_ms = request.arrived_since_1970().as_millis();
                let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
                keys.current()
                    .seal_view(route.family, &view(request, route, params), now_ms)
            }
            _ => return Flow::Stop(not_found(request)),
        };
        request.set_header(header::POSTERN_CONTEXT, sealed);
        Flow::Next
    }
}

const NO_KEYS: &str =
    "the runner has no keys to seal with: set plugins.context.keyFile in its configuration";

impl Context {
    fn decide(&self, config: &ContextConfig, request: &mut Request<'_>) -> Flow {
        match config.mode {
            Mode::Sealed => self.seal(request),
            Mode::Headers => project::project(request),
        }
    }
}

impl Plugin for Context {
    const NAME: &'static str = "context";
    type Config = ContextConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        match (config.mode, &self.keys) {
            (Mode::Sealed, None) => Err(ConfigError::new("mode", NO_KEYS)),
            _ => Ok(()),
        }
    }

    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        Some(self.decide(config, request))
    }
}

fn view<'a>(request: &'a Request<'_>, route: &'a Route, params: &'a Params<'a>) -> View<'a> {
    let facts = &request.facts;
    let who = facts.identity.as_ref();
    let of_token = || who.and_then(|who| who.plan.as_deref());
    View {
        route: &route.id,
        method: request.method().as_str(),
        params: params.as_slice(),
        token: who.map(Caller::fields),
        plan: facts.plan.as_deref().or_else(of_token).unwrap_or_default(),
        client_address: request.src_ip(),
        correlation_id: facts.correlation_id.as_deref().unwrap_or_default(),
        claim: facts.claim.as_ref(),
        rate_limit: facts.rate_limit.as_ref(),
        body_limit: route.body_limit,
        api_version: facts.api_version.as_deref().unwrap_or_default(),
    }
}
