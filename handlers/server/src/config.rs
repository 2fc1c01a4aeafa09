//! The configuration file: a small struct a part, unknown fields refused, checked
//! before any socket is bound. `postern-handlers.yaml` shows every field with its default.

mod auth;
mod database;
mod mongo;
mod postgres;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use postern_common::Times;
use postern_common::idempotency::Bounds;
use postern_common::serve::{Address, Limits};
use postern_contract::Family;
use postern_platform::{About, FAMILIES};
use secrecy::SecretString;
use serde::Deserialize;

use auth::Auth;
use database::Database;
pub(crate) use database::secret;
use mongo::Mongo;
use postgres::Postgres;
pub(crate) use postgres::parse as postgres_url;

use crate::schemas;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Families to serve in this process; none: all whose backend is set up here.
    pub families: Option<Vec<Family>>,
    /// Where the gateway reaches the families.
    pub listen: Address,
    /// Where the operator reaches `/healthz`, `/readyz`, `/metrics`; none: nowhere.
    pub admin: Option<Address>,
    /// Where runners reach the directory; none: nowhere.
    pub directory: Option<Address>,
    /// Needed where the directory listens on TCP.
    pub directory_tls: Option<Tls>,
    /// Permissions of Unix sockets, octal; none: what the umask leaves.
    pub socket_mode: Option<String>,
    /// The control-plane database.
    #[serde(default)]
    pub database: Database,
    /// The claim store.
    #[serde(default)]
    pub claims: Claims,
    /// Keys that open the runners' contexts, `<kid> <family> <base64>` a line.
    pub context_keys: PathBuf,
    /// Keys that seal kept outcomes, `<kid> <base64>` a line; the runners' too.
    pub outcome_keys: PathBuf,
    /// Kept outcomes.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// How long events of the audit trail are kept.
    #[serde(default = "audit_days")]
    pub audit_days: u16,
    /// Backends of workspaces.
    #[serde(default)]
    pub provisioning: Provisioning,
    /// Keycloak, for the auth and iam families.
    pub auth: Option<Auth>,
    /// Where rows are, for the postgres family.
    pub postgres: Option<Postgres>,
    /// Where documents are, for the mongo family.
    pub mongo: Option<Mongo>,
    /// What the deployment tells of itself.
    #[serde(default)]
    pub api: Api,
    /// Bounds of connections and requests.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Logs.
    #[serde(default)]
    pub log: Log,
    /// Traces.
    #[serde(default)]
    pub otlp: Otlp,
    /// A folder in which tests arm fault points.
    #[cfg(debug_assertions)]
    pub faults: Option<PathBuf>,
}

/// Thirteen months: a whole year can be looked at when it is over.
fn audit_days() -> u16 {
    400
}

/// Certificates of the directory, PEM files; clients need one of the authority.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The server's chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of the runners' certificates.
    pub client_ca: PathBuf,
}

/// Where claims are.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Claims {
    /// Whether there is a claim store; without one only records guard.
    pub enabled: bool,
    /// `postgres://…`, `redis://…` or `redis-cluster://…`, over TLS `rediss…`, the runners'
    /// own; none: the control-plane database.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// PEM file of who vouches for the certificate of `rediss…`; none: whom the system trusts.
    pub authority: Option<PathBuf>,
    /// Connections at most, where the URL is PostgreSQL's.
    pub connections: u32,
    /// How long it may take to answer; later it counts as down.
    pub timeout_ms: u64,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            enabled: true,
            url: None,
            url_file: None,
            authority: None,
            connections: 8,
            timeout_ms: 1_000,
        }
    }
}

/// Bounds of what is kept for retries.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Idempotency {
    /// Bytes kept for one tenant; beyond it replays come without their body.
    pub quota_bytes: u32,
    /// How often what expired is removed.
    pub sweep_ms: u64,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self {
            quota_bytes: 256 << 20,
            sweep_ms: 30_000,
        }
    }
}

/// What workspaces are provisioned in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Provisioning {
    /// The cluster of the postgres capability.
    pub postgres: PostgresCluster,
    /// How long the data of a deactivated workspace is kept.
    pub purge_after_days: u16,
}

