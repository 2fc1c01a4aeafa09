//! `config.yaml`: the part of APISIX's own configuration that the stand-in looks
//! at. The rest of the file is APISIX's business and passed over.

pub mod routes;
pub mod snippet;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use snippet::Pages;

/// What `config.yaml` says.
#[derive(Debug)]
pub struct Config {
    /// `apisix.node_listen`, as addresses to bind.
    pub listen: Vec<String>,
    /// `ext-plugin.cmd`: how the runner is started.
    pub runner: Option<Vec<String>>,
    /// The socket the runner listens on.
    pub socket: PathBuf,
    /// APISIX's home: the runner's working folder.
    pub home: PathBuf,
    /// `nginx_config.envs`: variables the runner gets besides its two.
    pub envs: Vec<String>,
    /// `nginx_config.http.real_ip_header`.
    pub real_ip_header: String,
    /// `nginx_config.http.real_ip_from`: whose word on the client's address counts.
    pub real_ip_from: Vec<IpAddr>,
    /// What `Server` says: without `apisix.enable_server_tokens` no version.
    pub server: &'static [u8],
    /// `nginx_config.http.underscores_in_headers`.
    pub underscores: bool,
    /// `nginx_config.http.client_max_body_size`, 0 for none.
    pub max_body: u64,
    /// How long clients may take.
    pub patience: Patience,
    /// Error pages out of the configuration snippets.
    pub pages: Pages,
}

/// nginx's time-outs towards clients, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between two requests.
    pub keep_alive: f64,
    /// For a whole head.
    pub header: f64,
    /// Between two pieces of a body.
    pub body: f64,
    /// Between two pieces of an answer.
    pub send: f64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    apisix: Apisix,
    #[serde(rename = "ext-plugin")]
    ext_plugin: ExtPlugin,
    nginx_config: Nginx,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Apisix {
    node_listen: Option<Listen>,
    enable_server_tokens: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Listen {
    Port(u16),
    Ports(Vec<u16>),
    Addresses(Vec<Address>),
}

#[derive(Deserialize)]
struct Address {
    ip: Option<String>,
    port: u16,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ExtPlugin {
    cmd: Option<Vec<String>>,
    path_for_test: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Nginx {
    envs: Vec<String>,
    http: Http,
    http_configuration_snippet: String,
    http_server_configuration_snippet: String,
}

#[derive(Deserialize)]
#[serde(default)]
struct Http {
    real_ip_header: String,
    real_ip_from: Vec<String>,
    underscores_in_headers: String,
    client_max_body_size: Size,
    keepalive_timeout: String,
    client_header_timeout: String,
    client_body_timeout: String,
    send_timeout: String,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            real_ip_header: "X-Real-IP".into(),
            real_ip_from: vec!["127.0.0.1".into(), "unix:".into()],
            underscores_in_headers: "on".into(),
            client_max_body_size: Size::Bytes(0),
            keepalive_timeout: "60s".into(),
            client_header_timeout: "60s".into(),
            client_body_timeout: "60s".into(),
            send_timeout: "10s".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    /// nginx's sizes: `512`, `256k`, `1m`, `5g`.
    fn bytes(&self) -> Result<u64> {
        let text = match self {
            Self::Bytes(bytes) => return Ok(*bytes),
            Self::Text(text) => text.trim().to_ascii_lowercase(),
        };
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'k') => (text.trim_end_matches('k'), 10),
            Some(b'm') => (text.trim_end_matches('m'), 20),
            Some(b'g') => (text.trim_end_matches('g'), 30),
            _ => (text.as_str(), 0),
        };
        let number: u64 = digits
            .parse()
            .with_context(|| format!("not a size: {text}"))?;
        number
            .checked_mul(1 << shift)
            .with_context(|| format!("too large: {text}"))
    }
}

impl Config {
    /// Reads the file; `${{NAME}}` in it is replaced as APISIX replaces it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::parse(&text, path).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let file: Option<File> = serde_yaml_ng::from_str(text)?;
        let File {
            apisix,
            ext_plugin,
            nginx_config: nginx,
        } = file.unwrap_or_default();
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::path::absolute(folder.unwrap_or(Path::new(".")))?;
        let home = match folder.file_name() {
            Some(name) if name == "conf" => folder.parent().unwrap_or(&folder).to_path_buf(),
            _ => folder.clone(),
        };
        let master = std::process::id();
        let socket = folder.join(format!("apisix-{master}.sock"));
        // With `path_for_test` the runner is somebody else's to start.
        let (socket, runner) = match ext_plugin.path_for_test {
            Some(path) => (path, None),
            None => (socket, ext_plugin.cmd),
        };
        ensure!(
            socket.as_os_str().len() < 108,
            "the runner's socket path is longer than a Unix socket's may be: {}",
            socket.display()
        );
        ensure!(
            runner.as_ref().is_none_or(|cmd| !cmd.is_empty()),
            "ext-plugin.cmd is empty"
        );
        let underscores = match nginx.http.underscores_in_headers.as_str() {
            "on" => true,
            "off" => false,
            other => bail!("nginx_config.http.underscores_in_headers: {other} is not on or off"),
        };
        let trusted = nginx
            .http
            .real_ip_from
            .iter()
            .filter(|from| *from != "unix:");
        let address = |from: &String| {
            let parsed = from.parse::<IpAddr>();
            parsed.with_context(|| format!("nginx_config.http.real_ip_from: {from} is no address"))
        };
        let pages = Pages::parse(
            &nginx.http_configuration_snippet,
            &nginx.http_server_configuration_snippet,
        );
        Ok(Self {
            listen: listen(apisix.node_listen),
            server: match apisix.enable_server_tokens {
                Some(false) => b"APISIX",
                Some(true) | None => b"APISIX/3.18.0-standin",
            },
            runner,
            socket,
            home,
            envs: nginx.envs,
            real_ip_header: nginx.http.real_ip_header.to_ascii_lowercase(),
            real_ip_from: trusted.map(address).collect::<Result<_>>()?,
            underscores,
            max_body: nginx.http.client_max_body_size.bytes()?,
            patience: Patience {
                keep_alive: seconds(&nginx.http.keepalive_timeout)?,
                header: seconds(&nginx.http.client_header_timeout)?,
                body: seconds(&nginx.http.client_body_timeout)?,
                send: seconds(&nginx.http.send_timeout)?,
            },
            pages: pages?,
        })
    }
}

