//! A runner as a process of its own, on a core of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::proc::{self, pin};

/// How long a runner may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The core of the process that is measured, and that of everything else.
pub(crate) const SUBJECT_CORE: usize = 0;
pub(crate) const GENERATOR_CORE: usize = 1;

/// A started runner; killed when dropped.
pub(crate) struct Subject {
    child: Child,
    pub(crate) socket: PathBuf,
    /// The process that answers: the child, or its worker.
    answering: u32,
    pub(crate) spawned: Instant,
}

impl Subject {
    /// Starts `command` as the gateway would, and waits until it listens.
    pub(crate) fn start(
        program: &Path,
        args: &[&OsStr],
        folder: &Path,
        name: &str,
    ) -> Result<Self> {
        let socket = folder.join(format!("{name}.sock"));
        let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
        pin(SUBJECT_CORE)?;
        let spawned = Instant::now();
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .env(
                "APISIX_LISTEN_ADDRESS",
                format!("unix:{}", socket.display()),
            )
            .env("APISIX_CONF_EXPIRE_TIME", "3600")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        pin(GENERATOR_CORE)?;
        let child = child.with_context(|| format!("cannot start {}", program.display()))?;
        let answering = child.id();
        Ok(Self {
            child,
            socket,
            answering,
            spawned,
        })
    }

    /// Waits until the socket accepts.
    pub(crate) fn connect(&mut self) -> Result<std::os::unix::net::UnixStream> {
        loop {
            match std::os::unix::net::UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    if let Some(status) = self.child.try_wait()? {
                        bail!(
                            "{} ended with {status} before it listened; its log: {}",
                            self.socket.display(),
                            self.log()
                        );
                    }
                    if self.spawned.elapsed() > PATIENCE {
                        bail!(
                            "{}: {error} for {PATIENCE:?}; its log: {}",
                            self.socket.display(),
                            self.log()
                        );
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        }
    }

    /// What it has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.socket.with_extension("log")).unwrap_or_default()
    }

    /// Takes the process below a supervisor for the one that answers, if there is one.
    pub(crate) fn find_worker(&mut self) -> Result<()> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        if let Some(worker) = children.split_whitespace().last() {
            self.answering = worker.parse()?;
        }
        Ok(())
    }

    /// CPU time used so far, by all threads, in user and system mode.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        proc::cpu(self.answering)
    }

    /// Resident memory in MiB.
    pub(crate) fn rss(&self) -> Result<f64> {
        proc::rss(self.answering)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // A supervisor ends its worker too; one that does not leave is made to.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
