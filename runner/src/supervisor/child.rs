//! One worker as its supervisor sees it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use super::privileges::User;
use crate::admin::Endpoint;
use crate::control::{Message, Receiver, Sender, pair};
use crate::rpc::tokens::Tokens;

/// A worker that does not take a message for so long is stuck.
const STUCK: Duration = Duration::from_secs(2);

/// How often a worker that serves is asked whether it is still at work.
const BEAT: Duration = Duration::from_millis(700);

/// So many times in a row it may owe the answer; then it hangs. Counted, not timed: on a
/// machine that was suspended it gets another beat's time.
const MISSED: u32 = 3;

/// Names a worker within its supervisor; also the order of their starts.
pub(crate) type Id = u64;

/// What a worker makes known.
#[derive(Debug)]
pub(crate) enum News {
    /// It has checked its configuration and can serve.
    Ready,
    /// It still checks, and has had its time.
    Late,
    /// This is to outlive it.
    Left(Bytes),
    /// It has ended.
    Ended(Option<ExitStatus>),
}

/// What is asked of a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// A message, with its descriptor.
    Say(Message, Option<OwnedFd>),
    /// To end at once.
    Kill,
}

/// What a worker is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The configuration's text.
    pub(crate) text: Bytes,
    pub(crate) threads: usize,
    /// How long it may take to be ready.
    pub(crate) patience: Duration,
    /// What it answers operators on once it serves.
    pub(crate) admin: Option<Rc<Endpoint>>,
}

/// A running worker.
pub(crate) struct Worker {
    pub(crate) settings: Settings,
    pub(crate) started: Instant,
    orders: mpsc::UnboundedSender<Order>,
}

impl Worker {
    /// Starts a worker from the file this process was started from.
    pub(crate) fn start(
        id: Id,
        settings: Settings,
        user: Option<User>,
        tokens: &Arc<Mutex<Tokens>>,
        news: &mpsc::UnboundedSender<(Id, News)>,
    ) -> anyhow::Result<Self> {
        let (ours, theirs) = pair().context("cannot make a socket pair")?;
        // Not by its path: the file there may be another version by now.
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("postern-runner");
        command.args(["worker", "--threads", &settings.threads.to_string()]);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        if let Some(user) = user {
            // Supplementary groups go too when root gives up being root.
            command.uid(user.id).gid(user.group);
        }
        let mut command = Command::from(command);
        let child = command
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a worker")?;
        let stream = UnixStream::from_std(ours)?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let tend = Tend {
            id,
            child,
            stream,
            orders: receiver,
            tokens: Arc::clone(tokens),
            news: news.clone(),
            patience: settings.patience,
            ready: false,
            owed: 0,
        };
        tokio::spawn(tend.run());
        let config = settings.text.clone();
        let worker = Self {
            settings,
            started: Instant::now(),
            orders,
        };
        worker.order(Order::Say(Message::Config(config), None));
        Ok(worker)
    }

    /// Asks something of the worker. One that has ended does not mind.
    pub(crate) fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Says something that needs a descriptor.
    pub(crate) fn give(&self, message: Message, descriptor: OwnedFd) {
        self.order(Order::Say(message, Some(descriptor)));
    }
}

/// Everything between a worker's start and its end.
struct Tend {
    id: Id,
    child: Child,
    stream: UnixStream,
    orders: mpsc::UnboundedReceiver<Order>,
    tokens: Arc<Mutex<Tokens>>,
    news: mpsc::UnboundedSender<(Id, News)>,
    /// How long it may take to be ready.
    patience: Duration,
    /// It serves, and is asked whether it still does.
    ready: bool,
    /// How many times it was asked and has not answered.
    owed: u32,
}

impl Tend {
    async fn run(mut self) {
        let mut receiver = Receiver::default();
        let (mut open, mut late, mut wanted) = (true, false, true);
        let mut patience = std::pin::pin!(sleep(self.patience));
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let status = loop {
            tokio::select! {
                message = receiver.receive(&self.stream), if open => match message {
                    Ok(Some((message, _))) => self.hear(message).await,
                    // It is ending, and its status comes next.
                    Ok(None) | Err(_) => open = false,
                },
                order = self.orders.recv(), if wanted => match order {
                    Some(Order::Say(message, descriptor)) => self.say(&message, descriptor).await,
                    Some(Order::Kill) => self.kill(),
                    None => {
                        wanted = false;
                        self.kill();
                    }
                },
                // Reading a key's file, say, on a server of files that is away.
                () = &mut patience, if !self.ready && !late => {
                    late = true;
                    drop(self.news.send((self.id, News::Late)));
                }
                _ = beat.tick(), if self.ready => self.beat().await,
                status = self.child.wait() => break status.ok(),
            }
        };
        // The supervisor may be ending, too.
        let _ = self.news.send((self.id, News::Ended(status)));
    }

    /// A worker that hangs keeps the gateway waiting for 60 s a request; one that is
    /// started anew answers within milliseconds.
    async fn beat(&mut self) {
        if self.owed == MISSED {
            self.ready = false;
            tracing::error!(worker = self.id, "a worker hangs and is killed");
            return self.kill();
        }
        self.owed += 1;
        self.say(&Message::Beat, None).await;
    }

    async fn hear(&mut self, message: Message) {
        self.owed = 0;
        match message {
            Message::Ready => {
                self.ready = true;
                drop(self.news.send((self.id, News::Ready)));
            }
            Message::Alive => {}
            Message::Left(left) => drop(self.news.send((self.id, News::Left(left)))),
            Message::Assign(conf) => {
                let token = self.tokens().assign(&conf);
                self.say(&Message::Token(token), None).await;
            }
            Message::Find(token) => {
                let conf = self.tokens().get(token).cloned();
                self.say(&Message::Conf(conf), None).await;
            }
            message => tracing::error!(?message, "a worker said something unexpected"),
        }
    }

    async fn say(&mut self, message: &Message, descriptor: Option<OwnedFd>) {
        let mut sender = Sender(&self.stream);
        let send = sender.send(message, descriptor.as_ref().map(|d| d.as_fd()));
        if timeout(STUCK, send).await.is_err() {
            tracing::error!("a worker is stuck and is killed");
            self.kill();
        }
    }

    fn kill(&mut self) {
        // It may have ended in the meantime.
        let _ = self.child.start_kill();
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
