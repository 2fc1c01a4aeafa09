//! A PostgreSQL database: where it is and how it is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use postern_postgres_url::options;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// A PostgreSQL database and how it is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://…`; else the file, else the variable DATABASE_URL.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// Connections at most.
    pub max_connections: u32,
    /// How long a request waits for a connection.
    pub acquire_ms: u64,
    /// The longest statement.
    pub statement_ms: u64,
    /// Whether a pooler in transaction mode stands between.
    pub pooler: bool,
    /// Whether to bring the schema up to date at the start.
    pub migrate: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            max_connections: 20,
            acquire_ms: 2_000,
            statement_ms: 5_000,
            pooler: false,
            migrate: true,
        }
    }
}

impl Database {
    /// How to connect to this database, or to another one in the same way.
    pub(crate) fn connect(
        &self,
        other: Option<SecretString>,
    ) -> Result<(PgPoolOptions, PgConnectOptions)> {
        let url = match other {
            Some(url) => url,
            None => self.url()?,
        };
        let statement = format!("{}ms", self.statement_ms);
        let options = options(url.expose_secret())?.application_name("postern-handlers");
        // Poolers refuse start-up options. Transactions set their own bounds anyway,
        // and reads have the request's.
        let options = if self.pooler {
            options
        } else {
            options.options([("statement_timeout", statement.as_str())])
        };
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(Duration::from_millis(self.acquire_ms));
        Ok((pool, options))
    }

    pub(crate) fn url(&self) -> Result<SecretString> {
        if let Some(url) = secret(self.url.as_ref(), self.url_file.as_deref())? {
            return Ok(url);
        }
        let url = std::env::var("DATABASE_URL").map(SecretString::from);
        url.context("there is no url, no urlFile, and no DATABASE_URL in the environment")
    }
}

/// A secret given in the file or beside it.
pub(crate) fn secret(
    inline: Option<&SecretString>,
    file: Option<&Path>,
) -> Result<Option<SecretString>> {
    match (inline, file) {
        (Some(_), Some(_)) => bail!("url and urlFile exclude each other"),
        (Some(url), None) => Ok(Some(url.clone())),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Some(text.trim().to_owned().into()))
        }
        (None, None) => Ok(None),
    }
}
