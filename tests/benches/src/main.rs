//! Benchmarks, by name: `./tests/bench NAME`. A JSON line a measurement on standard
//! output, a table for people on standard error.

mod data;
mod idempotency;
mod jwt;
mod limits;
mod mongo;
mod postgres;
mod proc;
mod report;
mod rpc;

use std::process::ExitCode;

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
    /// `jwt`: a token that is remembered and one that is not, beside the chain without it
    Jwt(rpc::Options),
    /// Limits local, leased and exact beside the chain without `rate-limit`
    Limits(rpc::Options),
    /// A key's first use and its replay, and the sealed context, beside the plain chain
    Idempotency(rpc::Options),
    /// Rows: the handlers beside pgbench running the same statements
    Postgres(data::Options),
    /// Documents: the handlers beside the bare driver doing the same operations
    Mongo(data::Options),
}

fn main() -> ExitCode {
    let Args { bench } = match postern_usage::parse("tests/bench") {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match run(bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tests/bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Rpc(options) => rpc::run(&options),
        Bench::Jwt(options) => jwt::run(&options),
        Bench::Limits(options) => limits::run(&options),
        Bench::Idempotency(options) => idempotency::run(&options),
        Bench::Postgres(options) => postgres::run(&options),
        Bench::Mongo(options) => mongo::run(&options),
    }
}
