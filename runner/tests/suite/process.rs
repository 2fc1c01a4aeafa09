//! A runner as APISIX starts it: a process with two variables and a socket's path.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a socket's path, a configuration and a log.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        place.configure("");
        place
    }

    pub fn configure(&self, more: &str) {
        let log = self.log_file();
        std::fs::write(
            self.config(),
            format!("log: {{to: {}}}\n{more}", log.display()),
        )
        .unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("runner.yaml")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("runner.sock")
    }

    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("runner.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts a runner that has nothing but what APISIX gives it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-runner"));
        command.env_clear();
        command.env(
            "APISIX_LISTEN_ADDRESS",
            format!("unix:{}", self.socket().display()),
        );
        command.env("APISIX_CONF_EXPIRE_TIME", "3600");
        command.env("PATH", "/usr/bin:/bin");
        command.arg("--config").arg(self.config());
        command.stdin(Stdio::null());
        command
    }

    /// Starts a runner and waits until it is the one that listens.
    pub fn start(&self) -> Runner {
        let before = inode(&self.socket());
        let child = self.command().spawn().unwrap();
        let runner = Runner { child };
        wait_for("the socket", || {
            let now = inode(&self.socket());
            (now.is_some() && now != before)
                .then_some(())
                .ok_or_else(|| self.log())
        });
        runner
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    path.symlink_metadata().ok().map(|there| there.ino())
}

/// A supervisor with its workers; killed with the test.
pub struct Runner {
    child: Child,
}

impl Runner {
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// The supervisor's process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The workers there are, by process number.
    pub fn workers(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children
            .unwrap_or_default()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// The one worker, once there is one.
    pub fn worker(&self) -> u32 {
        wait_for("a single worker", || match self.workers()[..] {
            [worker] => Ok(worker),
            ref workers => Err(format!("{workers:?}")),
        })
    }

    /// SIGHUP, and the worker that came of it has taken over.
    pub fn reload(&self) -> u32 {
        let before = self.worker();
        self.signal(Signal::HUP);
        wait_for("another worker alone", || match self.workers()[..] {
            [worker] if worker != before => Ok(worker),
            ref workers => Err(format!("{workers:?}, before {before}")),
        })
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the runner's end", || {
            self.child
                .try_wait()
                .unwrap()
                .ok_or_else(|| "running".to_owned())
        })
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn kill(process: u32) {
    kill_process(pid(process), Signal::KILL).unwrap();
}

pub fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

pub fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Asks until it is so; what was there last stands in the failure.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(state) if began.elapsed() > PATIENCE => panic!("no {what}: {state}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
