//! `context-keys`: the keys that handlers open the context with, from the runners' own.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use postern_context::SealingKeys;
use postern_contract::Family;

/// Prints the file for handlers of these families, or of all where none is named.
pub(super) fn run(masters: &Path, families: &[Family]) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(masters)
        .with_context(|| format!("cannot read {}", masters.display()))?;
    let keys = SealingKeys::parse(&text).with_context(|| masters.display().to_string())?;
    let families: &[Family] = if families.is_empty() {
        &Family::ALL
    } else {
        families
    };
    std::io::stdout().write_all(keys.opening_file(families).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