impl Default for Provisioning {
    fn default() -> Self {
        Self {
            postgres: PostgresCluster::default(),
            purge_after_days: 30,
        }
    }
}

/// A cluster that holds workspaces.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PostgresCluster {
    /// Whether the capability has a backend here.
    pub enabled: bool,
    /// As a role that may create roles and schemas; none: the control-plane database.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// The login role that the data handlers use; made when missing.
    pub data_login: Option<String>,
}

impl Default for PostgresCluster {
    fn default() -> Self {
        Self {
            enabled: true,
            url: None,
            url_file: None,
            data_login: None,
        }
    }
}

/// What the deployment tells of itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Api {
    /// Supported dates, newest last.
    pub versions: Vec<String>,
    /// Families that are on anywhere; none: those of this process.
    pub families: Option<Vec<Family>>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            versions: vec!["2024-01-01".into()],
            families: None,
        }
    }
}

/// Bounds of connections and requests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Connections at once.
    pub connections: usize,
    /// An idle connection, or an unfinished head; above the gateway's keepalive time.
    pub idle_ms: u64,
    /// A client that takes nothing of its answer.
    pub stall_ms: u64,
    /// From a body's first byte to its last.
    pub body_ms: u64,
    /// A whole request.
    pub request_ms: u64,
    /// Requests and mutations under way, once draining began.
    pub drain_ms: u64,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            idle_ms: 75_000,
            stall_ms: 15_000,
            body_ms: 15_000,
            request_ms: 30_000,
            drain_ms: 20_000,
        }
    }
}

/// Where events go.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter by module.
    pub level: String,
    /// None: standard error.
    pub file: Option<PathBuf>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            file: None,
        }
    }
}

