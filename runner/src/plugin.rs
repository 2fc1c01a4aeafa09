//! What a plugin is: a process-wide value, a typed configuration per route, and
//! two moments at which it is asked.

use std::future::{Future, ready};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::reply::Reply;
use crate::request::Request;
use crate::response::Response;

/// A policy that is asked about every request of the routes that name it.
///
/// One value lives in the process and holds what all routes share (key sets,
/// caches, counters); each route that names the plugin brings a [`Plugin::Config`].
/// Several requests are judged at once, hence `&self`.
///
/// ```
/// use postern_runner::{Flow, Plugin, Reply, Request};
///
/// /// Closes a route for a while.
/// struct Closed;
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct ClosedConfig {
///     /// Shown to the client.
///     message: String,
/// }
///
/// impl Plugin for Closed {
///     const NAME: &'static str = "closed";
///     type Config = ClosedConfig;
///
///     async fn on_request(&self, config: &ClosedConfig, _: &mut Request<'_>) -> Flow {
///         Flow::Stop(Reply::new(503).with_body("text/plain", config.message.clone()))
///     }
/// }
/// ```
pub trait Plugin: Send + Sync + 'static {
    /// The name under which a route's `conf` calls it; also its row in the metrics.
    const NAME: &'static str;

    /// What a route configures, read from the JSON text of `conf[].value`.
    /// Put `#[serde(deny_unknown_fields)]` on it: a misspelt field is an error
    /// that names the field, not a policy that silently does not apply.
    type Config: DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Judges a configuration beyond what its types say, when a route is prepared
    /// and in `postern-runner check`. Never waits on the network: the gateway
    /// prepares under one lock, and every route waits with it.
    ///
    /// # Errors
    /// The field and what is wrong with it. The route then answers 500
    /// `GATEWAY_MISCONFIGURED` until it is mended.
    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        let _ = config;
        Ok(())
    }

    /// Judges a request before it goes upstream (`ext-plugin-pre-req`, `ext-plugin-post-req`).
    fn on_request(
        &self,
        config: &Self::Config,
        request: &mut Request<'_>,
    ) -> impl Future<Output = Flow> + Send {
        ready(self.at_once(config, request).unwrap_or(Flow::Next))
    }

    /// The same verdict where it takes no waiting. Asked first; [`Plugin::on_request`]
    /// is asked only if this gives `None`, and must then have changed nothing.
    ///
    /// Worth writing for what stands on every route: a future has to be kept on the
    /// heap while it waits, a verdict has not.
    fn at_once(&self, config: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        let _ = (config, request);
        None
    }

    /// Sees the upstream's answer (`ext-plugin-post-resp`). It protects nothing: when
    /// the runner fails, the gateway sends the upstream's body all the same.
    fn on_response(
        &self,
        config: &Self::Config,
        response: &mut Response<'_>,
    ) -> impl Future<Output = Flow> + Send {
        let _ = (config, response);
        ready(Flow::Next)
    }
}

/// What becomes of a request after a plugin.
#[derive(Debug)]
pub enum Flow {
    /// The next plugin is asked; after the last one the request goes on, with the edits.
    Next,
    /// The rest of the chain is skipped and the request goes on, with the edits
    /// made so far: a CORS preflight, a public route.
    Pass,
    /// The client gets this answer; nothing goes upstream.
    Stop(Reply),
}

/// A configuration that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where in the configuration: `issuers[0].url`; empty for the whole of it.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl ConfigError {
    /// An error at `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}
