//! `apisix.yaml`, APISIX's standalone form: routes with their plugins and
//! upstreams, put together with the services, plugin configurations and global
//! rules they name.
//!
//! What the stand-in does not imitate is refused where it would change which
//! request goes where (`vars`, `filter_func`, …), and left out with a notice
//! where it would not (a plugin it does not know).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml_ng::Value;

use super::read_text;
use crate::plugins::{Chain, Owner};
use crate::router::{Pattern, Router};

/// Everything an `apisix.yaml` says.
#[derive(Debug)]
pub struct Table {
    /// Finds a request's route.
    pub router: Router,
    /// Plugins that run on every request, before the route's own.
    pub globals: Vec<Chain>,
}

/// A route with everything it names.
#[derive(Debug)]
pub struct Route {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The service it belongs to.
    pub service_id: Option<String>,
    /// Paths it takes.
    pub paths: Vec<Pattern>,
    /// Hosts it takes; none takes all.
    pub hosts: Vec<String>,
    /// Methods it takes; none takes all.
    pub methods: Vec<String>,
    /// Which of several routes of one path goes first.
    pub priority: i64,
    /// Its plugins, in the order they run.
    pub chain: Chain,
    /// Where its requests go.
    pub upstream: Option<Arc<Upstream>>,
    /// Whether a connection may change its protocol.
    pub websocket: bool,
}

/// Where requests go.
#[derive(Debug)]
pub struct Upstream {
    /// `host:port`, each as often as its weight says.
    pub nodes: Vec<String>,
    /// Whose turn it is.
    pub turn: AtomicUsize,
    /// Time-outs in seconds.
    pub timeout: Timeout,
    /// How often another node is tried when one cannot be connected.
    pub retries: usize,
    /// Which host the upstream is told.
    pub pass_host: PassHost,
}

/// Which `Host` goes upstream.
#[derive(Debug, Clone)]
pub enum PassHost {
    /// The client's.
    Pass,
    /// The node's.
    Node,
    /// This one.
    Rewrite(String),
}

/// `timeout` of a route or an upstream, in seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// For a connection to stand.
    pub connect: f64,
    /// Between two reads.
    pub read: f64,
    /// Between two writes.
    pub send: f64,
}

impl Default for Timeout {
    fn default() -> Self {
        Self {
            connect: 60.0,
            read: 60.0,
            send: 60.0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct File {
    routes: Vec<RouteConf>,
    services: Vec<ServiceConf>,
    upstreams: Vec<UpstreamConf>,
    plugin_configs: Vec<PluginsConf>,
    global_rules: Vec<PluginsConf>,
    // Known to APISIX, of no meaning here.
    plugins: IgnoredAny,
    plugin_metadata: IgnoredAny,
    consumers: IgnoredAny,
    ssls: IgnoredAny,
    secrets: IgnoredAny,
    stream_routes: IgnoredAny,
}

#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

type Plugins = BTreeMap<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteConf {
    id: Option<Id>,
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    uris: Vec<String>,
    #[serde(default)]
    host: Option<OneOrMany>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    priority: i64,
    status: Option<u8>,
    #[serde(default)]
    plugins: Plugins,
    plugin_config_id: Option<Id>,
    service_id: Option<Id>,
    upstream: Option<UpstreamConf>,
    upstream_id: Option<Id>,
    timeout: Option<Timeout>,
    enable_websocket: Option<bool>,
    #[serde(default, rename = "desc")]
    _desc: IgnoredAny,
    #[serde(default, rename = "labels")]
    _labels: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceConf {
    id: Id,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    plugins: Plugins,
    upstream: Option<UpstreamConf>,
    upstream_id: Option<Id>,
    enable_websocket: Option<bool>,
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default, rename = "desc")]
    _desc: IgnoredAny,
    #[serde(default, rename = "labels")]
    _labels: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginsConf {
    id: Id,
    #[serde(default)]
    plugins: Plugins,
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default, rename = "desc")]
    _desc: IgnoredAny,
    #[serde(default, rename = "labels")]
    _labels: IgnoredAny,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct UpstreamConf {
    id: Option<Id>,
    #[serde(default)]
    nodes: Nodes,
    #[serde(rename = "type")]
    kind: Option<String>,
    scheme: Option<String>,
    timeout: Option<Timeout>,
    retries: Option<usize>,
    pass_host: Option<String>,
    upstream_host: Option<String>,
    #[serde(default, rename = "retry_timeout")]
    _retry_timeout: IgnoredAny,
    #[serde(default, rename = "keepalive_pool")]
    _keepalive_pool: IgnoredAny,
    #[serde(default, rename = "checks")]
    _checks: IgnoredAny,
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default, rename = "desc")]
    _desc: IgnoredAny,
    #[serde(default, rename = "labels")]
    _labels: IgnoredAny,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Nodes {
    Map(BTreeMap<String, usize>),
    List(Vec<Node>),
}

impl Default for Nodes {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

#[derive(Deserialize, Clone)]
struct Node {
    host: String,
    port: Option<u16>,
    weight: usize,
}

/// The most turns a node gets out of its weight.
const MOST_WEIGHT: usize = 1000;

impl Table {
    /// Reads the file. `version` becomes part of every configuration key.
    pub fn read(path: &Path, version: &str) -> Result<Self> {
        let text = read_text(path)?;
        Self::parse(&text, version).with_context(|| path.display().to_string())
    }

