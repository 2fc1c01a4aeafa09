//! The process's own configuration: one YAML file, read before anything listens.
//!
//! `runner/postern-runner.yaml` holds every field with its default; a test keeps it
//! so. What a route wants of a plugin stands in the route's `conf` instead.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Everything that is said about a process and not about a route.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RunnerConfig {
    /// The socket that the gateway calls.
    pub socket: SocketConfig,
    /// The process that answers.
    pub worker: WorkerConfig,
    /// Bounds of what one connection and one call may take.
    pub limits: LimitsConfig,
    /// Metrics and health.
    pub admin: AdminConfig,
    /// Where events go.
    pub log: LogConfig,
    /// What plugins share between routes, by the plugin's name.
    pub plugins: Sections,
}

/// The socket that the gateway calls.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SocketConfig {
    /// `unix:/path`. The gateway names it in `APISIX_LISTEN_ADDRESS`, which wins.
    pub listen: Option<String>,
    /// Permissions of the socket's file, octal. Gateway workers run as `nobody` and
    /// must be able to write: give them the group, or leave it open and close the folder.
    pub mode: String,
    /// Who owns the socket's file (name or number); by default whoever starts the runner.
    pub user: Option<String>,
    /// The group of the socket's file (name or number).
    pub group: Option<String>,
    /// Whose processes may connect, by name or number, beside those of `allowGroups`. With
    /// both empty it is whoever the file's permissions let in.
    pub allow_users: Vec<String>,
    /// The same by the group that a process runs under, not those it is a member of.
    pub allow_groups: Vec<String>,
    /// Connections the kernel holds until they are accepted. A full backlog is an
    /// instant 503 to a client; the kernel cuts it to `net.core.somaxconn`.
    pub backlog: i32,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            listen: None,
            mode: "0666".into(),
            user: None,
            group: None,
            allow_users: Vec::new(),
            allow_groups: Vec::new(),
            backlog: 4096,
        }
    }
}

impl SocketConfig {
    /// `mode` as a number.
    pub(crate) fn mode(&self) -> anyhow::Result<u32> {
        let mode = u32::from_str_radix(self.mode.trim_start_matches("0o"), 8).ok();
        mode.filter(|mode| *mode <= 0o777).with_context(|| {
            format!(
                "socket.mode: {:?} is no octal mode such as \"0660\"",
                self.mode
            )
        })
    }
}

/// The process that answers.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct WorkerConfig {
    /// Threads that answer calls. One is enough for a gateway on a few cores.
    pub threads: usize,
    /// Whom supervisor and worker become once the socket is bound, when started as
    /// root (name or number).
    pub user: Option<String>,
    /// Their group; by default the user's own.
    pub group: Option<String>,
    /// How long a worker serves on after SIGTERM while connections are open. The
    /// gateway kills 1 s after SIGTERM: at most 900.
    pub drain_ms: u64,
    /// How long a worker that was replaced (SIGHUP) may finish calls before it is ended.
    pub handover_ms: u64,
    /// How long a new worker may take to read its keys and be ready, before it is given up.
    pub start_ms: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            threads: 1,
            user: None,
            group: None,
            drain_ms: 600,
            handover_ms: 30_000,
            start_ms: 30_000,
        }
    }
}

/// Bounds of what one connection and one call may take.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LimitsConfig {
    /// Connections at once; further ones wait in the backlog. A gateway worker keeps
    /// 32 idle ones and opens one more for each call that runs.
    pub connections: usize,
    /// How long the rest of a frame may take to arrive or to be taken. A connection
    /// may be idle between frames for any time.
    pub frame_ms: u64,
    /// How long a chain may take, round trips included; then the client gets 504
    /// `BACKEND_UNAVAILABLE`. The gateway gives up after 60 s.
    pub chain_ms: u64,
    /// Requests that wait at once, for a store, the directory or an issuer. Further ones
    /// that would have to are refused: 503 `BACKEND_UNAVAILABLE`.
    pub waiting: usize,
    /// Configurations kept at once. Beyond it the one prepared longest ago is
    /// forgotten; the gateway prepares it again when it is asked for.
    pub configurations: usize,
    /// Bytes of one route's `conf`; a longer one is a misconfigured route.
    pub conf_bytes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 8192,
            frame_ms: 10_000,
            chain_ms: 10_000,
            waiting: 1024,
            configurations: 4096,
            conf_bytes: 256 * 1024,
        }
    }
}

