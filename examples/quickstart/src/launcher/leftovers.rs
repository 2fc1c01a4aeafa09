//! What an earlier run left behind, by its list of processes.
//!
//! Each line of the file is `<pid> <start time> <name>`. A process is taken for
//! ours only when it started at the very tick that was noted: a pid alone may
//! have been given to somebody else since.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use postern_harness::wait_for;
use rustix::process::{Pid, Signal};

/// PostgreSQL rolls back and flushes what it has.
const GRACE: Duration = Duration::from_secs(15);
/// The name under which the launcher notes itself.
const LAUNCHER: &str = "launcher";

/// The list of this run's processes; gone with a clean end.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    lines: Vec<String>,
}

impl PidFile {
    /// Ends what the file at `path` still names, and starts a new list with
    /// this process.
    pub(super) async fn take_over(path: &Path) -> Result<Self> {
        if let Ok(text) = std::fs::read_to_string(path) {
            end_leftovers(&text).await?;
        }
        let mut file = Self {
            path: path.to_owned(),
            lines: Vec::new(),
        };
        file.note(std::process::id(), LAUNCHER)?;
        Ok(file)
    }

    /// Adds a process.
    pub(super) fn note(&mut self, id: u32, name: &str) -> Result<()> {
        let start = start_time(id).with_context(|| format!("{name} ended at once"))?;
        self.lines.push(format!("{id} {start} {name}\n"));
        std::fs::write(&self.path, self.lines.concat())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Left in place, it names processes that are gone, which harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn end_leftovers(text: &str) -> Result<()> {
    let alive: Vec<(u32, Pid, &str)> = text.lines().filter_map(alive).collect();
    if let Some((id, ..)) = alive.iter().find(|(_, _, name)| *name == LAUNCHER) {
        bail!("it is running already, as process {id}; stop that one first");
    }
    for (id, group, name) in alive {
        eprintln!("quickstart: ending {name}, left behind by an earlier run (process {id})");
        // What PostgreSQL calls a fast shutdown; SIGTERM would wait for its clients.
        let signal = if name == "postgres" {
            Signal::INT
        } else {
            Signal::TERM
        };
        let _ = rustix::process::kill_process(group, signal);
        let ended = wait_for(name, GRACE, async || {
            ensure!(start_time(id).is_none(), "process {id} still runs");
            Ok(())
        })
        .await;
        // Also what it had started itself, in its group.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        if let Err(slow) = ended {
            eprintln!("quickstart: killed it: {slow}");
        }
    }
    Ok(())
}

/// The process of a line, if it is still the one that was noted.
fn alive(line: &str) -> Option<(u32, Pid, &str)> {
    let mut fields = line.split(' ');
    let id: u32 = fields.next()?.parse().ok()?;
    let start: u64 = fields.next()?.parse().ok()?;
    let name = fields.next()?;
    let group = Pid::from_raw(i32::try_from(id).ok()?)?;
    (start_time(id) == Some(start)).then_some((id, group, name))
}

/// When a process started, in ticks since boot: field 22 of its `stat` line.
/// None when it has ended, or only waits to be collected by its parent.
fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn only_the_very_process_is_taken_for_ours() {
        let id = std::process::id();
        let start = start_time(id).unwrap();
        assert!(alive(&format!("{id} {start} launcher")).is_some());
        assert!(alive(&format!("{id} {} launcher", start + 1)).is_none());
        assert!(alive("rubbish").is_none());
    }

    #[tokio::test]
    async fn a_running_launcher_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pids");
        let first = PidFile::take_over(&path).await.unwrap();
        let second = PidFile::take_over(&path).await.unwrap_err();
        assert!(second.to_string().contains("running already"), "{second}");
        drop(first);
        assert!(!path.exists());
        PidFile::take_over(&path).await.unwrap();
    }
}
