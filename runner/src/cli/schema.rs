//! `schema`: what plugins can be told.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::registry::Registry;

/// Prints one plugin's JSON Schema, or an object of all by name.
pub(super) fn run(registry: &Registry, plugin: Option<&str>) -> anyhow::Result<ExitCode> {
    let schema = match plugin {
        Some(name) => serde_json::to_value(registry.schema(name).with_context(|| {
            let known = registry.names().collect::<Vec<_>>().join(", ");
            format!("no plugin is called {name:?}; there are: {known}")
        })?)?,
        None => {
            let schemas = registry
                .names()
                .filter_map(|name| Some((name, registry.schema(name)?)));
            serde_json::to_value(schemas.collect::<std::collections::BTreeMap<_, _>>())?
        }
    };
    // Whoever reads it may have seen enough: `schema | head`.
    let _ = writeln!(
        std::io::stdout(),
        "{}",
        serde_json::to_string_pretty(&schema)?
    );
    Ok(ExitCode::SUCCESS)
}
