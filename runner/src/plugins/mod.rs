//! Our own plugins, one module each.

use crate::{Registry, RunnerConfig};

/// Every plugin of this house with what it shares between routes.
///
/// # Errors
/// A section of the configuration that cannot be used.
pub fn house(config: &RunnerConfig) -> anyhow::Result<Registry> {
    let _ = config;
    Ok(Registry::new())
}