    /// Reads a file's text.
    pub fn parse(text: &str, version: &str) -> Result<Self> {
        ensure!(
            text.trim_end().ends_with("#END"),
            "its last line is not #END"
        );
        let file: Option<File> = serde_yaml_ng::from_str(text)?;
        let file = file.unwrap_or_default();
        let mut globals = Vec::new();
        for rule in &file.global_rules {
            let owner = Owner::new("global_rule", &rule.id.to_string(), version);
            let chain = Chain::build(&rule.plugins, &owner);
            globals.push(chain.with_context(|| format!("global rule {}", rule.id))?);
        }
        let mut routes = Vec::new();
        for (index, conf) in file.routes.iter().enumerate() {
            if conf.status == Some(0) {
                continue;
            }
            let id = match &conf.id {
                Some(id) => id.to_string(),
                None => format!("arr_{}", index + 1),
            };
            let route = file.route(conf, &id, version);
            routes.push(Arc::new(route.with_context(|| format!("route {id}"))?));
        }
        Ok(Self {
            router: Router::new(&routes),
            globals,
        })
    }
}

impl File {
    fn route(&self, conf: &RouteConf, id: &str, version: &str) -> Result<Route> {
        let mut version = version.to_owned();
        let mut plugins = conf.plugins.clone();
        if let Some(wanted) = &conf.plugin_config_id {
            let shared = self
                .plugin_configs
                .iter()
                .find(|shared| shared.id == *wanted);
            let shared = shared.with_context(|| format!("no plugin config {wanted}"))?;
            for (name, value) in &shared.plugins {
                plugins.entry(name.clone()).or_insert_with(|| value.clone());
            }
            version = format!("{version}&{version}");
        }
        let mut service = None;
        if let Some(wanted) = &conf.service_id {
            let found = self.services.iter().find(|service| service.id == *wanted);
            let found = found.with_context(|| format!("no service {wanted}"))?;
            for (name, value) in &found.plugins {
                plugins.entry(name.clone()).or_insert_with(|| value.clone());
            }
            service = Some(found);
        }
        let owner = match service {
            None => Owner::new("route", id, &version),
            Some(service) => Owner::new(
                "route&service",
                &format!("{id}&{}", service.id),
                &format!("{version}&{version}"),
            ),
        };
        let upstream = self.upstream(
            [
                conf.upstream.as_ref(),
                service.and_then(|service| service.upstream.as_ref()),
            ],
            [
                conf.upstream_id.as_ref(),
                service.and_then(|service| service.upstream_id.as_ref()),
            ],
            conf.timeout,
        )?;
        let uris = conf.uris.iter().chain(&conf.uri);
        let paths: Vec<Pattern> = uris.map(|uri| Pattern::parse(uri)).collect::<Result<_>>()?;
        ensure!(!paths.is_empty(), "it has neither uri nor uris");
        let mut hosts = conf.hosts.clone();
        match &conf.host {
            Some(OneOrMany::One(host)) => hosts.push(host.clone()),
            Some(OneOrMany::Many(more)) => hosts.extend_from_slice(more),
            None => {}
        }
        if let Some(service) = service.filter(|_| hosts.is_empty()) {
            hosts.clone_from(&service.hosts);
        }
        let websocket = conf
            .enable_websocket
            .or(service.and_then(|s| s.enable_websocket));
        Ok(Route {
            id: id.to_owned(),
            name: conf.name.clone(),
            service_id: service.map(|service| service.id.to_string()),
            paths,
            hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            methods: conf.methods.clone(),
            priority: conf.priority,
            chain: Chain::build(&plugins, &owner)?,
            upstream,
            websocket: websocket.unwrap_or(false),
        })
    }

