//! What every program here does with its command line: `--help` in full, a mistake in
//! one line with exit code 2.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

/// Reads the command line.
///
/// # Errors
/// The code to end with: what there is to say has been said.
pub fn parse<Arguments: Parser>(program: &str) -> Result<Arguments, ExitCode> {
    Arguments::try_parse().map_err(|error| {
        if error.use_stderr() {
            eprintln!("{program}: {}", line(&error));
            ExitCode::from(2)
        } else {
            // Nobody reads it any more if this fails.
            let _ = error.print();
            ExitCode::SUCCESS
        }
    })
}

/// The mistake without clap's usage and tips, of which `--help` has more.
fn line(error: &clap::Error) -> String {
    let told = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "a command is missing".to_owned()
    } else {
        let text = error.to_string();
        let paragraph = text.lines().take_while(|line| !line.trim().is_empty());
        let words: Vec<&str> = paragraph.flat_map(str::split_whitespace).collect();
        words.join(" ").trim_start_matches("error: ").to_owned()
    };
    format!("{told}; --help tells more")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long)]
        _keys: String,
        #[arg(long)]
        _port: u16,
        #[command(subcommand)]
        _command: Command,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Command {
        Serve,
    }

    #[test]
    fn a_mistake_is_one_line() {
        for (arguments, told) in [
            (&["x"][..], "a command is missing"),
            (
                &["x", "serve"],
                "the following required arguments were not provided: --keys <KEYS> --port <PORT>",
            ),
            (
                &["x", "--nonsense"],
                "unexpected argument '--nonsense' found",
            ),
            (
                &["x", "--port", "http", "--keys", "k", "serve"],
                "invalid value 'http' for '--port <PORT>': invalid digit found in string",
            ),
        ] {
            let error = Flags::try_parse_from(arguments).unwrap_err();
            assert_eq!(line(&error), format!("{told}; --help tells more"));
        }
    }
}
