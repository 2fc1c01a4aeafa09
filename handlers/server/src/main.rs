//! `postern-handlers --config FILE [serve|check|migrate]`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use postern_common::telemetry;
use postern_handlers::{Config, Prepared, migrate};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serves the API's families behind the gateway.
///
/// Requests reach it through the gateway only: each carries what the runner sealed.
/// SIGTERM and SIGINT drain: requests under way are answered, then it ends.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; postern-handlers.yaml in the sources shows every setting.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Serve,
    /// Check the configuration and its key files, without database and sockets.
    Check,
    /// Bring the database's schema up to date and end.
    Migrate,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match postern_usage::parse("postern-handlers") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postern-handlers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    // Where another crate of the same build brings a second one, rustls has no default and
    // the directory's TLS panics. It fails when there is one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(path) = arguments.config else {
        anyhow::bail!("--config FILE is missing (--help tells more)")
    };
    let config = Config::read(&path)?;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Check => {
            Prepared::new(config)?;
            println!("{}: good", path.display());
            Ok(())
        }
        Command::Migrate => migrate(&config).await,
        Command::Serve => {
            let (log, collector) = (&config.log, config.otlp.endpoint.as_deref());
            let traces = telemetry::start(&log.level, log.file.as_deref(), collector)?;
            let stop = CancellationToken::new();
            let server = Prepared::new(config)?.start().await?;
            on_signal(stop.clone())?;
            let served = server.run(stop).await;
            traces.end().await;
            served
        }
    }
}

/// The first SIGTERM or SIGINT drains.
fn on_signal(stop: CancellationToken) -> Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
