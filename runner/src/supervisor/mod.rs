//! The process that the gateway starts: it keeps what must outlive a worker.
//!
//! The gateway restarts a runner that ended only after 3 s, and answers 503 until
//! then. So this process keeps the socket (connects wait in its backlog) and the
//! tables of tokens, and a worker that dies is replaced within milliseconds.
//!
//! start: check → take the admin address → first worker checks too → bind → give up
//! privileges → serve.
//! SIGHUP: a new worker with the configuration as it is now; once that is ready it
//! takes over accepting *and* the idle connections. SIGTERM: drained within 1 s.

mod child;
pub(crate) mod privileges;
mod socket;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::child::{Id, News, Order, Settings, Worker};
use crate::admin::Endpoint;
use crate::config::RunnerConfig;
use crate::control::{Message, pair};
use crate::rpc::tokens::Tokens;

/// The gateway kills 1 s after SIGTERM.
const GRACE: Duration = Duration::from_millis(930);
/// A worker that served for so long did not crash in a loop.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a worker may take to say what is to outlive it; meanwhile it serves on.
const LEGACY: Duration = Duration::from_secs(2);
/// How long SIGHUP waits for a worker that still checks an older configuration. Most are
/// ready in milliseconds; one that hangs would keep the mended file out for `startMs`.
const OVERTAKE: Duration = Duration::from_secs(1);
/// The longest wait before a crashed worker is started again.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Serves until it is told to end.
pub(crate) fn run(file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (text, config) = read(file)?;
    let path = config.listen_path()?;
    let user = user(&config)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let admin = match &config.admin.listen {
            Some(listen) => Some(Rc::new(Endpoint::succeed(listen, user).await?)),
            None => None,
        };
        let first = Settings::of(text, &config, admin);
        let (sender, news) = mpsc::unbounded_channel();
        let mut supervisor = Supervisor {
            file: file.map(Path::to_owned),
            tokens: Arc::new(Mutex::new(Tokens::new(config.limits.configurations))),
            user,
            listener: None,
            workers: BTreeMap::new(),
            started: 0,
            current: None,
            candidate: None,
            succession: None,
            hup_waiting: false,
            good: first.clone(),
            crashes: 0,
            restart: None,
            sender,
        };
        supervisor.start(first)?;
        supervisor.serve(news, &path, &config).await
    })
}

struct Supervisor {
    file: Option<PathBuf>,
    tokens: Arc<Mutex<Tokens>>,
    /// Whom workers become; `None` once this process is that user itself.
    user: Option<privileges::User>,
    listener: Option<UnixListener>,
    workers: BTreeMap<Id, Worker>,
    /// How many workers there have been.
    started: Id,
    /// Who accepts.
    current: Option<Id>,
    /// Who is checking its configuration.
    candidate: Option<Id>,
    /// A candidate that is ready, until the worker before has said what outlives it.
    succession: Option<Succession>,
    /// SIGHUP came while a candidate was checking.
    hup_waiting: bool,
    /// What a worker was ready to serve with.
    good: Settings,
    /// Workers that ended unasked since one last settled.
    crashes: u32,
    /// When the next worker is started after a crash.
    restart: Option<Instant>,
    sender: mpsc::UnboundedSender<(Id, News)>,
}

/// A change of workers that waits for what the one before leaves.
struct Succession {
    before: Id,
    heir: Id,
    until: Instant,
}

