//! Servers that no Debian package brings: fetched from a package registry, and kept
//! below `target/`.
//!
//! A folder appears under its name only when it is complete, and one process at a
//! time makes it: a lock on a file is given back by the kernel however that ends.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::process::binaries;

/// Lines of a failed command's output that are shown.
const SHOWN: usize = 8;

/// The installation of this name and version. When it is not there, `what` is told
/// and `install` is given an empty folder; it answers with the complete one in it.
pub(crate) async fn find<F: Future<Output = Result<PathBuf>>>(
    name: &str,
    what: &str,
    install: impl FnOnce(PathBuf) -> F,
) -> Result<PathBuf> {
    let target = binaries()?;
    let target = target.parent().context("no folder around the binaries")?;
    let services = target.join("services");
    let installed = services.join(name);
    if installed.exists() {
        return Ok(installed);
    }
    std::fs::create_dir_all(&services)
        .with_context(|| format!("cannot make {}", services.display()))?;
    let lock = File::create(services.join(format!("{name}.lock")))?;
    // Whoever holds it may need minutes.
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if installed.exists() {
        return Ok(installed);
    }
    say(what);
    let making = services.join(format!("{name}.making"));
    // What a killed run left; the lock is ours.
    if making.exists() {
        std::fs::remove_dir_all(&making)?;
    }
    std::fs::create_dir(&making)?;
    let complete = install(making.clone())
        .await
        .with_context(|| format!("{name} cannot be installed"))?;
    std::fs::rename(complete, &installed)?;
    // When it was the folder itself, there is nothing left to remove.
    if making.exists() {
        std::fs::remove_dir_all(&making)?;
    }
    Ok(installed)
}

/// Runs a command to its end, within the limit.
pub(crate) async fn run(name: &str, mut command: Command, limit: Duration) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let output = tokio::time::timeout(limit, output)
        .await
        .with_context(|| format!("{name} took longer than {limit:?}"))?
        .with_context(|| format!("{name} cannot be run; tests/run installs it where it can"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let said: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let from = said.len().saturating_sub(SHOWN);
        let said = said.get(from..).unwrap_or_default().join("\n");
        bail!("{name} failed ({}):\n{said}", output.status);
    }
    Ok(())
}

/// Past the capture of the test harness: nobody should wonder what takes so long.
fn say(line: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
