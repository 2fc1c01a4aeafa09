//! `explain`: one request through one chain, each plugin's verdict in words.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::testkit::{Simulated, Step};

/// An entry of a route's `conf`. `value` may be written as JSON text, as APISIX
/// wants it, or as the object itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    value: serde_json::Value,
}

/// Prints what each plugin said, what goes on or back, and why.
pub(super) async fn run(
    registry: Registry,
    conf: &Path,
    request: &Path,
    wait_ms: u64,
) -> anyhow::Result<ExitCode> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    // JSON is YAML.
    let conf_text = read(conf)?;
    let yaml = serde_yaml_ng::Deserializer::from_str(&conf_text);
    let entries: Vec<Entry> = serde_path_to_error::deserialize(yaml)
        .with_context(|| format!("{}: a list of {{name, value}} is due", conf.display()))?;
    let request_text = read(request)?;
    let mut json = serde_json::Deserializer::from_str(&request_text);
    let simulated: Simulated = serde_path_to_error::deserialize(&mut json)
        .with_context(|| request.display().to_string())?;
    let entries: Vec<(String, String)> = entries
        .into_iter()
        .map(|Entry { name, value }| match value {
            serde_json::Value::String(text) => (name, text),
            value => (name, value.to_string()),
        })
        .collect();
    let chain = registry.chain(
        entries
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let chain = match chain {
        Ok(chain) => chain,
        Err(errors) => {
            for error in errors {
                println!("{}: {error}", conf.display());
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let stop = CancellationToken::new();
    registry.start_tasks(&stop);
    wait(&registry, Duration::from_millis(wait_ms)).await;
    let (steps, verdict) = simulated.explain(&chain).await?;
    stop.cancel();
    for Step { plugin, verdict } in steps {
        println!("{plugin:<16} {verdict}");
    }
    println!("\n{verdict}");
    Ok(ExitCode::SUCCESS)
}

/// Gives keys and caches a chance to come; says which did not.
async fn wait(registry: &Registry, patience: Duration) {
    let deadline = Instant::now() + patience;
    while !registry.unready().is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (name, reason) in registry.unready() {
        println!("note: {name} is not ready: {reason}");
    }
}
