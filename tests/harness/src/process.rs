//! One server process: its own process group, its output in a file, ended with
//! the value that stands for it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use crate::wait::wait_for;
use crate::watchdog;

/// How many lines of a log a failure shows.
const TAIL_LINES: usize = 20;
const POLL: Duration = Duration::from_millis(10);

/// How a server is asked to leave at once when nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// SIGKILL to the whole group.
    Killed,
    /// SIGINT to the group: PostgreSQL rolls back what runs and shuts down cleanly.
    Interrupted,
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    leave: Leave,
}

impl Process {
    /// Starts `command` with its output appended to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// The program cannot be started, or the log not written.
    pub fn spawn(name: &str, mut command: Command, folder: &Path, leave: Leave) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let process = Self {
            name: name.to_owned(),
            child,
            log,
            leave,
        };
        let signal = match leave {
            Leave::Killed => "KILL",
            Leave::Interrupted => "INT",
        };
        watchdog::guard(process.group().as_raw_nonzero().get(), signal)?;
        Ok(process)
    }

    /// The process id, which is also that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until `probe` succeeds; fails at once when the process has ended.
    ///
    /// # Errors
    /// It ended or the time is up. The message shows the end of its log.
    pub async fn ready(
        &mut self,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let what = format!("{} to answer", self.name);
        let child = &mut self.child;
        // The outer result ends the waiting, the inner one is the verdict.
        let verdict = wait_for(&what, limit, async || match child.try_wait() {
            Ok(Some(status)) => Ok(Err(anyhow!("it ended with {status}"))),
            Ok(None) => probe().await.map(Ok),
            Err(error) => Ok(Err(error.into())),
        })
        .await;
        verdict.and_then(|inner| inner).with_context(|| {
            format!(
                "{} did not start; its log ends:\n{}",
                self.name,
                self.tail()
            )
        })
    }

    /// The exit status, if it has ended.
    ///
    /// # Errors
    /// The kernel does not know the process.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(self.group(), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills the process and everything in its group, and waits for it.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        // No such group: it ended by itself, which is what was wanted.
        let _ = rustix::process::kill_process_group(self.group(), Signal::KILL);
        self.child.wait()?;
        watchdog::release(self.group().as_raw_nonzero().get())
    }

    /// Asks it to end with `signal` and kills it after `grace`.
    ///
    /// # Errors
    /// It had to be killed.
    pub async fn stop(&mut self, signal: Signal, grace: Duration) -> Result<()> {
        let _ = self.signal(signal);
        let name = self.name.clone();
        let child = &mut self.child;
        let ended = wait_for(&format!("{name} to end"), grace, async || {
            child
                .try_wait()?
                .map(drop)
                .ok_or_else(|| anyhow!("still running"))
        })
        .await;
        self.kill()?;
        ended
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.leave == Leave::Interrupted
            && rustix::process::kill_process(self.group(), Signal::INT).is_ok()
        {
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(POLL);
            }
        }
        // Nothing to tell anybody in a destructor; the watchdog has the rest.
        let _ = self.kill();
    }
}

/// The last lines of a log file, or why there are none.
#[must_use]
pub fn tail(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(TAIL_LINES);
            lines.get(from..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("({}: {error})", log.display()),
    }
}

/// The folder that holds the binaries of this build: a test runs from its
/// `deps`, the launcher from the folder itself.
///
/// # Errors
/// This process does not know its own path.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("no folder around the binary")?;
    Ok(if folder.ends_with("deps") {
        folder.parent().context("no folder around deps")?.to_owned()
    } else {
        folder.to_owned()
    })
}

/// The path of one of this workspace's own binaries.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries()?.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there: run `cargo build --workspace`",
            path.display()
        );
    }
    Ok(path)
}
