//! Waits, scaled: what takes APISIX a minute takes a test a second.

use std::time::Duration;

/// How long the gateway's waits are, compared with APISIX's.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    scale: f64,
}

impl Times {
    /// 1.0 is APISIX's own time; the command line takes 0.001 to 100.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale }
    }

    /// So many of APISIX's seconds.
    #[must_use]
    pub fn scaled(self, seconds: f64) -> Duration {
        Duration::try_from_secs_f64(seconds * self.scale).unwrap_or(Duration::MAX)
    }
}