impl LimitsConfig {
    pub(crate) fn frame(&self) -> Duration {
        Duration::from_millis(self.frame_ms)
    }

    pub(crate) fn chain(&self) -> Duration {
        Duration::from_millis(self.chain_ms)
    }
}

/// Metrics and health over HTTP.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AdminConfig {
    /// `unix:/path` or a loopback address with port (`127.0.0.1:9464`); absent: off.
    /// Serves `/metrics`, `/healthz` (the process runs) and `/readyz` (it can judge).
    pub listen: Option<String>,
}

/// Where events go. Never a token, key, body or password.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct LogConfig {
    /// `stderr` (the gateway writes it to its error log), `unix:/path` (a datagram a
    /// line), or a file's path.
    pub to: String,
    /// `error`, `warn`, `info`, `debug`, `trace`, or per module: `info,postern_runner=debug`.
    pub level: String,
    /// One of so many requests that went through is written; 0: none.
    pub request_one_in: u64,
    /// Refusals written in a second at most; all are counted.
    pub refusals_per_second: u64,
    /// Events that may wait for a slow disk; beyond it they are dropped and counted.
    pub queue: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            to: "stderr".into(),
            level: "info".into(),
            request_one_in: 0,
            refusals_per_second: 20,
            queue: 4096,
        }
    }
}

/// The plugins' own sections, each read by the plugin that is called so.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Sections {
    values: BTreeMap<String, serde_yaml_ng::Value>,
    #[serde(skip)]
    read: Mutex<BTreeSet<String>>,
}

impl Sections {
    /// The section of this name, if the file has one.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        self.read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(name.to_owned());
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        let section = serde_path_to_error::deserialize(value.clone());
        section.map(Some).map_err(|error| {
            let field = [name, &field(error.path())].join(".");
            let field = field.trim_end_matches('.');
            anyhow::anyhow!("plugins.{field}: {}", error.inner())
        })
    }

    /// Sections that no plugin has asked for: misspelt, or of a plugin that this
    /// binary does not have.
    pub(crate) fn unread(&self) -> anyhow::Result<()> {
        let read = self
            .read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match self.values.keys().find(|name| !read.contains(*name)) {
            Some(name) => anyhow::bail!(
                "plugins.{name}: no plugin of this binary has settings of this name; there are: {}",
                read.iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            None => Ok(()),
        }
    }
}

impl RunnerConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// One line: the file, the field, what is wrong.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads a text. An empty one is the defaults.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        // `null` is what a file of comments is to YAML.
        let yaml = serde_yaml_ng::Deserializer::from_str(text);
        let config: Option<Self> = serde_path_to_error::deserialize(yaml).map_err(|error| {
            let (field, cause) = (field(error.path()), error.inner().to_string());
            // Of a value of the wrong kind YAML's reader names the field itself.
            if cause.starts_with(field.as_str()) {
                anyhow::anyhow!("{cause}")
            } else {
                anyhow::anyhow!("{field}: {cause}")
            }
        })?;
        let config = config.unwrap_or_default();
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.socket.mode()?;
        anyhow::ensure!(self.socket.backlog > 0, "socket.backlog: must be above 0");
        anyhow::ensure!(
            (1..=64).contains(&self.worker.threads),
            "worker.threads: must be 1 to 64"
        );
        anyhow::ensure!(
            self.worker.drain_ms <= 900,
            "worker.drainMs: must be at most 900, the gateway kills after 1 s"
        );
        anyhow::ensure!(self.worker.start_ms > 0, "worker.startMs: must be above 0");
        let LimitsConfig {
            connections,
            frame_ms,
            chain_ms,
            waiting,
            configurations,
            conf_bytes,
        } = self.limits;
        anyhow::ensure!(connections > 0, "limits.connections: must be above 0");
        anyhow::ensure!(frame_ms > 0, "limits.frameMs: must be above 0");
        anyhow::ensure!(
            (1..60_000).contains(&chain_ms),
            "limits.chainMs: must be 1 to 59999, the gateway gives up after 60 s"
        );
        anyhow::ensure!(waiting > 0, "limits.waiting: must be above 0");
        anyhow::ensure!(configurations > 0, "limits.configurations: must be above 0");
        anyhow::ensure!(conf_bytes > 0, "limits.confBytes: must be above 0");
        if let Some(address) = &self.admin.listen {
            Address::parse(address).context("admin.listen")?;
        }
        anyhow::ensure!(self.log.queue > 0, "log.queue: must be above 0");
        Ok(())
    }

    /// Where to listen: what the gateway says, else what the file says.
    pub(crate) fn listen_path(&self) -> anyhow::Result<PathBuf> {
        let from_gateway = std::env::var("APISIX_LISTEN_ADDRESS").ok();
        let (source, address) = match (&from_gateway, &self.socket.listen) {
            (Some(address), _) => ("APISIX_LISTEN_ADDRESS", address),
            (None, Some(address)) => ("socket.listen", address),
            (None, None) => anyhow::bail!(
                "no socket to listen on: the gateway sets APISIX_LISTEN_ADDRESS=unix:/path when it \
                 starts the runner; to run it by hand set that or socket.listen"
            ),
        };
        let path = address.strip_prefix("unix:").map(PathBuf::from);
        path.filter(|path| path.is_absolute() || path.components().count() > 0)
            .with_context(|| format!("{source}: {address:?} is not of the form unix:/path"))
    }
}

