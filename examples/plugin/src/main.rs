//! A runner with the house's plugins and one of one's own. Everything that
//! `postern-runner` can do, it can: `--help` tells.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern_runner::main(postern_example_plugin::plugins)
}
