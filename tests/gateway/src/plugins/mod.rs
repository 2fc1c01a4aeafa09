//! The plugins the stand-in knows, and the order in which they run. Sources:
//! `apisix/plugin.lua` (`filter`, `run_plugin`, `run_global_rules`) and each
//! plugin's own file.

pub mod cors;
pub mod ext_plugin;
pub mod post_resp;
pub mod proxy_rewrite;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::exchange::{End, Exchange};
use cors::Cors;
use ext_plugin::ExtPlugin;
use proxy_rewrite::ProxyRewrite;

/// Who a plugin's configuration belongs to: the parts of its key.
#[derive(Debug, Clone)]
pub struct Owner {
    kind: &'static str,
    id: String,
    version: String,
}

impl Owner {
    /// `kind` is APISIX's `conf_type`.
    #[must_use]
    pub fn new(kind: &'static str, id: &str, version: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            version: version.to_owned(),
        }
    }

    /// The key under which a plugin's configuration is prepared.
    #[must_use]
    pub fn key(&self, plugin: &str) -> String {
        format!("{}#{}#{plugin}#{}", self.kind, self.id, self.version)
    }
}

/// The plugins of a route or a global rule, highest priority first.
#[derive(Debug, Default)]
pub struct Chain(Vec<Step>);

#[derive(Debug)]
struct Step {
    priority: i64,
    plugin: Plugin,
    error_response: Option<Vec<u8>>,
}

/// One plugin with its configuration.
#[derive(Debug)]
enum Plugin {
    ClientControl {
        max_body_size: u64,
    },
    ProxyControl {
        request_buffering: bool,
    },
    /// Answers are never held back here, so there is nothing to switch off. But
    /// nginx serves such a request from another location, and there forgets what
    /// the two above have set.
    ProxyBuffering {
        disabled: bool,
    },
    PreReq(ExtPlugin),
    Cors(Cors),
    ProxyRewrite(ProxyRewrite),
    PostReq(ExtPlugin),
    PostResp(ExtPlugin),
}

/// `_meta`, which any plugin's configuration may carry.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Meta {
    disable: bool,
    priority: Option<i64>,
    error_response: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientControl {
    #[serde(default)]
    max_body_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyControl {
    #[serde(default = "yes")]
    request_buffering: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyBuffering {
    #[serde(default)]
    disable_proxy_buffering: bool,
}

fn yes() -> bool {
    true
}

impl Chain {
    /// Reads the `plugins` of a route.
    pub fn build(plugins: &BTreeMap<String, Value>, owner: &Owner) -> Result<Self> {
        let mut steps = Vec::new();
        for (name, conf) in plugins {
            let step = Step::build(name, conf.clone(), owner);
            steps.extend(step.with_context(|| format!("plugin {name}"))?);
        }
        steps.sort_by_key(|step| std::cmp::Reverse(step.priority));
        Ok(Self(steps))
    }

    /// The rewrite phase.
    pub async fn rewrite(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        for step in &self.0 {
            let outcome = match &step.plugin {
                Plugin::ClientControl { max_body_size } => {
                    exchange.request.body.limit(*max_body_size);
                    // An announced length is judged here; others while they are read.
                    exchange.request.body.check_length().map_err(End::from)
                }
                Plugin::ProxyControl { request_buffering } => {
                    exchange.request.buffered = *request_buffering;
                    Ok(())
                }
                Plugin::PreReq(plugin) => plugin.request(exchange).await,
                Plugin::Cors(cors) => cors.rewrite(exchange),
                Plugin::ProxyRewrite(rewrite) => rewrite.rewrite(exchange),
                Plugin::ProxyBuffering { .. } | Plugin::PostReq(_) | Plugin::PostResp(_) => Ok(()),
            };
            outcome.map_err(|end| step.refine(end))?;
        }
        Ok(())
    }

    /// The access phase.
    pub async fn access(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        for step in &self.0 {
            if let Plugin::PostReq(plugin) = &step.plugin {
                let outcome = plugin.request(exchange).await;
                outcome.map_err(|end| step.refine(end))?;
            }
        }
        Ok(())
    }

    /// The phase after the upstream's node has been picked.
    pub async fn before_proxy(&self, exchange: &mut Exchange<'_>) -> Result<(), End> {
        for step in &self.0 {
            if let Plugin::PostResp(plugin) = &step.plugin {
                let outcome = post_resp::before_proxy(plugin, exchange).await;
                outcome.map_err(|end| step.refine(end))?;
            }
        }
        let elsewhere = |step: &Step| match step.plugin {
            Plugin::ProxyBuffering { disabled } => disabled,
            _ => false,
        };
        if self.0.iter().any(elsewhere) {
            exchange.request.buffered = true;
            exchange.request.body.limit(exchange.worker.config.max_body);
        }
        Ok(())
    }

    /// The phase before an answer's head goes out, whoever made it.
    pub fn header_filter(&self, exchange: &mut Exchange<'_>) {
        for step in &self.0 {
            if let Plugin::Cors(cors) = &step.plugin {
                cors.header_filter(exchange);
            }
        }
    }
}

impl Step {
    fn build(name: &str, mut conf: Value, owner: &Owner) -> Result<Option<Self>> {
        let meta = conf.as_mapping_mut().and_then(|conf| conf.remove("_meta"));
        let meta: Meta = match meta {
            Some(meta) => serde_yaml_ng::from_value(meta).context("_meta")?,
            None => Meta::default(),
        };
        if meta.disable {
            return Ok(None);
        }
        let ext = |conf| ExtPlugin::build(name, conf, owner);
        let (priority, plugin) = match name {
            "client-control" => {
                let ClientControl { max_body_size } = serde_yaml_ng::from_value(conf)?;
                (22000, Plugin::ClientControl { max_body_size })
            }
            "proxy-buffering" => {
                let conf: ProxyBuffering = serde_yaml_ng::from_value(conf)?;
                let disabled = conf.disable_proxy_buffering;
                (21991, Plugin::ProxyBuffering { disabled })
            }
            "proxy-control" => {
                let ProxyControl { request_buffering } = serde_yaml_ng::from_value(conf)?;
                (21990, Plugin::ProxyControl { request_buffering })
            }
            "ext-plugin-pre-req" => (12000, Plugin::PreReq(ext(conf)?)),
            "cors" => (4000, Plugin::Cors(Cors::build(conf)?)),
            "proxy-rewrite" => (1008, Plugin::ProxyRewrite(ProxyRewrite::build(conf)?)),
            "ext-plugin-post-req" => (-3000, Plugin::PostReq(ext(conf)?)),
            "ext-plugin-post-resp" => (-4000, Plugin::PostResp(ext(conf)?)),
            other => {
                tracing::warn!(
                    "plugin {other} of {} {} is not imitated",
                    owner.kind,
                    owner.id
                );
                return Ok(None);
            }
        };
        let error_response = meta.error_response.map(|body| match body {
            Value::String(text) => Ok(text.into_bytes()),
            other => serde_json::to_vec(&other),
        });
        Ok(Some(Self {
            priority: meta.priority.unwrap_or(priority),
            plugin,
            error_response: error_response.transpose().context("_meta.error_response")?,
        }))
    }

    /// `_meta.error_response` replaces the body of a refusal.
    fn refine(&self, end: End) -> End {
        match (end, &self.error_response) {
            (End::Exit(status, _), Some(body)) if status >= 400 => {
                End::Exit(status, Some(body.clone()))
            }
            (end, _) => end,
        }
    }
}
