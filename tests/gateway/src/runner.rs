//! The runner as a process: started, listened to, started again, ended. Sources:
//! `setup_runner`, `spawn_proc` and `exit_worker` in
//! `apisix/plugins/ext-plugin/init.lua`.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::clock::Times;
use crate::rpc::tokens::{EXPIRE, Tokens};

/// Between a runner's death and the next one's start, in APISIX's seconds.
const RESPAWN: f64 = 3.0;
/// Between SIGTERM and SIGKILL. Not scaled: it is the runner's own time.
const GRACE: Duration = Duration::from_secs(1);
/// On a reload the new runner starts so long after the old one's SIGTERM.
pub const RELOAD_GAP: f64 = 0.09;
/// Bytes of the runner's output in one line of the log.
const OUTPUT: usize = 3800;

/// How a runner is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// The socket it is to listen on.
    pub socket: PathBuf,
    /// Its working folder.
    pub home: PathBuf,
    /// Variables it gets besides its own.
    pub envs: Vec<String>,
}

/// A runner that is kept running.
#[derive(Debug)]
pub struct Runner {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Start {
    fn spawn(&self) -> Result<Child> {
        let (program, arguments) = self.cmd.split_first().context("ext-plugin.cmd is empty")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env(
                "APISIX_LISTEN_ADDRESS",
                format!("unix:{}", self.socket.display()),
            )
            .env("APISIX_CONF_EXPIRE_TIME", EXPIRE.to_string())
            .current_dir(&self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in ["PATH"]
            .into_iter()
            .chain(self.envs.iter().map(String::as_str))
        {
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.into())),
                None => (name, std::env::var_os(name)),
            };
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(drain(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(drain(stderr));
        }
        Ok(child)
    }
}

async fn drain(mut output: impl AsyncRead + Unpin) {
    let mut piece = Vec::with_capacity(OUTPUT);
    loop {
        piece.clear();
        let mut some = (&mut output).take(OUTPUT as u64);
        match some.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::warn!("runner: {}", String::from_utf8_lossy(&piece).trim_end()),
        }
    }
}

impl Runner {
    /// Starts one, and again whenever it dies.
    pub fn start(start: Start, times: Times, tokens: Arc<Tokens>) -> Result<Self> {
        let child = start.spawn()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(keep_running(start, child, times, tokens, stopped));
        Ok(Self {
            stop: Some(stop),
            task,
        })
    }

    /// SIGTERM, a second, SIGKILL. The signal is out when the first await is over.
    pub async fn end(mut self) {
        if let Some(stop) = self.stop.take() {
            let _already_over = stop.send(());
        }
        let _how_it_ended = self.task.await;
    }
}

async fn keep_running(
    start: Start,
    mut child: Child,
    times: Times,
    tokens: Arc<Tokens>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            status = child.wait() => tracing::warn!("runner exited: {status:?}"),
            _ = &mut stopped => return end(&mut child).await,
        }
        tokens.flush();
        tracing::warn!("respawn runner 3 seconds later with cmd: {:?}", start.cmd);
        tokio::select! {
            () = sleep(times.scaled(RESPAWN)) => {}
            _ = &mut stopped => return,
        }
        child = match start.spawn() {
            Ok(child) => child,
            Err(error) => {
                // As in APISIX, a start that fails is not tried again.
                tracing::error!("{error:#}");
                return;
            }
        };
    }
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        tracing::warn!("terminate runner {pid} with SIGTERM");
        let pid = i32::try_from(pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _already_dead = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!("the runner did not end within a second: SIGKILL");
        let _already_dead = child.kill().await;
    }
}
