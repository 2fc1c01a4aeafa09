//! The section `rate-limit` of the runner's configuration, and what a route says of the
//! store.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::keys::Naming;
use super::leases::Leases;
use super::limiter::Limiter;
use super::redis::Shared;
use super::redis::link::Link;
use super::store::Buckets;
use crate::store_url::{authority, secret_url};

/// Beyond it a decision would not come within 10 ms when the store stops answering.
const MOST_PATIENCE: u64 = 1_000;

/// The section `rate-limit` of the runner's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RateLimitSettings {
    /// Buckets that are kept in this process, of callers and addresses, 24 bytes each.
    /// Beyond it the bucket nearest to full makes room, and its owner starts from full again.
    pub buckets: usize,
    /// The store that all runners share; without it each runner has buckets of its own.
    pub redis: Option<RedisSettings>,
}

/// A Redis, a Valkey, or a cluster of either.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RedisSettings {
    /// `redis://[USER:PASSWORD@]HOST:PORT[/DB]`; some nodes of a cluster:
    /// `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT`; over TLS `rediss…`.
    pub url: Option<SecretString>,
    /// A file that holds the URL instead.
    pub url_file: Option<PathBuf>,
    /// PEM file of who vouches for its certificate (default: whom the system trusts).
    pub authority: Option<PathBuf>,
    /// `exact`: each decision is one script. `leased`: shares are taken ahead.
    #[serde(default)]
    pub mode: Mode,
    /// Percent of a limit's burst that a runner may take ahead, at least one request.
    #[serde(default = "default_share")]
    pub share_percent: u32,
    /// How long a decision may wait for the store, in ms; then, and until the store
    /// answers again, `onStoreDown` of the route decides.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
}

/// How the shared store is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each decision is one script.
    #[default]
    Exact,
    /// Shares are taken ahead.
    Leased,
}

/// Who decides when the shared store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnStoreDown {
    /// This process, from what it saw last: each runner then lets the whole limit pass.
    #[default]
    Local,
    /// Nobody: every request passes.
    Open,
    /// Nobody: every request gets 503 `BACKEND_UNAVAILABLE`.
    Closed,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self {
            buckets: 65_536,
            redis: None,
        }
    }
}

fn default_share() -> u32 {
    5
}

fn default_timeout() -> u64 {
    5
}

impl RateLimitSettings {
    /// The buckets of this process, and whoever decides with them and the shared store.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub(crate) fn limiter(&self) -> anyhow::Result<Limiter> {
        const SECTION: &str = "plugins.rate-limit";
        ensure!(self.buckets > 0, "{SECTION}.buckets: must be above 0");
        let buckets = Buckets::new(self.buckets);
        let Some(redis) = &self.redis else {
            return Ok(Limiter::local(buckets));
        };
        let section = || format!("{SECTION}.redis");
        let link = Arc::new(redis.link().with_context(section)?);
        ensure!(
            (1..=100).contains(&redis.share_percent),
            "{SECTION}.redis.sharePercent: must be 1 to 100"
        );
        let leases =
            (redis.mode == Mode::Leased).then(|| Leases::new(redis.share_percent, self.buckets));
        Ok(Limiter::shared(buckets, Shared::new(link), leases))
    }
}

impl RedisSettings {
    fn link(&self) -> anyhow::Result<Link> {
        let url = secret_url(self.url.as_ref(), self.url_file.as_deref())?;
        let authority = authority(self.authority.as_deref())?;
        ensure!(
            (1..=MOST_PATIENCE).contains(&self.timeout_ms),
            "timeoutMs: must be 1 to {MOST_PATIENCE}"
        );
        let patience = Duration::from_millis(self.timeout_ms);
        Link::new(&url, authority.as_ref(), patience).context("url")
    }
}

pub(super) fn own() -> Naming {
    Naming::Own(OnceLock::new())
}
