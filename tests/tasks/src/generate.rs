//! What is generated from `proto/contract`: `apisix-conf/apisix.yaml` and the
//! error list in `docs/errors.md`. `--check` compares and writes nothing.

mod apisix;
mod errors;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

/// Writes every generated file below `root`, or tells which one differs.
pub(crate) fn run(root: &Path, check: bool) -> Result<ExitCode> {
    let files = [
        ("apisix-conf/apisix.yaml", apisix::render()?),
        ("docs/errors.md", errors::render()),
    ];
    let mut stale = 0;
    for (name, content) in files {
        let path = root.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|now| now == content) {
            continue;
        }
        if check {
            eprintln!("{name} differs from what proto/contract gives: run `make generate`");
            stale += 1;
        } else {
            std::fs::write(&path, content).with_context(|| format!("cannot write {name}"))?;
            println!("wrote {name}");
        }
    }
    Ok(if stale == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
