//! `standin-gateway`: the command line of the stand-in.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_gateway::clock::Times;
use postern_gateway::gateway::{Sources, run};
use tracing_subscriber::EnvFilter;

/// A stand-in for Apache APISIX, for development and tests only.
///
/// Reads the same two files as APISIX in its standalone mode, starts the plugin
/// runner that config.yaml names (ext-plugin.cmd), and treats it as APISIX does,
/// quirks included; tests/gateway/QUIRKS.md lists them. SIGHUP is `apisix reload`.
///
/// Once it listens it prints one line, `listening on ADDRESS`, for each address.
/// Its log, the runner's output included, goes to stderr; RUST_LOG sets how much.
#[derive(Parser)]
#[command(
    version,
    name = "standin-gateway",
    after_help = "Example:
  standin-gateway --config apisix-conf/config.yaml --apisix-yaml apisix-conf/apisix.yaml \\
      --listen 127.0.0.1:9080"
)]
struct Arguments {
    /// Routes, upstreams and plugins, ending with a line `#END`.
    #[arg(long, value_name = "FILE")]
    apisix_yaml: PathBuf,
    /// APISIX's own configuration. The runner's socket is put beside it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Listen here instead of where config.yaml says; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Multiply APISIX's waits (3 s before a runner is started again, 60 s
    /// time-outs, 5 s for the prepare lock) by this, 0.001 to 100.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = scale)]
    time_scale: f64,
}

fn scale(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=100.0).contains(&scale) {
        Ok(scale)
    } else {
        Err("not between 0.001 and 100".to_owned())
    }
}

fn main() -> ExitCode {
    let arguments: Arguments = match postern_usage::parse("standin-gateway") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let sources = Sources {
        apisix_yaml: arguments.apisix_yaml,
        config: arguments.config,
        listen: arguments.listen,
        times: Times::new(arguments.time_scale),
    };
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(sources, announce)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nowhere_to_tell = writeln!(std::io::stderr(), "standin-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn announce(addresses: &[SocketAddr]) {
    let mut out = std::io::stdout().lock();
    let _nobody_reads = writeln!(
        out,
        "standin-gateway: a stand-in for APISIX, for development and tests only"
    );
    for address in addresses {
        let _nobody_reads = writeln!(out, "listening on {address}");
    }
    let _nobody_reads = out.flush();
}
