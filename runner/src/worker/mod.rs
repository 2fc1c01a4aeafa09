//! The process that answers calls.
//!
//! Started by the supervisor, it gets the configuration and, once it has said that
//! it can serve it, the listening socket. It ends when it is told to, when it has
//! handed its connections on, or with its supervisor.

pub(crate) mod control;
pub(crate) mod peers;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::control::Asker;
use self::peers::Peers;
use crate::config::RunnerConfig;
use crate::control::{Message, Receiver, pass_on, take_over};
use crate::events::Events;
use crate::legacy::Legacies;
use crate::registry::{Compose, Registry};
use crate::rpc::calls::Service;
use crate::rpc::connection;
use crate::rpc::prepare::{Configurations, Ledger};
use crate::waiting::Places;

/// A successor of ours is started about this long after SIGTERM at the latest; until
/// then there may be nobody else to connect to.
const SUCCESSOR: Duration = Duration::from_millis(300);
/// How long background tasks have to put in order what they are at when the gateway ends;
/// with `worker.drainMs` it ends within the gateway's second.
const FAREWELL: Duration = Duration::from_millis(150);
/// The same of a worker that was replaced: nobody waits for it.
const FAREWELL_TO_HEIR: Duration = Duration::from_secs(10);

/// Runs a worker on the control socket that is its standard input.
pub(crate) fn run(compose: Compose, threads: usize) -> ExitCode {
    // Started as /proc/self/exe, it would be called "exe".
    let _ = rustix::thread::set_name(c"postern-runner");
    // The control socket's end tells a worker that its supervisor is gone; this does
    // even if a plugin holds the only thread.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let served = runtime
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(serve(compose)));
    match served {
        Ok(()) => {
            crate::logging::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("postern-runner: {error:#}");
            crate::logging::flush();
            ExitCode::from(2)
        }
    }
}

async fn serve(compose: Compose) -> anyhow::Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned()?;
    let stream = StdStream::from(stdin);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)
        .context("`worker` is started by the runner itself, not by hand")?;
    let stream = Arc::new(stream);
    let mut receiver = Receiver::default();
    let Some((Message::Config(text), _)) = receiver.receive(&stream).await? else {
        anyhow::bail!("the supervisor ended before it sent a configuration");
    };
    let config = RunnerConfig::parse(std::str::from_utf8(&text)?)?;
    crate::metrics::install()?;
    let registry = crate::registry::compose(compose, &config)?;
    crate::logging::start(&config.log)?;
    let stop = CancellationToken::new();
    let asker = Asker::new(Arc::clone(&stream));
    let peers = Peers::of(&config.socket)?;
    let ledger = Ledger::Supervisor(asker.clone());
    let worker = Worker::new(&config, peers, registry, ledger, &stop);
    asker.tell(&Message::Ready).await?;
    worker.obey(&asker, &stream, receiver).await
}