/// Where in a text an error is; empty for the whole of it.
pub(crate) fn field(path: &serde_path_to_error::Path) -> String {
    let field = path.to_string();
    // The crate's words for "at the top" and "who knows".
    field.trim_end_matches('?').trim_matches('.').to_owned()
}

/// Where the admin endpoint is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket's path.
    Unix(PathBuf),
    /// A port of this machine.
    Loopback(std::net::SocketAddr),
}

impl Address {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let address: std::net::SocketAddr = text.parse().with_context(|| {
            format!("{text:?} is neither unix:/path nor an address with a port")
        })?;
        anyhow::ensure!(
            address.ip().is_loopback(),
            "{text:?} is not of this machine alone; use 127.0.0.1 or unix:/path"
        );
        Ok(Self::Loopback(address))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_yaml_ng::Value;

    use super::*;

    const FILE: &str = include_str!("../postern-runner.yaml");

    #[test]
    fn the_file_of_defaults_holds_the_defaults_and_every_field() {
        let (file, defaults) = (RunnerConfig::parse(FILE).unwrap(), RunnerConfig::default());
        assert_eq!(file.socket, defaults.socket);
        assert_eq!(file.worker, defaults.worker);
        assert_eq!(file.limits, defaults.limits);
        assert_eq!(file.admin, defaults.admin);
        assert_eq!(file.log, defaults.log);
        // An unknown field's error lists the fields there are.
        for section in ["socket", "worker", "limits", "admin", "log"] {
            let error = RunnerConfig::parse(&format!("{section}: {{nonsense: 1}}")).unwrap_err();
            let error = error.to_string();
            let known = error.split("expected").nth(1).unwrap();
            for field in known.split('`').skip(1).step_by(2) {
                assert!(
                    FILE.contains(&format!("\n  {field}: ")),
                    "{section}.{field} is not in the file"
                );
            }
        }
    }

    /// The plugins' sections of the file, the examples in it included: these stand behind
    /// `#` without a blank, prose behind `# `.
    fn shown() -> Value {
        let (_, plugins) = FILE.split_once("\nplugins:\n").unwrap();
        let example = |line: &str| {
            let text = line.trim_start();
            let told = text
                .strip_prefix('#')
                .map(|rest| rest.trim_start_matches(' '));
            match told {
                Some(told) if text.len() - told.len() != 2 => line.replacen('#', "", 1),
                _ => line.to_owned(),
            }
        };
        let lines: Vec<_> = plugins.lines().map(example).collect();
        serde_yaml_ng::from_str(&lines.join("\n")).unwrap()
    }

    /// Every mapping within a value, by the way that leads there.
    fn mappings(value: &Value, way: &[Value], found: &mut Vec<Vec<Value>>) {
        let steps: Vec<(Value, &Value)> = match value {
            Value::Mapping(members) => {
                found.push(way.to_vec());
                members
                    .iter()
                    .map(|(name, member)| (name.clone(), member))
                    .collect()
            }
            Value::Sequence(items) => {
                let numbered = items.iter().enumerate();
                numbered.map(|(at, item)| (at.into(), item)).collect()
            }
            _ => Vec::new(),
        };
        for (step, inner) in steps {
            mappings(inner, &[way, &[step]].concat(), found);
        }
    }

