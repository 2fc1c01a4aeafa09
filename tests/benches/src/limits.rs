//! What a limit costs a call: decided in the process, by a script in Redis for each call,
//! and from shares taken ahead, beside the same chain without `rate-limit`.
//!
//! Redis stands on the runner's core: the generator never sleeps, and would keep it from
//! its own. So calls a second are those of runner and Redis together on one core; CPU a
//! call is the runner's alone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use postern_harness::redis::Redis;
use serde_json::{Value, json};

use crate::proc;
use crate::report::Measurement;
use crate::rpc::process::{GENERATOR_CORE, SUBJECT_CORE, Subject};
use crate::rpc::world::{self, World};
use crate::rpc::{Expect, Options, Runner, measure, program};

/// So much may pass that nothing is refused, and a share of it is used up in milliseconds.
const LIMIT: &str = r#"{"rate": 4000000000, "burst": 60000}"#;

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for sockets and logs")?;
    proc::pin(GENERATOR_CORE)?;
    let world = World::start(folder.path())?;
    proc::pin(SUBJECT_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let redis = runtime.block_on(Redis::start())?;
    proc::pin(GENERATOR_CORE)?;

    let without: Vec<_> = world::chain()
        .into_iter()
        .filter(|(name, _)| name != "rate-limit")
        .collect();
    let with: Vec<_> = world::chain()
        .into_iter()
        .map(|(name, conf)| match name.as_str() {
            "rate-limit" => (name, LIMIT.to_owned()),
            _ => (name, conf),
        })
        .collect();
    let tokens = std::slice::from_ref(&world.token);
    let runner = |name: &'static str, conf: &[(String, String)], redis: Value| {
        let config = config(&world, folder.path(), name, redis)?;
        let args = [OsStr::new("--config"), config.as_os_str()];
        let subject = Subject::start(&program("postern-runner")?, &args, folder.path(), name)?;
        Runner::new(name, subject, conf, tokens, Expect::Rewrite)
    };
    let store = |mode: &str| json!({"url": redis.url(), "mode": mode, "timeoutMs": 1000});
    let null = Subject::start(&program("null-runner")?, &[], folder.path(), "null")?;
    let runners = [
        Runner::new("null", null, &[], tokens, Expect::NoAction)?,
        runner("plain", &without, Value::Null)?,
        runner("local", &with, Value::Null)?,
        runner("leased", &with, store("leased"))?,
        runner("exact", &with, store("exact"))?,
    ];
    eprintln!("{}", Measurement::HEAD);
    for &conns in &options.conns {
        measure(&runners, usize::from(conns), options)?;
    }
    Ok(())
}

/// The world's configuration with this store of limits.
fn config(world: &World, folder: &Path, name: &str, redis: Value) -> Result<PathBuf> {
    let mut config: Value = serde_json::from_slice(&std::fs::read(&world.config)?)?;
    let plugins = config.pointer_mut("/plugins");
    let plugins = plugins
        .and_then(Value::as_object_mut)
        .context("no plugins")?;
    plugins.insert("rate-limit".to_owned(), json!({"redis": redis}));
    let path = folder.join(format!("{name}.yaml"));
    std::fs::write(&path, config.to_string())?;
    Ok(path)
}
