//! `maintenance-window`: closes a route at announced times.
//!
//! A plugin of one's own, to copy from. [`MaintenanceWindow`] is the value that lives
//! in the process; [`MaintenanceConfig`] is what a route says:
//!
//! ```yaml
//! plugins:
//!   ext-plugin-pre-req:
//!     conf:
//!       - name: maintenance-window
//!         value: '{"from": 1767225600, "until": 1767232800, "let": ["GET"]}'
//! ```
//!
//! [`plugins`] is the composition root: the house's plugins and this one.

use std::time::{SystemTime, UNIX_EPOCH};

use postern_runner::{ConfigError, Flow, Plugin, Registry, Reply, Request, RunnerConfig};
use schemars::JsonSchema;
use serde::Deserialize;

/// Closes routes at announced times. What all routes share is the clock.
pub struct MaintenanceWindow {
    now: fn() -> u64,
}

impl MaintenanceWindow {
    /// By the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        })
    }

    /// By any clock, in seconds since 1970: a test brings its own.
    #[must_use]
    pub fn with_clock(now: fn() -> u64) -> Self {
        Self { now }
    }
}

impl Default for MaintenanceWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// What a route says of its maintenance.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceConfig {
    /// When it begins, in seconds since 1970.
    from: u64,
    /// When it ends, in seconds since 1970; not part of it any more.
    until: u64,
    /// Methods that are served all the same, in upper case.
    #[serde(default, rename = "let")]
    pass: Vec<String>,
}

impl Plugin for MaintenanceWindow {
    const NAME: &'static str = "maintenance-window";
    type Config = MaintenanceConfig;

    /// What the types cannot say. `postern-runner check` finds it before a deployment.
    fn check(&self, config: &Self::Config) -> Result<(), ConfigError> {
        if config.from < config.until {
            Ok(())
        } else {
            Err(ConfigError::new("until", "must be after `from`"))
        }
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        let now = (self.now)();
        if !(config.from..config.until).contains(&now) {
            return Flow::Next;
        }
        if config
            .pass
            .iter()
            .any(|method| method == request.method().as_str())
        {
            // The upstream may want to say so on its pages.
            request.set_header("X-Maintenance", "true");
            return Flow::Next;
        }
        let left = config.until - now;
        let body = format!("{{\"closedFor\":{left}}}");
        Flow::Stop(
            Reply::new(503)
                .with_header("Retry-After", left.to_string())
                .with_body("application/json", body),
        )
    }
}

/// The house's plugins and this one.
///
/// # Errors
/// As [`postern_runner::plugins::house`].
pub fn plugins(config: &RunnerConfig) -> anyhow::Result<Registry> {
    Ok(postern_runner::plugins::house(config)?.with(MaintenanceWindow::new()))
}