    /// A section shows every field there is, and says what a section says that names
    /// nothing but what has no default.
    fn is_shown_whole<T: DeserializeOwned + std::fmt::Debug>(name: &str, least: &str) {
        let section = shown().get(name).unwrap().clone();
        let read: T = serde_yaml_ng::from_value(section.clone()).unwrap();
        let least: T = serde_yaml_ng::from_str(least).unwrap();
        assert_eq!(format!("{read:#?}"), format!("{least:#?}"), "{name}");
        let mut ways = Vec::new();
        mappings(&section, &[], &mut ways);
        for way in ways {
            let mut asked = section.clone();
            let mapping = way.iter().fold(&mut asked, |value, step| {
                let inner = match step.as_u64() {
                    Some(at) => value.get_mut(usize::try_from(at).unwrap()),
                    None => value.get_mut(step),
                };
                inner.unwrap()
            });
            let mapping = mapping.as_mapping_mut().unwrap();
            let shown = mapping.clone();
            mapping.insert("nonsense".into(), 1.into());
            let error = serde_yaml_ng::from_value::<T>(asked)
                .unwrap_err()
                .to_string();
            let known = error.split("expected").nth(1).unwrap();
            for field in known.split('`').skip(1).step_by(2) {
                assert!(
                    shown.contains_key(field),
                    "{name} {way:?}: {field} is not in the file"
                );
            }
        }
    }

    #[test]
    fn the_file_shows_every_section_of_every_plugin() {
        use crate::plugins::{authorize, context, headers, idempotency, jwt, rate_limit};
        is_shown_whole::<headers::HeadersSettings>("headers", "{}");
        is_shown_whole::<authorize::AuthorizeSettings>("authorize", "{}");
        is_shown_whole::<rate_limit::RateLimitSettings>(
            "rate-limit",
            "redis: {urlFile: /etc/postern/limits-url}",
        );
        is_shown_whole::<jwt::JwtSettings>(
            "jwt",
            "issuers: [{issuer: 'https://id.example.com/realms/{slug}', audiences: [postern-api], \
             introspection: {clientId: postern, clientSecretFile: /etc/postern/introspection-secret, \
             uri: 'https://id.example.com/realms/{slug}/protocol/openid-connect/token/introspect'}}]",
        );
        is_shown_whole::<idempotency::IdempotencySettings>(
            "idempotency",
            "{claims: {urlFile: /etc/postern/claims-url}, outcomeKeyFile: /etc/postern/outcome.keys}",
        );
        is_shown_whole::<context::ContextSettings>("context", "keyFile: /etc/postern/master.keys");
        // As it stands, without the examples, it is one that can be served.
        let registry = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let config = RunnerConfig::parse(FILE).unwrap();
            crate::plugins::house(&config).map(|_| config.plugins.unread())
        });
        registry.unwrap().unwrap();
        assert_eq!(
            shown().as_mapping().unwrap().len(),
            6,
            "a section for each plugin"
        );
    }

    #[test]
    fn a_wrong_value_is_one_line_that_names_the_field() {
        for (text, expected) in [
            (
                "socket: {mode: \"9\"}",
                "socket.mode: \"9\" is no octal mode",
            ),
            (
                "worker: {threads: many}",
                "worker.threads: invalid type: string \"many\"",
            ),
            ("worker: {threads: 0}", "worker.threads: must be 1 to 64"),
            (
                "limits: {chainMs: 60000}",
                "limits.chainMs: must be 1 to 59999",
            ),
            ("sokket: {}", "unknown field `sokket`"),
            ("socket: {modus: 1}", "unknown field `modus`"),
            (
                "admin: {listen: \"0.0.0.0:1\"}",
                "is not of this machine alone",
            ),
            ("- 1", "invalid type: sequence"),
        ] {
            let error = format!("{:#}", RunnerConfig::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_plugins_section_is_read_by_name_and_none_is_left_over() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            size: u8,
        }
        let config = RunnerConfig::parse("plugins: {mine: {size: 7}, other: {}}").unwrap();
        let settings: Settings = config.plugins.get("mine").unwrap().unwrap();
        assert_eq!(settings.size, 7);
        assert!(config.plugins.get::<Settings>("absent").unwrap().is_none());
        let error = config.plugins.unread().unwrap_err().to_string();
        assert!(error.starts_with("plugins.other: no plugin"), "{error}");
        let config = RunnerConfig::parse("plugins: {mine: {size: 700}}").unwrap();
        let error = config
            .plugins
            .get::<Settings>("mine")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("plugins.mine.size: invalid value"),
            "{error}"
        );
    }
}
