//! Where rows are, and their bounds: the postgres family.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_postgres::{Address, Bounds};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::database::secret;

/// The postgres family.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Postgres {
    /// The cluster, as the data login.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// Whether a pooler in transaction mode stands in `url`.
    pub pooler: bool,
    /// The cluster past the pooler, to be told of changes of schemas.
    pub direct_url: Option<SecretString>,
    /// A file that holds that URL.
    pub direct_url_file: Option<PathBuf>,
    /// Connections at most.
    pub max_connections: usize,
    /// Connections that one tenant has at once at most.
    pub tenant_connections: usize,
    /// Requests of one tenant that wait for one at most.
    pub tenant_waiting: usize,
    /// How long a request waits for one.
    pub acquire_ms: u64,
    /// The longest statement.
    pub statement_ms: u64,
    /// Rows of a page without a limit.
    pub default_rows: u64,
    /// Rows of a page at most, and of an embedded list.
    pub max_rows: u64,
    /// Bytes of an answer at most.
    pub max_answer_bytes: usize,
    /// How often schemas are looked at where nobody tells of changes.
    pub look_ms: u64,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            pooler: false,
            direct_url: None,
            direct_url_file: None,
            max_connections: 16,
            tenant_connections: 8,
            tenant_waiting: 128,
            acquire_ms: 2_000,
            statement_ms: 5_000,
            default_rows: 20,
            max_rows: 1_000,
            max_answer_bytes: 8 << 20,
            look_ms: 500,
        }
    }
}

impl Postgres {
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("acquireMs", self.acquire_ms),
            ("statementMs", self.statement_ms),
            ("lookMs", self.look_ms),
        ] {
            ensure!(
                (1..=3_600_000).contains(&value),
                "postgres.{name}: from 1 to 3600000"
            );
        }
        ensure!(
            (2..=1_000).contains(&self.max_connections),
            "postgres.maxConnections: from 2 to 1000"
        );
        ensure!(
            (1..self.max_connections).contains(&self.tenant_connections),
            "postgres.tenantConnections: from 1 to below maxConnections, so that one tenant never has all"
        );
        ensure!(
            (1..=100_000).contains(&self.tenant_waiting),
            "postgres.tenantWaiting: from 1 to 100000"
        );
        ensure!(
            (1..=100_000).contains(&self.max_rows)
                && (1..=self.max_rows).contains(&self.default_rows),
            "postgres.maxRows: from 1 to 100000, and not below defaultRows"
        );
        ensure!(
            (64 << 10..=1 << 30).contains(&self.max_answer_bytes),
            "postgres.maxAnswerBytes: from 65536 to 1073741824"
        );
        Ok(())
    }

    /// How to connect as the data login.
    pub(crate) fn cluster(&self) -> Result<Address> {
        let url = secret(self.url.as_ref(), self.url_file.as_deref())?;
        let address = parse(&url.context("url or urlFile is missing")?)?;
        ensure!(address.user().is_some(), "url has to name the data login");
        Ok(address)
    }

    /// How to connect past a pooler; none: changes of schemas are looked for.
    pub(crate) fn direct(&self) -> Result<Option<Address>> {
        let url = secret(self.direct_url.as_ref(), self.direct_url_file.as_deref())?;
        match url {
            Some(url) => parse(&url).map(Some),
            None if self.pooler => Ok(None),
            None => self.cluster().map(Some),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.max_connections,
            tenant_connections: self.tenant_connections,
            tenant_waiting: self.tenant_waiting,
            acquire: Duration::from_millis(self.acquire_ms),
            statement: Duration::from_millis(self.statement_ms),
            default_rows: self.default_rows,
            max_rows: self.max_rows,
            max_answer: self.max_answer_bytes,
        }
    }

    pub(crate) fn look(&self) -> Duration {
        Duration::from_millis(self.look_ms)
    }
}

/// A URL, whose text no message repeats.
pub(crate) fn parse(url: &SecretString) -> Result<Address> {
    Ok(Address::parse(url.expose_secret())?)
}
