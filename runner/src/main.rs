//! The house's own runner: its plugins, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern_runner::main(postern_runner::plugins::house)
}
