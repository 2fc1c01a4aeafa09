//! The project's own tasks: `lint` and `generate`.

mod generate;
mod lint;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

/// Checks that no compiler makes, and the generator of what is generated
#[derive(Parser)]
#[command(name = "postern-tasks", version)]
struct Flags {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check: formatting, clippy, rustdoc, directions, licences, bans, generated files, links
    Lint {
        /// Only the checks of these names
        names: Vec<String>,
        /// Name the checks and run none
        #[arg(long)]
        list: bool,
    },
    /// Write what is made from proto/contract: apisix-conf/apisix.yaml, docs/errors.md
    Generate {
        /// Compare only: fail where a file differs
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let flags: Flags = match postern_usage::parse("postern-tasks") {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    match run(flags.task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("postern-tasks: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let root = root()?;
    match task {
        Task::Lint { names, list } => lint::run(&root, &names, list),
        Task::Generate { check } => generate::run(&root, check),
    }
}

/// The workspace's folder: two above this crate's, unless the clone has moved
/// since it was built, and then the folder the command runs in.
fn root() -> Result<PathBuf> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .filter(|root| root.join("Cargo.lock").is_file());
    match built_in {
        Some(root) => Ok(root),
        None => std::env::current_dir().context("no current folder"),
    }
}