    fn upstream(
        &self,
        inline: [Option<&UpstreamConf>; 2],
        named: [Option<&Id>; 2],
        timeout: Option<Timeout>,
    ) -> Result<Option<Arc<Upstream>>> {
        for (inline, named) in inline.into_iter().zip(named) {
            let conf = match (inline, named) {
                (_, Some(wanted)) => {
                    let found = self
                        .upstreams
                        .iter()
                        .find(|up| up.id.as_ref() == Some(wanted));
                    found.with_context(|| format!("no upstream {wanted}"))?
                }
                (Some(inline), None) => inline,
                (None, None) => continue,
            };
            return conf.build(timeout).map(|upstream| Some(Arc::new(upstream)));
        }
        Ok(None)
    }
}

impl UpstreamConf {
    fn build(&self, timeout: Option<Timeout>) -> Result<Upstream> {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        ensure!(scheme == "http", "upstream scheme {scheme} is not imitated");
        let kind = self.kind.as_deref().unwrap_or("roundrobin");
        ensure!(kind == "roundrobin", "upstream type {kind} is not imitated");
        let weighted: Vec<(String, usize)> = match &self.nodes {
            Nodes::Map(map) => map
                .iter()
                .map(|(node, weight)| (node.clone(), *weight))
                .collect(),
            Nodes::List(list) => {
                let node = |Node { host, port, weight }: &Node| {
                    (format!("{host}:{}", port.unwrap_or(80)), *weight)
                };
                list.iter().map(node).collect()
            }
        };
        let distinct = weighted.len();
        let nodes = weighted.into_iter().flat_map(|(node, weight)| {
            let node = if node.contains(':') {
                node
            } else {
                format!("{node}:80")
            };
            std::iter::repeat_n(node, weight.min(MOST_WEIGHT))
        });
        let pass_host = match (self.pass_host.as_deref(), &self.upstream_host) {
            (None | Some("pass"), _) => PassHost::Pass,
            (Some("node"), _) => PassHost::Node,
            (Some("rewrite"), Some(host)) => PassHost::Rewrite(host.clone()),
            (Some(other), _) => bail!("pass_host {other} is not imitated"),
        };
        Ok(Upstream {
            nodes: nodes.collect(),
            turn: AtomicUsize::new(0),
            timeout: timeout.or(self.timeout).unwrap_or_default(),
            retries: self.retries.unwrap_or(distinct.saturating_sub(1)),
            pass_host,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_route_is_put_together() {
        let table = Table::parse(
            r#"
routes:
  - id: 1
    uris: [/a, /a/*]
    service_id: s
    plugins: {cors: {allow_origins: "https://a.example"}, unknown-one: {x: 1}}
services:
  - {id: s, upstream_id: up, plugins: {ext-plugin-pre-req: {conf: [{name: a, value: "{}"}]}}}
upstreams:
  - {id: up, nodes: {"127.0.0.1:1981": 2}, timeout: {connect: 1, read: 2, send: 3}}
#END
"#,
            "7",
        );
        let table = table.unwrap();
        let route = table.router.find(None, b"/a/b", b"GET").unwrap();
        assert_eq!(route.id, "1");
        let upstream = route.upstream.as_ref().unwrap();
        assert_eq!(upstream.nodes, ["127.0.0.1:1981", "127.0.0.1:1981"]);
        assert_eq!(upstream.retries, 0);
    }

    #[test]
    fn what_cannot_be_imitated_is_refused() {
        for text in [
            "routes: []",
            "routes: [{id: 1, uri: /a, vars: []}]\n#END",
            "routes: [{id: 1, uri: /a/*/b}]\n#END",
            "routes: [{id: 1}]\n#END",
            "routes: [{id: 1, uri: /a, upstream_id: gone}]\n#END",
            "routes: [{id: 1, uri: /a, upstream: {nodes: {}, scheme: https}}]\n#END",
        ] {
            assert!(Table::parse(text, "7").is_err(), "{text}");
        }
        assert!(Table::parse("#END", "7").is_ok());
    }
}
