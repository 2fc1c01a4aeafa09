//! Benchmarks, by name: `./tests/bench NAME`. A JSON line a measurement on standard
//! output, a table for people on standard error.

mod report;
mod rpc;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "tests/bench",
    about = "Benchmarks; run them on a machine that does nothing else"
)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The external-plugin RPC under load: the runner's full chain beside a null runner
    Rpc(rpc::Options),
}

fn main() -> Result<()> {
    match Args::parse().bench {
        Bench::Rpc(options) => rpc::run(&options),
    }
}
