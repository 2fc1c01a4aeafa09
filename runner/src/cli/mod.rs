//! The command line: serve, or look before you serve.

mod check;
mod context_keys;
mod explain;
mod schema;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postern_contract::Family;

use crate::config::RunnerConfig;
use crate::registry::{Compose, Registry};

const ABOUT: &str = "\
Judges API requests for Apache APISIX, as its external-plugin runner.

APISIX starts it itself; in its config.yaml:

    ext-plugin:
      cmd: [postern-runner, --config, /etc/postern/runner.yaml]

APISIX then passes APISIX_LISTEN_ADDRESS and routes say which plugins judge them:

    plugins:
      ext-plugin-pre-req:
        conf:
          - {name: correlation-id, value: '{}'}";

/// The command line.
#[derive(Parser)]
#[command(
    name = "postern-runner",
    version,
    about = "Judges API requests for Apache APISIX, as its external-plugin runner.",
    long_about = ABOUT,
    after_long_help = EXAMPLES
)]
struct Arguments {
    /// The runner's configuration; without it the defaults hold.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check the routes of an apisix.yaml: exit 0 if every `conf` can be served, else 1
    /// with every problem, by route and field.
    Check {
        /// Standalone APISIX's routes, services, global rules and plugin configurations.
        #[arg(value_name = "APISIX_YAML")]
        file: PathBuf,
    },
    /// Print the JSON Schema of a plugin's configuration, or of all.
    Schema {
        /// One of the names that `schema` without a name lists.
        plugin: Option<String>,
    },
    /// Show what each plugin of a chain says to a request.
    Explain {
        /// The chain: a JSON or YAML list of {name, value}, as in a route's `conf`.
        #[arg(long, value_name = "FILE")]
        conf: PathBuf,
        /// The request: {method, path, query?, headers?, srcIp?, vars?, body?} in JSON.
        #[arg(value_name = "REQUEST_JSON")]
        request: PathBuf,
        /// How long background tasks (keys, directory) may take to be ready, in ms.
        #[arg(long, value_name = "MS", default_value_t = 2000)]
        wait_ms: u64,
    },
    /// Print the keys that handlers open the context with (their `contextKeys`), derived
    /// from the runners' master keys.
    ContextKeys {
        /// The file of master keys, as in `plugins.context.keyFile`.
        #[arg(value_name = "MASTER_KEYS")]
        masters: PathBuf,
        /// The families that the handlers serve; all where none is named.
        #[arg(value_name = "FAMILY")]
        families: Vec<Family>,
    },
    /// Answer calls for a supervisor.
    #[command(hide = true)]
    Worker {
        #[arg(long)]
        threads: usize,
    },
}

const EXAMPLES: &str = "\
Examples:
  Serve by hand, without APISIX starting it (ext-plugin.path_for_test names the socket):
    APISIX_LISTEN_ADDRESS=unix:/tmp/runner.sock postern-runner --config runner.yaml
  Before a deployment:
    postern-runner check apisix.yaml --config runner.yaml
  What can `jwt` be told?
    postern-runner schema jwt
  Why is this request refused?
    postern-runner explain --config runner.yaml --conf conf.yaml request.json
  New keys for runners and handlers:
    (umask 077; echo k1 $(head -c 32 /dev/urandom | base64) > master.keys)
    postern-runner context-keys master.keys > context.keys
  A new configuration, without losing a request:
    kill -HUP $(pgrep -o postern-runner)

Exit codes: 0 fine, 1 a check found problems, 2 wrong usage, file or configuration.";

/// The whole program: reads the arguments, does it, says what went wrong in one line.
///
/// A binary with plugins of its own calls it with its own composition root:
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     postern_runner::main(postern_runner::plugins::house)
/// }
/// ```
#[must_use]
pub fn main(compose: Compose) -> ExitCode {
    let Arguments { config, command } = match postern_usage::parse("postern-runner") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let config = config.as_deref();
    let done = match command {
        None => {
            crate::descriptors::close_leaked();
            crate::supervisor::run(config)
        }
        Some(Command::Worker { threads }) => return crate::worker::run(compose, threads),
        Some(Command::Check { file }) => with_registry(compose, config, async |registry| {
            check::run(&registry, &file)
        }),
        Some(Command::Schema { plugin }) => with_registry(compose, config, async |registry| {
            schema::run(&registry, plugin.as_deref())
        }),
        Some(Command::Explain {
            conf,
            request,
            wait_ms,
        }) => with_registry(compose, config, async |registry| {
            explain::run(registry, &conf, &request, wait_ms).await
        }),
        Some(Command::ContextKeys { masters, families }) => context_keys::run(&masters, &families),
    };
    done.unwrap_or_else(|error| {
        eprintln!("postern-runner: {error:#}");
        ExitCode::from(2)
    })
}

/// Makes the plugins as a worker would, for commands that look at them.
fn with_registry(
    compose: Compose,
    config: Option<&std::path::Path>,
    command: impl AsyncFnOnce(Registry) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let config = config.map_or_else(|| Ok(RunnerConfig::default()), RunnerConfig::read)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { command(crate::registry::compose(compose, &config)?).await })
}