impl Supervisor {
    async fn serve(
        &mut self,
        mut news: mpsc::UnboundedReceiver<(Id, News)>,
        path: &Path,
        config: &RunnerConfig,
    ) -> anyhow::Result<ExitCode> {
        let mut hup = signal(SignalKind::hangup())?;
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        loop {
            let restart = self.restart.unwrap_or_else(Instant::now);
            let patience = self.succession.as_ref().map(|waiting| waiting.until);
            let overtake = self.overtake();
            tokio::select! {
                Some((id, news)) = news.recv() => match news {
                    News::Ready if self.listener.is_none() => {
                        // Everything has been checked: from here on connects succeed.
                        self.listener = Some(socket::bind(path, &config.socket)?);
                        if let Some(admin) = &self.good.admin {
                            admin.open()?;
                        }
                        if let Some(user) = self.user.take() {
                            privileges::become_user(user)?;
                        }
                        crate::logging::start(&config.log)?;
                        tracing::info!(path = %path.display(), pid = std::process::id(), "listening");
                        if privileges::is_root() {
                            tracing::warn!("the runner serves as root: name a user in worker.user");
                        }
                        self.promote(id);
                    }
                    News::Ready => self.promote(id),
                    News::Late => {
                        if let Some(code) = self.late(id) {
                            return Ok(code);
                        }
                    }
                    News::Left(left) => self.succeed(id, left),
                    News::Ended(status) => {
                        let status = status.map_or_else(|| "unknown".into(), |status| status.to_string());
                        if let Some(code) = self.ended(id, &status) {
                            return Ok(code);
                        }
                    }
                },
                () = sleep_until(restart), if self.restart.is_some() => {
                    self.restart = None;
                    self.start_or_retry();
                }
                () = sleep_until(patience.unwrap_or(restart)), if patience.is_some() => {
                    if let Some(Succession { before, .. }) = self.succession {
                        tracing::warn!(worker = before, "a worker did not say in time what is to outlive it");
                        self.succeed(before, Bytes::new());
                    }
                }
                () = sleep_until(overtake.unwrap_or(restart)), if overtake.is_some() => {
                    self.give_up_candidate();
                }
                _ = hup.recv() => self.reload(),
                _ = term.recv() => break,
                _ = int.recv() => break,
            }
        }
        self.drain(news).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Starts a worker that checks a configuration.
    fn start(&mut self, settings: Settings) -> anyhow::Result<()> {
        self.started += 1;
        let id = self.started;
        let worker = Worker::start(id, settings, self.user, &self.tokens, &self.sender)?;
        self.workers.insert(id, worker);
        self.candidate = Some(id);
        Ok(())
    }

    fn start_or_retry(&mut self) {
        if self.candidate.is_some() {
            // SIGHUP came first, and is started anew if that fails.
            return;
        }
        if let Err(error) = self.start(self.good.clone()) {
            tracing::error!(error = format!("{error:#}"), "cannot start a worker");
            self.restart = Some(Instant::now() + MAX_BACKOFF);
        }
    }

    /// A worker is ready. The one before says first what is to outlive it.
    fn promote(&mut self, id: Id) {
        if self.candidate != Some(id) {
            // It was given up while it said so.
            return;
        }
        let before = self
            .current
            .and_then(|id| Some((id, self.workers.get(&id)?)));
        let Some((before, worker)) = before else {
            return self.install(id, Bytes::new());
        };
        worker.order(Order::Say(Message::Leave, None));
        self.succession = Some(Succession {
            before,
            heir: id,
            until: Instant::now() + LEGACY,
        });
    }

    /// The worker before has said what is to outlive it, or will not.
    fn succeed(&mut self, before: Id, left: Bytes) {
        let waiting = self.succession.take_if(|waiting| waiting.before == before);
        if let Some(Succession { heir, .. }) = waiting {
            self.install(heir, left);
        }
    }

    /// A worker accepts, and gets what the one before leaves, and its connections.
    fn install(&mut self, id: Id, left: Bytes) {
        self.candidate = None;
        if !left.is_empty()
            && let Some(worker) = self.workers.get(&id)
        {
            worker.order(Order::Say(Message::Left(left), None));
        }
        let before = self.current.replace(id);
        let promoted = self.give_listener(id).and_then(|()| match before {
            Some(before) => self.hand_over(before, id),
            None => Ok(()),
        });
        if let Err(error) = promoted {
            tracing::error!(error = format!("{error:#}"), "the change of workers failed");
        }
        if let Err(error) = self.give_admin(before, id) {
            tracing::error!(
                error = format!("{error:#}"),
                "metrics and health are not served"
            );
        }
        if let Some(worker) = self.workers.get(&id) {
            self.good = worker.settings.clone();
            let ms = u64::try_from(worker.started.elapsed().as_millis()).ok();
            tracing::info!(worker = id, ms, "worker serves");
        }
        if std::mem::take(&mut self.hup_waiting) {
            self.reload();
        }
    }

    fn give_listener(&self, id: Id) -> anyhow::Result<()> {
        let listener = self.listener.as_ref().context("there is no socket")?;
        let listener = listener.as_fd().try_clone_to_owned()?;
        self.worker(id)?.give(Message::Listen, listener);
        Ok(())
    }

    /// The one before closes its own when it hands over.
    fn give_admin(&mut self, before: Option<Id>, id: Id) -> anyhow::Result<()> {
        if let Some(before) = before.and_then(|before| self.workers.get_mut(&before)) {
            before.settings.admin = None;
        }
        let worker = self.worker(id)?;
        if let Some(admin) = &worker.settings.admin {
            admin.open()?;
            worker.give(Message::Admin, admin.descriptor()?);
        }
        Ok(())
    }

    fn hand_over(&self, from: Id, to: Id) -> anyhow::Result<()> {
        let (give, take) = pair()?;
        self.worker(to)?.give(Message::Adopt, OwnedFd::from(take));
        self.worker(from)?
            .give(Message::HandOver, OwnedFd::from(give));
        Ok(())
    }

    fn worker(&self, id: Id) -> anyhow::Result<&Worker> {
        self.workers.get(&id).context("the worker has ended")
    }

    /// SIGHUP: the configuration as it is now, if it can be served.
    fn reload(&mut self) {
        if self.candidate.is_some() {
            self.hup_waiting = true;
            return;
        }
        crate::logging::reopen();
        let started = read(self.file.as_deref()).and_then(|(text, config)| {
            let admin = self.admin(config.admin.listen.as_deref())?;
            self.start(Settings::of(text, &config, admin))
        });
        if let Err(error) = started {
            tracing::error!(
                error = format!("{error:#}"),
                "the configuration cannot be served; the one before stays"
            );
        }
    }

    /// When SIGHUP waits no longer for the worker that checks; `None`: it does not wait, or
    /// that worker is ready and takes over.
    fn overtake(&self) -> Option<Instant> {
        if !self.hup_waiting || self.succession.is_some() || self.listener.is_none() {
            return None;
        }
        let candidate = self.workers.get(&self.candidate?)?;
        Some(Instant::from_std(candidate.started) + OVERTAKE)
    }

    /// The configuration is another one by now.
    fn give_up_candidate(&mut self) {
        if let Some(id) = self.candidate.take() {
            tracing::warn!(
                worker = id,
                "a worker was not ready when its configuration was replaced; it is killed"
            );
            // Dropped, it is killed.
            self.workers.remove(&id);
        }
        self.hup_waiting = false;
        self.reload();
    }

    /// The admin endpoint of a configuration: the one that there is, or a new one.
    fn admin(&self, listen: Option<&str>) -> anyhow::Result<Option<Rc<Endpoint>>> {
        let Some(listen) = listen else {
            return Ok(None);
        };
        Ok(Some(match &self.good.admin {
            Some(admin) if admin.is_at(listen) => Rc::clone(admin),
            _ => Rc::new(Endpoint::bind(listen, self.user)?),
        }))
    }

    /// A worker still is not ready. It may not even end when it is killed, so that is
    /// not waited for.
    fn late(&mut self, id: Id) -> Option<ExitCode> {
        let worker = self.workers.get(&id)?;
        let late = format!(
            "not ready after {} ms",
            worker.settings.patience.as_millis()
        );
        if self.listener.is_none() {
            eprintln!(
                "postern-runner: {late} (worker.startMs): is a file of keys on a server that is away?"
            );
        }
        self.ended(id, &late)
    }

    /// A worker has ended. Gives a code when that is this process's end, too.
    fn ended(&mut self, id: Id, status: &str) -> Option<ExitCode> {
        // Dropped, it is killed if it is there.
        let worker = self.workers.remove(&id)?;
        let was_candidate = self
            .candidate
            .take_if(|candidate| *candidate == id)
            .is_some();
        let was_current = self.current.take_if(|current| *current == id).is_some();
        self.succession.take_if(|waiting| waiting.heir == id);
        if was_candidate && self.listener.is_none() {
            // It has said why, and nothing listens yet.
            return Some(ExitCode::from(2));
        }
        if was_candidate {
            tracing::error!(
                worker = id,
                status,
                "a worker ended before it could serve; its configuration is not used"
            );
        }
        if was_current {
            tracing::error!(
                worker = id,
                status,
                "a worker ended unasked; another one is started"
            );
        }
        if was_current
            && self.succession.is_none()
            && let Some(candidate) = self.candidate.take()
        {
            // It may take its time, or hang, and nobody serves: what served before comes
            // first, and this configuration again after it.
            self.workers.remove(&candidate);
            self.hup_waiting = true;
        }
        if self.current.is_none() && self.candidate.is_none() && self.restart.is_none() {
            self.crashes = if worker.started.elapsed() > SETTLED {
                1
            } else {
                self.crashes + 1
            };
            self.restart = Some(Instant::now() + backoff(self.crashes));
        }
        self.succeed(id, Bytes::new());
        if was_candidate && std::mem::take(&mut self.hup_waiting) {
            self.reload();
        }
        None
    }

    /// Lets the workers serve on for a little while, then end.
    async fn drain(&mut self, mut news: mpsc::UnboundedReceiver<(Id, News)>) {
        let deadline = Instant::now() + GRACE;
        if let Some(candidate) = self.candidate.take().and_then(|id| self.workers.get(&id)) {
            candidate.order(Order::Kill);
        }
        // Its port is a successor's from here on.
        self.good.admin = None;
        for worker in self.workers.values_mut() {
            worker.settings.admin = None;
            worker.order(Order::Say(Message::Drain, None));
        }
        while !self.workers.is_empty() {
            tokio::select! {
                Some((id, news)) = news.recv() => if let News::Ended(_) = news {
                    self.workers.remove(&id);
                },
                () = sleep_until(deadline) => {
                    tracing::warn!(workers = self.workers.len(), "workers are killed that did not end in time");
                    self.workers.values().for_each(|worker| worker.order(Order::Kill));
                    break;
                }
            }
        }
        tracing::info!("ended");
        crate::logging::flush();
    }
}

impl Settings {
    fn of(text: Bytes, config: &RunnerConfig, admin: Option<Rc<Endpoint>>) -> Self {
        Self {
            text,
            threads: config.worker.threads,
            patience: Duration::from_millis(config.worker.start_ms),
            admin,
        }
    }
}

/// At once after the first crash, then longer and longer.
fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 | 1 => Duration::ZERO,
        more => Duration::from_millis(5)
            .saturating_mul(1 << (more - 2).min(10))
            .min(MAX_BACKOFF),
    }
}

fn read(file: Option<&Path>) -> anyhow::Result<(Bytes, RunnerConfig)> {
    let Some(file) = file else {
        return Ok((Bytes::new(), RunnerConfig::default()));
    };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    let config = RunnerConfig::parse(&text).with_context(|| file.display().to_string())?;
    Ok((text.into(), config))
}

/// Whom to become, if that is possible and wanted.
fn user(config: &RunnerConfig) -> anyhow::Result<Option<privileges::User>> {
    let Some(name) = &config.worker.user else {
        return Ok(None);
    };
    let mut user = privileges::user(name).context("worker.user")?;
    if let Some(name) = &config.worker.group {
        user.group = privileges::group(name).context("worker.group")?;
    }
    if privileges::is_root() {
        return Ok(Some(user));
    }
    anyhow::ensure!(
        user == privileges::current(),
        "worker.user, worker.group: only root can become another user; start the runner as root \
         or leave them out"
    );
    Ok(None)
}

/// A descriptor a connection: as many as the system lets us have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_slows_down_to_a_second() {
        let waits: Vec<_> = (1..12)
            .map(|crashes| backoff(crashes).as_millis())
            .collect();
        assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
    }
}