/// Everything a worker is doing.
pub(crate) struct Worker {
    pub(crate) service: Arc<Service>,
    /// Who may call.
    peers: Peers,
    drain: Duration,
    handover: Duration,
    /// Room for connections.
    room: Arc<Semaphore>,
    connections: TaskTracker,
    /// Ends the accepting of connections.
    accepting: CancellationToken,
    /// Closes the admin endpoint: the next worker, or the next runner, answers there.
    leaving: CancellationToken,
    /// Calls every connection back at its next boundary.
    recall: CancellationToken,
    /// Where connections that were called back go.
    recalled: mpsc::UnboundedSender<UnixStream>,
    /// Taken by whoever passes them on; dropped with it, they are closed.
    to_pass_on: std::sync::Mutex<Option<mpsc::UnboundedReceiver<UnixStream>>>,
    /// What outlives it.
    legacies: Legacies,
    /// Background tasks, and what ends them.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        config: &RunnerConfig,
        peers: Peers,
        mut registry: Registry,
        ledger: Ledger,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let legacies = registry.take_legacies();
        let tasks = registry.start_tasks(stop);
        let service = Arc::new(Service {
            configurations: Configurations::new(registry, ledger, &config.limits),
            limits: config.limits.clone(),
            places: Places::new(config.limits.waiting),
            events: Events::new(&config.log),
        });
        let (recalled, to_pass_on) = mpsc::unbounded_channel();
        Arc::new(Self {
            service,
            peers,
            drain: Duration::from_millis(config.worker.drain_ms),
            handover: Duration::from_millis(config.worker.handover_ms),
            room: Arc::new(Semaphore::new(config.limits.connections)),
            connections: TaskTracker::new(),
            accepting: CancellationToken::new(),
            leaving: CancellationToken::new(),
            recall: CancellationToken::new(),
            recalled,
            to_pass_on: std::sync::Mutex::new(Some(to_pass_on)),
            legacies,
            tasks,
            stop: stop.clone(),
        })
    }

    /// Does what the supervisor says, until that is to end.
    async fn obey(
        self: Arc<Self>,
        asker: &Asker,
        stream: &UnixStream,
        mut receiver: Receiver,
    ) -> anyhow::Result<()> {
        let (ended, mut end) = mpsc::channel::<()>(1);
        loop {
            let message = tokio::select! {
                message = receiver.receive(stream) => message,
                _ = end.recv() => return Ok(()),
            };
            // A supervisor that is gone has a successor, or nobody wants us any more.
            let Ok(Some((message, descriptor))) = message else {
                return Ok(());
            };
            let worker = Arc::clone(&self);
            match (message, descriptor) {
                (answer @ (Message::Token(_) | Message::Conf(_)), _) => asker.answered(answer),
                (Message::Beat, _) => {
                    // A task of its own, as calls are: one that holds the thread holds this.
                    let asker = asker.clone();
                    tokio::spawn(async move { asker.tell(&Message::Alive).await });
                }
                (Message::Leave, _) => {
                    let (asker, left) = (asker.clone(), self.legacies.leave());
                    tokio::spawn(async move { asker.tell(&Message::Left(left)).await });
                }
                (Message::Left(left), _) => self.legacies.take_over(left),
                (Message::Listen, Some(socket)) => {
                    let listener = listener(socket)?;
                    tokio::spawn(async move { worker.accept(listener).await });
                }
                (Message::Admin, Some(socket)) => {
                    let listener = crate::admin::listener(socket)?;
                    tokio::spawn(async move {
                        let accept = crate::admin::accept(Arc::clone(&worker.service), listener);
                        worker.leaving.run_until_cancelled(accept).await;
                    });
                }
                (Message::Adopt, Some(socket)) => {
                    let from = connection_from(socket)?;
                    let adoption = Arc::clone(&worker);
                    // Counted as a connection: a worker that still adopts is not done.
                    self.connections
                        .spawn(async move { adoption.adopt(from).await });
                }
                (Message::HandOver, Some(socket)) => {
                    let to = connection_from(socket)?;
                    let ended = ended.clone();
                    tokio::spawn(async move {
                        worker.hand_over(to).await;
                        let _ = ended.send(()).await;
                    });
                }
                (Message::Drain, _) => {
                    let ended = ended.clone();
                    tokio::spawn(async move {
                        worker.drain().await;
                        let _ = ended.send(()).await;
                    });
                }
                (message, _) => {
                    tracing::error!(?message, "the supervisor said something unexpected")
                }
            }
        }
    }

    /// Background tasks may have something to put in order.
    async fn end_tasks(&self, within: Duration) {
        self.stop.cancel();
        if timeout(within, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "background tasks did not end in time"
            );
        }
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            // Without room, connections wait in the backlog.
            let room = Arc::clone(&self.room).acquire_owned();
            let next = async { (room.await.ok(), listener.accept().await) };
            let (room, accepted) = tokio::select! {
                next = next => next,
                () = self.accepting.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream, room),
                Err(error) => {
                    tracing::error!(%error, "cannot accept");
                    // Out of descriptors or memory: others have to end first.
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Serves the connections that a worker before this one passes on.
    async fn adopt(self: Arc<Self>, from: UnixStream) {
        let mut waiting = VecDeque::new();
        loop {
            match take_over(&from, &mut waiting).await {
                Ok(Some(socket)) => match connection_from(socket) {
                    // They were within the bounds of the worker that had them.
                    Ok(stream) => {
                        self.spawn(stream, Arc::clone(&self.room).try_acquire_owned().ok())
                    }
                    Err(error) => tracing::error!(%error, "a connection could not be taken over"),
                },
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the taking over of connections broke off");
                    return;
                }
            }
        }
    }

    fn spawn(
        self: &Arc<Self>,
        stream: UnixStream,
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        // Those that are taken over, too: the lists may be newer than they.
        if let Err(stranger) = self.peers.admit(&stream) {
            return self.service.events.stranger(&stranger);
        }
        let worker = Arc::clone(self);
        self.connections.spawn(async move {
            let open = metrics::gauge!("postern_connections");
            open.increment(1);
            if let Some(stream) = connection::serve(&worker.service, stream, &worker.recall).await {
                // Closed if nobody passes it on.
                let _ = worker.recalled.send(stream);
            }
            open.decrement(1);
            drop(room);
        });
    }

    /// Passes every connection on at its next boundary.
    async fn hand_over(&self, to: UnixStream) {
        self.leaving.cancel();
        self.accepting.cancel();
        self.recall.cancel();
        self.connections.close();
        let queue = self
            .to_pass_on
            .lock()
            .map(|mut queue| queue.take())
            .ok()
            .flatten();
        let Some(mut queue) = queue else { return };
        let pass = async {
            let mut done = std::pin::pin!(self.connections.wait());
            loop {
                let next = tokio::select! {
                    biased;
                    next = queue.recv() => next,
                    // All have ended, and what they left has been passed on.
                    () = done.as_mut() => match queue.try_recv() {
                        Ok(stream) => Some(stream),
                        Err(_) => return,
                    },
                };
                let Some(stream) = next else { return };
                if let Err(error) = pass_on(&to, &stream).await {
                    tracing::error!(%error, "a connection could not be handed over");
                }
            }
        };
        if timeout(self.handover, pass).await.is_err() {
            tracing::warn!(
                left = self.connections.len(),
                "connections were closed that did not end within worker.handoverMs"
            );
        }
        self.end_tasks(FAREWELL_TO_HEIR).await;
    }

    /// Serves on while a successor starts, then ends every connection at its next boundary.
    async fn drain(&self) {
        self.leaving.cancel();
        self.connections.close();
        let unused = async {
            sleep(SUCCESSOR).await;
            self.connections.wait().await;
        };
        let _ = timeout(self.drain, unused).await;
        self.accepting.cancel();
        self.recall.cancel();
        // What does not end now is ended by the supervisor, within the gateway's second.
        self.connections.wait().await;
        self.end_tasks(FAREWELL).await;
    }
}

fn listener(socket: OwnedFd) -> std::io::Result<UnixListener> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn connection_from(socket: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
