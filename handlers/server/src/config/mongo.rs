//! Where documents are, and their bounds: the mongo family.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mongodb::Client;
use mongodb::options::ClientOptions;
use postern_mongo::Bounds;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::database::secret;

/// The mongo family.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Mongo {
    /// The replica set, as a user who may make databases, users and roles.
    pub url: Option<SecretString>,
    /// A file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// Connections at most.
    pub max_connections: u32,
    /// How long a request waits for a primary.
    pub select_ms: u64,
    /// The longest operation.
    pub operation_ms: u64,
    /// Documents of an aggregation's answer at most.
    pub max_results: u32,
    /// Bytes of an answer at most.
    pub max_answer_bytes: usize,
}

impl Default for Mongo {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            max_connections: 32,
            select_ms: 3_000,
            operation_ms: 5_000,
            max_results: 1_000,
            max_answer_bytes: 8 << 20,
        }
    }
}

impl Mongo {
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("selectMs", self.select_ms),
            ("operationMs", self.operation_ms),
        ] {
            ensure!(
                (1..=3_600_000).contains(&value),
                "mongo.{name}: from 1 to 3600000"
            );
        }
        ensure!(
            (1..=1_000).contains(&self.max_connections),
            "mongo.maxConnections: from 1 to 1000"
        );
        ensure!(
            (1..=100_000).contains(&self.max_results),
            "mongo.maxResults: from 1 to 100000"
        );
        ensure!(
            (64 << 10..=1 << 30).contains(&self.max_answer_bytes),
            "mongo.maxAnswerBytes: from 65536 to 1073741824"
        );
        Ok(())
    }

    /// A client. No connection is made yet.
    pub(crate) async fn client(&self) -> Result<Client> {
        let url = secret(self.url.as_ref(), self.url_file.as_deref())?;
        let url = url.context("url or urlFile is missing")?;
        let options = ClientOptions::parse(url.expose_secret()).await;
        // The driver's own message would repeat the URL.
        let mut options = options.map_err(|_| {
            anyhow::anyhow!("not of the form mongodb://USER:PASSWORD@HOST/?replicaSet=NAME")
        })?;
        options.app_name = Some("postern-handlers".to_owned());
        options.max_pool_size = Some(self.max_connections);
        options.server_selection_timeout = Some(Duration::from_millis(self.select_ms));
        options.connect_timeout = Some(Duration::from_millis(self.select_ms));
        // A server that said it shuts down is not asked before the next heartbeat; by the
        // driver's default that is up to 10 s, longer than a request asks again.
        options.heartbeat_freq.get_or_insert(Duration::from_secs(1));
        Client::with_options(options).context("not usable")
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            max_time: Duration::from_millis(self.operation_ms),
            max_results: self.max_results,
            max_bytes: self.max_answer_bytes,
        }
    }
}
