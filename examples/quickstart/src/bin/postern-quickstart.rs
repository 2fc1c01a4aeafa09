//! `postern-quickstart`: the launcher, started by `examples/quickstart/run`
//! once the machine has what is needed and everything is built.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_harness::services::Documents;
use postern_quickstart::launcher::{Data, Settings, run};

/// Starts Postern on this machine, with a demo in it. For development.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Folder of data, keys, logs and the env file
    #[arg(long, default_value = ".quickstart")]
    folder: PathBuf,
    /// Folder of apisix.yaml and config.yaml
    #[arg(long, default_value = "apisix-conf")]
    configuration: PathBuf,
    /// The API's port on 127.0.0.1; the issuer takes the next one
    #[arg(long, default_value_t = 9080)]
    port: u16,
    /// Drop the data of earlier runs first
    #[arg(long)]
    reset: bool,
    /// Start the real APISIX installed in this folder
    #[arg(long)]
    apisix: Option<PathBuf>,
    /// A PostgreSQL that runs already
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Serve documents too, from a private MongoDB
    #[arg(long)]
    mongo: bool,
    /// Serve documents too, from a replica set that runs already
    #[arg(long, env = "MONGODB_URL", hide_env_values = true)]
    mongodb_url: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags: Flags = match postern_usage::parse("quickstart") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let settings = Settings {
        folder: flags.folder,
        configuration: flags.configuration,
        port: flags.port,
        data: if flags.reset {
            Data::Dropped
        } else {
            Data::Kept
        },
        database_url: flags.database_url.filter(|url| !url.is_empty()),
        apisix: flags.apisix,
        mongo: match flags.mongodb_url.filter(|url| !url.is_empty()) {
            Some(url) => Some(Documents::Url(url)),
            None => flags.mongo.then_some(Documents::Private),
        },
    };
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}
