//! `dev-issuer`: the development identity issuer as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_quickstart::issuer::{Mint, Settings, serve};

/// A development identity issuer: JWKS, password and client-credentials grants.
///
/// Not for production: passwords stand in a file as they are.
#[derive(Parser)]
#[command(
    version,
    after_help = "Try: curl -d grant_type=password -d client_id=… -d username=… -d password=… \
    http://127.0.0.1:9081/realms/<realm>/protocol/openid-connect/token"
)]
struct Flags {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9081")]
    listen: SocketAddr,
    /// Accounts file (YAML or JSON), read again at each token request
    #[arg(long)]
    accounts: PathBuf,
    /// Folder of the private keys, made when it is not there
    #[arg(long)]
    keys: PathBuf,
    /// Also sign arbitrary claims at POST /realms/NAME/mint, for tests
    #[arg(long)]
    mint: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags: Flags = match postern_usage::parse("dev-issuer") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let settings = Settings {
        listen: flags.listen,
        accounts: flags.accounts,
        keys: flags.keys,
        mint: if flags.mint { Mint::Open } else { Mint::Closed },
    };
    match serve(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev-issuer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