/// Where traces go.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Otlp {
    /// Where a collector takes them, OTLP over HTTP; none: nowhere.
    pub endpoint: Option<String>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names the file and the field.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let config: Self =
            serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
        config.check().with_context(|| path.display().to_string())?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let (families, backed) = (self.families(), self.backed());
        ensure!(!families.is_empty(), "families: name one at least");
        for family in &families {
            ensure!(
                backed.contains(family),
                "families: {family} has no backend here, or is not served by this build"
            );
        }
        if let Some(postgres) = &self.postgres {
            postgres.check()?;
        }
        if let Some(mongo) = &self.mongo {
            mongo.check()?;
        }
        if let Some(auth) = &self.auth {
            auth.check()?;
        }
        ensure!(
            !self.api.versions.is_empty(),
            "api.versions: name one at least"
        );
        for version in &self.api.versions {
            let date =
                version.len() == 10 && version.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            ensure!(
                date,
                "api.versions: {version:?} is not a date such as 2024-01-01"
            );
        }
        if let (Some(Address::Tcp(_)), None) = (&self.directory, &self.directory_tls) {
            bail!("directory: on TCP it needs directoryTls; use unix:PATH on one machine");
        }
        ensure!(
            self.database.max_connections >= 4,
            "database.maxConnections: 4 at least"
        );
        ensure!(
            self.claims.connections >= 1,
            "claims.connections: 1 at least"
        );
        for (name, value) in [
            ("database.acquireMs", self.database.acquire_ms),
            ("database.statementMs", self.database.statement_ms),
            ("claims.timeoutMs", self.claims.timeout_ms),
            ("idempotency.sweepMs", self.idempotency.sweep_ms),
            ("limits.idleMs", self.limits.idle_ms),
            ("limits.stallMs", self.limits.stall_ms),
            ("limits.bodyMs", self.limits.body_ms),
            ("limits.requestMs", self.limits.request_ms),
        ] {
            ensure!(
                (1..=3_600_000).contains(&value),
                "{name}: from 1 to 3600000"
            );
        }
        ensure!(
            self.limits.connections >= 1,
            "limits.connections: 1 at least"
        );
        ensure!(self.audit_days >= 1, "auditDays: 1 at least");
        if let Some(endpoint) = &self.otlp.endpoint {
            let uri = endpoint.parse::<http::Uri>().ok();
            let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
            ensure!(
                matches!(scheme, Some("http" | "https")),
                "otlp.endpoint: {endpoint:?} is no address such as http://127.0.0.1:4318/v1/traces"
            );
        }
        self.mode()?;
        Ok(())
    }

    /// Permissions of Unix sockets.
    pub(crate) fn mode(&self) -> Result<Option<u32>> {
        let Some(text) = &self.socket_mode else {
            return Ok(None);
        };
        let mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o777);
        mode.map(Some)
            .with_context(|| format!("socketMode: {text:?} is not octal such as 0660"))
    }

    /// The families that this process serves.
    pub(crate) fn families(&self) -> Vec<Family> {
        self.families.clone().unwrap_or_else(|| self.backed())
    }

    /// Those that need no backend, and those whose backend is set up.
    fn backed(&self) -> Vec<Family> {
        let auth = self.auth.as_ref().map(|_| postern_auth::FAMILIES);
        FAMILIES
            .into_iter()
            .chain(auth.into_iter().flatten())
            .chain(self.postgres.as_ref().map(|_| Family::Postgres))
            .chain(self.mongo.as_ref().map(|_| Family::Mongo))
            .collect()
    }

    pub(crate) fn about(&self) -> About {
        let families = self.api.families.clone().unwrap_or_else(|| self.families());
        About {
            api_versions: self.api.versions.clone(),
            families,
            schemas: schemas::ALL.to_vec(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            quota: i64::from(self.idempotency.quota_bytes),
            deadline: Duration::from_millis(self.limits.request_ms),
            statement: Duration::from_millis(self.database.statement_ms),
        }
    }

    pub(crate) fn times(&self) -> Times {
        Times {
            request: Duration::from_millis(self.limits.request_ms),
            body: Duration::from_millis(self.limits.body_ms),
        }
    }

    pub(crate) fn connection_limits(&self) -> Limits {
        Limits {
            connections: self.limits.connections,
            idle: Duration::from_millis(self.limits.idle_ms),
            stall: Duration::from_millis(self.limits.stall_ms),
            drain: Duration::from_millis(self.limits.drain_ms),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const MINIMAL: &str = "listen: 127.0.0.1:0\ncontextKeys: /k\noutcomeKeys: /o\n";

    fn read(text: &str) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::read(file.path())
    }

    /// The commented file says what the defaults are; here they are compared.
    #[test]
    fn the_shown_file_holds_the_defaults() {
        let shown: Config =
            serde_yaml_ng::from_str(include_str!("../postern-handlers.yaml")).unwrap();
        shown.check().unwrap();
        let plain = read(MINIMAL).unwrap();
        assert_eq!(format!("{:?}", shown.limits), format!("{:?}", plain.limits));
        assert_eq!(
            format!("{:?}", shown.provisioning),
            format!("{:?}", plain.provisioning)
        );
        assert_eq!(
            format!("{:?}", shown.idempotency),
            format!("{:?}", plain.idempotency)
        );
        assert_eq!(format!("{:?}", shown.log), format!("{:?}", plain.log));
        assert_eq!(format!("{:?}", shown.claims), format!("{:?}", plain.claims));
        assert_eq!(shown.families(), plain.families());
        assert_eq!(shown.audit_days, plain.audit_days);
        assert_eq!(shown.api.versions, plain.api.versions);
        let sizes = |d: &Database| {
            (
                d.max_connections,
                d.acquire_ms,
                d.statement_ms,
                d.pooler,
                d.migrate,
            )
        };
        assert_eq!(sizes(&shown.database), sizes(&plain.database));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, named) in [
            ("surprise: 1\n", "surprise"),
            ("families: [mongo]\n", "families: mongo"),
            ("families: []\n", "families"),
            ("families: [nothing]\n", "nothing"),
            ("admin: localhost\n", "localhost"),
            ("directory: 127.0.0.1:1\n", "directoryTls"),
            ("database: {maxConnections: 1}\n", "database.maxConnections"),
            ("limits: {requestMs: 0}\n", "limits.requestMs"),
            ("limits: {requestS: 1}\n", "requestS"),
            ("api: {versions: [now]}\n", "api.versions"),
            ("socketMode: rw\n", "socketMode"),
            ("auditDays: 0\n", "auditDays"),
            ("families: [iam]\n", "families: iam"),
            ("auth: {}\n", "keycloak"),
            (&auth("realms: {tenants: '{slug}'}"), "auth.realms.tenants"),
            (&auth("realms: {platform: master}"), "auth.realms.platform"),
            (&auth("attempts: {rate: 0}"), "auth.attempts.rate"),
            (&auth("paceMs: 0"), "auth.paceMs"),
            (&auth("signups: {mode: anybody}"), "anybody"),
            ("otlp: {endpoint: 'collector:4318'}\n", "otlp.endpoint"),
            ("families: [postgres]\n", "families: postgres"),
            ("postgres: {maxRows: 0}\n", "postgres.maxRows"),
            (
                "postgres: {tenantConnections: 16}\n",
                "postgres.tenantConnections",
            ),
            ("postgres: {statementMs: 0}\n", "postgres.statementMs"),
            ("mongo: {maxResults: 0}\n", "mongo.maxResults"),
            ("mongo: {operationMs: 0}\n", "mongo.operationMs"),
        ] {
            let error = format!("{:#}", read(&format!("{MINIMAL}{more}")).unwrap_err());
            assert!(error.contains(named), "{more}: {error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
        assert!(read("listen: 127.0.0.1:0\n").is_err());
        assert!(Config::read(Path::new("/nowhere")).is_err());
    }

    fn auth(more: &str) -> String {
        format!("auth:\n  keycloak: {{url: 'http://k', secretFile: /s}}\n  {more}\n")
    }

    /// A section that is commented out in the shown file.
    fn section(name: &str) -> String {
        include_str!("../postern-handlers.yaml")
            .lines()
            .skip_while(|line| *line != format!("# {name}:"))
            .take_while(|line| line.starts_with("# "))
            .filter_map(|line| Some(format!("{}\n", line.strip_prefix("# ")?)))
            .collect()
    }

    #[test]
    fn the_shown_mongo_section_holds_the_defaults() {
        let shown = read(&format!("{MINIMAL}{}", section("mongo"))).unwrap();
        assert!(shown.families().contains(&Family::Mongo));
        let mut shown = shown.mongo.unwrap();
        assert!(shown.url.take().is_some());
        assert_eq!(format!("{shown:?}"), format!("{:?}", Mongo::default()));
    }

    #[test]
    fn the_shown_postgres_section_holds_the_defaults() {
        let shown = read(&format!("{MINIMAL}{}", section("postgres"))).unwrap();
        assert!(shown.families().contains(&Family::Postgres));
        let mut shown = shown.postgres.unwrap();
        let cluster = shown.cluster().unwrap();
        assert_eq!(cluster.user(), Some("postern_data"));
        shown.url = None;
        assert_eq!(format!("{shown:?}"), format!("{:?}", Postgres::default()));
    }

    /// The shown section is commented out: nobody has a Keycloak by default.
    #[test]
    fn the_shown_auth_section_holds_the_defaults() {
        let shown = read(&format!("{MINIMAL}{}", section("auth"))).unwrap();
        assert!(shown.families().contains(&Family::Iam));
        let mut plain = read(&format!("{MINIMAL}{}", auth("")))
            .unwrap()
            .auth
            .unwrap();
        let shown = shown.auth.unwrap();
        plain.keycloak.url.clone_from(&shown.keycloak.url);
        plain
            .keycloak
            .secret_file
            .clone_from(&shown.keycloak.secret_file);
        assert_eq!(format!("{shown:?}"), format!("{plain:?}"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = read(&format!(
            "{MINIMAL}database: {{url: 'postgres://u:hunter2@h/d'}}\n"
        ))
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = read(&format!("{MINIMAL}database: {{url: 'hunter2'}}\n"))
            .unwrap()
            .database
            .connect(None);
        assert!(!format!("{:#}", error.err().unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_url_comes_from_one_place() {
        let both = read(&format!(
            "{MINIMAL}database: {{url: 'postgres://u@localhost/d', urlFile: /f}}\n"
        ))
        .unwrap();
        assert!(both.database.connect(None).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "postgres://u@localhost/d\n").unwrap();
        let config = read(&format!(
            "{MINIMAL}database: {{urlFile: '{}'}}\n",
            file.path().display()
        ))
        .unwrap();
        config.database.connect(None).unwrap();
    }
}
