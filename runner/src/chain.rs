//! A route's plugins in their order, each with its configuration.
//!
//! `conf` of a route → [`Registry::chain`](crate::Registry::chain) → [`Chain`], once
//! per configuration; then [`Chain::on_request`] for every request: plugin after
//! plugin until one stops it or lets it pass.

use std::sync::Arc;

use futures::future::BoxFuture;
use metrics::Counter;

use crate::plugin::{ConfigError, Flow, Plugin};
use crate::reply::Reply;
use crate::request::Request;
use crate::response::Response;
use crate::tally::Tally;
use crate::waiting::{Places, shed};

/// A route's plugins, ready to judge.
pub struct Chain {
    links: Vec<Link>,
    /// Requests that all plugins let go on.
    through: Arc<Tally>,
}

/// What a whole chain decided.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The request goes on, with the edits.
    Forward,
    /// The client gets this answer, by the plugin of this name.
    Stop(&'static str, Reply),
}

impl Chain {
    pub(crate) fn new(links: Vec<Link>) -> Self {
        let through = Tally::new(links.iter().map(|link| link.next.clone()).collect());
        Self { links, through }
    }

    /// The plugins' names in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.links.iter().map(|link| link.name)
    }

    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    /// Asks plugin after plugin about a request, as long as none has to wait: most requests
    /// need no more, and no future. An error is the place of the one that has to.
    pub(crate) fn at_once(&self, request: &mut Request<'_>) -> Result<Verdict, usize> {
        for (place, link) in self.links.iter().enumerate() {
            request.asked = link.name;
            let flow = link.bound.at_once(request);
            if matches!(flow, Some(Flow::Next)) {
                continue;
            }
            for before in self.links.iter().take(place) {
                before.next.increment(1);
            }
            let flow = flow.ok_or(place)?;
            link.count(&flow);
            return Ok(match flow {
                Flow::Next | Flow::Pass => Verdict::Forward,
                Flow::Stop(reply) => Verdict::Stop(link.name, reply),
            });
        }
        self.through.add();
        Ok(Verdict::Forward)
    }

    /// Goes on at the plugin that has to wait; those that wait do so in one of the places.
    pub(crate) async fn on_request(
        &self,
        from: usize,
        request: &mut Request<'_>,
        places: &Places,
    ) -> Verdict {
        for (place, link) in self.links.iter().enumerate().skip(from) {
            request.asked = link.name;
            let flow = match place == from {
                true => link.wait(request, places).await,
                false => link.on_request(request, places).await,
            };
            match flow {
                Flow::Next => {}
                Flow::Pass => return Verdict::Forward,
                Flow::Stop(reply) => return Verdict::Stop(link.name, reply),
            }
        }
        Verdict::Forward
    }

    /// Shows plugin after plugin an upstream's answer.
    pub(crate) async fn on_response(&self, response: &mut Response<'_>) -> Verdict {
        for link in &self.links {
            response.asked = link.name;
            match link.bound.on_response(response).await {
                Flow::Next => {}
                Flow::Pass => return Verdict::Forward,
                Flow::Stop(reply) => return Verdict::Stop(link.name, reply),
            }
        }
        Verdict::Forward
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// One plugin with a route's configuration of it.
pub(crate) struct Link {
    pub(crate) name: &'static str,
    bound: Box<dyn Bound>,
    next: Counter,
    pass: Counter,
    stop: Counter,
}

impl Link {
    /// Asks the plugin, and counts what it says.
    pub(crate) async fn on_request(&self, request: &mut Request<'_>, places: &Places) -> Flow {
        match self.bound.at_once(request) {
            Some(flow) => {
                self.count(&flow);
                flow
            }
            None => self.wait(request, places).await,
        }
    }

    /// The same for a plugin that has said that it has to wait.
    async fn wait(&self, request: &mut Request<'_>, places: &Places) -> Flow {
        let flow = match places.take() {
            Some(_place) => self.bound.on_request(request).await,
            None => shed(self.name),
        };
        self.count(&flow);
        flow
    }

    fn count(&self, flow: &Flow) {
        match flow {
            Flow::Next => self.next.increment(1),
            Flow::Pass => self.pass.increment(1),
            Flow::Stop(_) => self.stop.increment(1),
        }
    }
}

/// A plugin whose configuration's type is forgotten: what a chain is made of.
trait Bound: Send + Sync {
    fn at_once(&self, request: &mut Request<'_>) -> Option<Flow>;
    fn on_request<'s>(&'s self, request: &'s mut Request<'_>) -> BoxFuture<'s, Flow>;
    fn on_response<'s>(&'s self, response: &'s mut Response<'_>) -> BoxFuture<'s, Flow>;
}

struct WithConfig<P: Plugin> {
    plugin: Arc<P>,
    config: P::Config,
}

impl<P: Plugin> Bound for WithConfig<P> {
    fn at_once(&self, request: &mut Request<'_>) -> Option<Flow> {
        self.plugin.at_once(&self.config, request)
    }

    fn on_request<'s>(&'s self, request: &'s mut Request<'_>) -> BoxFuture<'s, Flow> {
        Box::pin(self.plugin.on_request(&self.config, request))
    }

    fn on_response<'s>(&'s self, response: &'s mut Response<'_>) -> BoxFuture<'s, Flow> {
        Box::pin(self.plugin.on_response(&self.config, response))
    }
}

/// A plugin that can be bound to configurations: what a registry is made of.
pub(crate) trait Bind: Send + Sync {
    /// Reads a route's configuration of the plugin.
    fn bind(&self, config: &str) -> Result<Link, ConfigError>;
    /// The JSON Schema of its configuration.
    fn schema(&self) -> schemars::Schema;
}

impl<P: Plugin> Bind for Arc<P> {
    fn bind(&self, config: &str) -> Result<Link, ConfigError> {
        // A plugin without settings is written `value: ""` as often as `value: "{}"`.
        let config = if config.trim().is_empty() {
            "{}"
        } else {
            config
        };
        // A list would be read as the settings in their order, without their names.
        if config.trim_start().starts_with('[') {
            return Err(ConfigError::new("", "must be an object"));
        }
        let mut json = serde_json::Deserializer::from_str(config);
        let config: P::Config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            ConfigError::new(
                crate::config::field(error.path()),
                error.inner().to_string(),
            )
        })?;
        json.end()
            .map_err(|error| ConfigError::new("", error.to_string()))?;
        self.check(&config)?;
        let count = |verdict: &'static str| metrics::counter!("postern_plugin_verdicts_total", "plugin" => P::NAME, "verdict" => verdict);
        Ok(Link {
            name: P::NAME,
            bound: Box::new(WithConfig {
                plugin: Arc::clone(self),
                config,
            }),
            next: count("next"),
            pass: count("pass"),
            stop: count("stop"),
        })
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(P::Config)
    }
}
