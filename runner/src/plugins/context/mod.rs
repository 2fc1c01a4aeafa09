//! `context`: hands on what the chain found out. Last in the chain.
//!
//! Our handlers get one sealed header ([`postern_context`]) and believe no other. Other
//! upstreams (`mode: headers`) get plain headers that a client cannot forge ([`project`])
//! and the path as it was judged.

mod key_file;
mod project;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_context::{Context as Message, PathParam};
use postern_contract::{Code, Match, Params, Route, header};
use schemars::JsonSchema;
use serde::Deserialize;

use super::no_route::not_found;
use crate::{ConfigError, Flow, Plugin, Registry, Reply, Request};
use key_file::KeyFile;
pub use key_file::ContextSettings;

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
        Ok(Self { keys: settings.map(KeyFile::open).transpose()?.map(Arc::new) })
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
        let (route, message) = match request.route() {
            Ok(Match::Found(route, params)) => (*route, message(request, route, params)),
            _ => return Flow::Stop(not_found(request)),
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let sealed = keys.current().seal(route.family, message, now_ms);
        request.set_header(header::POSTERN_CONTEXT, sealed);
        Flow::Next
    }
}

const NO_KEYS: &str = "the runner has no keys to seal with: set plugins.context.keyFile in its configuration";

impl Plugin for Context {
    const NAME: &'static str = "context";
    type Config = ContextConfig;

    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        match (config.mode, &self.keys) {
            (Mode::Sealed, None) => Err(ConfigError::new("mode", NO_KEYS)),
            _ => Ok(()),
        }
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        match config.mode {
            Mode::Sealed => self.seal(request),
            Mode::Headers => project::project(request),
        }
    }
}

fn message(request: &Request<'_>, route: &Route, params: &Params<'_>) -> Message {
    let facts = &request.facts;
    let param = |(name, value): (&str, &str)| PathParam { name: name.into(), value: value.into() };
    let mut message = Message {
        route: route.id.clone(),
        method: request.method().as_str().to_owned(),
        params: params.iter().map(param).collect(),
        client_address: request.src_ip().map(|ip| ip.to_string()).unwrap_or_default(),
        correlation_id: facts.correlation_id.as_deref().unwrap_or_default().to_owned(),
        api_version: facts.api_version.as_deref().unwrap_or_default().to_owned(),
        claim: facts.claim.clone(),
        rate_limit: facts.rate_limit.clone(),
        body_limit: route.body_limit,
        ..Message::default()
    };
    if let Some(who) = &facts.identity {
        message.issuer.clone_from(&who.issuer);
        message.subject.clone_from(&who.subject);
        message.tenant = who.tenant.clone().unwrap_or_default();
        message.workspace = who.workspace.clone().unwrap_or_default();
        message.plan = facts.plan.as_deref().or(who.plan.as_deref()).unwrap_or_default().to_owned();
        message.roles.clone_from(&who.roles);
        message.scopes.clone_from(&who.scopes);
        message.token_expires_at = u64::try_from(who.expires_at).unwrap_or_default();
        message.session = who.session.clone().unwrap_or_default();
    }
    message
}