/// nginx's times: `60`, `60s`, `5m`, `500ms`.
fn seconds(text: &str) -> Result<f64> {
    let (digits, unit) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 0.001)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60.0)
    } else {
        (text.strip_suffix('s').unwrap_or(text), 1.0)
    };
    let number: u32 = digits
        .parse()
        .with_context(|| format!("not a time: {text}"))?;
    Ok(f64::from(number) * unit)
}

fn listen(listen: Option<Listen>) -> Vec<String> {
    let any = |port: u16| format!("0.0.0.0:{port}");
    match listen {
        None => vec![any(9080)],
        Some(Listen::Port(port)) => vec![any(port)],
        Some(Listen::Ports(ports)) => ports.into_iter().map(any).collect(),
        Some(Listen::Addresses(addresses)) => {
            let address = |Address { ip, port }| match ip {
                Some(ip) => format!("{ip}:{port}"),
                None => any(port),
            };
            addresses.into_iter().map(address).collect()
        }
    }
}

/// A configuration file's text, with `${{NAME}}` and `${{NAME:=default}}`
/// replaced by the environment, as `apisix/cli/file.lua` does.
pub fn read_text(path: &Path) -> Result<String> {
    let raw = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut out = String::new();
    let mut rest = raw.as_str();
    while let Some((before, after)) = rest.split_once("${{") {
        let (inside, tail) = after
            .split_once("}}")
            .with_context(|| format!("{}: a ${{{{ is not closed", path.display()))?;
        let (name, default) = match inside.split_once(":=") {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (inside.trim(), None),
        };
        let value = std::env::var(name).ok();
        let value = value.as_deref().or(default);
        let path = path.display();
        let value = value.with_context(|| format!("{path}: {name} is not in the environment"))?;
        out.push_str(before);
        out.push_str(value);
        rest = tail;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test may panic"
    )]
    use super::*;

    #[test]
    fn a_config_is_read() {
        let text = "
apisix: {node_listen: [{ip: 127.0.0.1, port: 9081}], enable_admin: false}
deployment: {role: data_plane, role_data_plane: {config_provider: yaml}}
ext-plugin: {cmd: [runner, --config, r.yaml]}
nginx_config: {http: {client_max_body_size: 5g, real_ip_from: ['10.0.0.1', 'unix:']}}
";
        let config = Config::parse(text, Path::new("/opt/apisix/conf/config.yaml")).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:9081"]);
        assert_eq!(config.home, Path::new("/opt/apisix"));
        assert!(config.socket.starts_with("/opt/apisix/conf"));
        assert_eq!(config.max_body, 5 << 30);
        assert_eq!(config.real_ip_from.len(), 1);
        let empty = Config::parse("", Path::new("config.yaml")).unwrap();
        assert_eq!(empty.listen, ["0.0.0.0:9080"]);
        let http = "nginx_config: {http: {send_timeout: 500ms, keepalive_timeout: 2m}}";
        let timed = Config::parse(http, Path::new("config.yaml")).unwrap();
        assert_eq!(
            (timed.patience.send, timed.patience.keep_alive),
            (0.5, 120.0)
        );
        assert!(empty.runner.is_none());
    }

    /// The pages of the configuration we ship: each status that nginx answers
    /// itself gets the envelope.
    #[test]
    fn the_shipped_error_pages_are_envelopes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../apisix-conf/config.yaml");
        let config = Config::read(Path::new(path)).unwrap();
        let value = |name: &str| Some(format!("{name}-value"));
        for (status, sent) in [
            (400, 400),
            (405, 405),
            (413, 413),
            (414, 414),
            (494, 431),
            (500, 500),
            (502, 502),
            (503, 503),
            (504, 504),
        ] {
            let page = config.pages.page(status, &value).unwrap();
            assert_eq!(page.status, sent);
            assert_eq!(page.content_type.as_deref(), Some("application/json"));
            let body: serde_json::Value = serde_json::from_str(&page.body).unwrap();
            let error = &body["error"];
            assert!(
                error["code"].is_string() && error["message"].is_string(),
                "{body}"
            );
            assert_eq!(error["timestamp"], "time_iso8601-value");
        }
    }
}
