//! The gateway as a whole: what all requests share, connections, and reloads.
//!
//! An edit of `apisix.yaml` is noticed within a second and gives every
//! configuration a new key. SIGHUP is `apisix reload`: both files are read again,
//! the runner is replaced, and connections of the old generation end with the
//! request they are at. Tokens survive it, as nginx's shared memory does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::clock::Times;
use crate::config::Config;
use crate::config::routes::Table;
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::client;
use crate::http::head::{Framing, Head, Refused};
use crate::request::{Arrival, Request};
use crate::rpc::Rpc;
use crate::rpc::tokens::Tokens;
use crate::runner::{RELOAD_GAP, Runner, Start};

/// `worker_connections`: further clients wait to be accepted.
const CONNECTIONS: usize = 10620;
/// How often `apisix.yaml` is looked at.
const WATCH: Duration = Duration::from_secs(1);

/// Where the gateway finds its configuration.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `apisix.yaml`.
    pub apisix_yaml: PathBuf,
    /// `config.yaml`.
    pub config: PathBuf,
    /// Addresses in place of `node_listen`.
    pub listen: Option<SocketAddr>,
    /// How long waits are.
    pub times: Times,
}

/// What the requests of one generation share.
#[derive(Debug)]
pub struct Worker {
    /// `config.yaml`.
    pub config: Config,
    /// The way to the runner.
    pub rpc: Rpc,
    /// How long waits are.
    pub times: Times,
    table: RwLock<Arc<Table>>,
    connections: AtomicU64,
}

impl Worker {
    fn new(config: Config, table: Table, tokens: Arc<Tokens>, times: Times) -> Self {
        Self {
            rpc: Rpc::new(config.socket.clone(), times, tokens),
            config,
            times,
            table: RwLock::new(Arc::new(table)),
            connections: AtomicU64::new(0),
        }
    }

    /// `apisix.yaml` as it was last read.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

impl Sources {
    /// The version that `apisix.yaml` has now: when it was last modified.
    fn version(&self) -> Result<String> {
        let path = &self.apisix_yaml;
        let modified = std::fs::metadata(path).and_then(|file| file.modified());
        let modified = modified.with_context(|| path.display().to_string())?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(since.as_secs().to_string())
    }

    fn read(&self) -> Result<(Config, Table, String)> {
        let config = Config::read(&self.config)?;
        let version = self.version()?;
        let table = Table::read(&self.apisix_yaml, &version)?;
        Ok((config, table, version))
    }
}

/// Serves until SIGTERM or SIGINT. `ready` learns the addresses.
pub async fn run(sources: Sources, ready: impl FnOnce(&[SocketAddr])) -> Result<()> {
    let (config, table, mut version) = sources.read()?;
    let wanted = match sources.listen {
        Some(address) => vec![address.to_string()],
        None => config.listen.clone(),
    };
    ensure!(!wanted.is_empty(), "apisix.node_listen is empty");
    let mut listeners = Vec::new();
    for address in &wanted {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.with_context(|| format!("cannot listen on {address}"))?);
    }
    let times = sources.times;
    let tokens = Arc::new(Tokens::new(times));
    let mut runner = start(&config, times, &tokens)?;
    let first = Arc::new(Worker::new(config, table, Arc::clone(&tokens), times));
    let (generation, current) = watch::channel(first);

    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let addresses: std::io::Result<Vec<_>> =
        listeners.iter().map(TcpListener::local_addr).collect();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept(listener, current.clone(), Arc::clone(&places)));
    }
    ready(&addresses?);

    let mut watch = interval(WATCH);
    loop {
        tokio::select! {
            _ = hangup.recv() => match sources.read() {
                Err(error) => tracing::error!("not reloaded: {error:#}"),
                Ok((config, table, read)) => {
                    version = read;
                    let next = match restart(runner.take(), &config, times, &tokens).await {
                        Ok(next) => next,
                        Err(error) => {
                            tracing::error!("{error:#}");
                            None
                        }
                    };
                    runner = next;
                    let worker = Worker::new(config, table, Arc::clone(&tokens), times);
                    generation.send_replace(Arc::new(worker));
                    tracing::warn!("reloaded");
                }
            },
            _ = watch.tick() => reread(&sources, &mut version, &current),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tasks.shutdown().await;
    if let Some(runner) = runner {
        runner.end().await;
    }
    Ok(())
}

fn start(config: &Config, times: Times, tokens: &Arc<Tokens>) -> Result<Option<Runner>> {
    let Some(cmd) = config.runner.clone() else {
        return Ok(None);
    };
    let start = Start {
        cmd,
        socket: config.socket.clone(),
        home: config.home.clone(),
        envs: config.envs.clone(),
    };
    Runner::start(start, times, Arc::clone(tokens)).map(Some)
}

/// The new runner starts while the old one may still be leaving.
async fn restart(
    old: Option<Runner>,
    config: &Config,
    times: Times,
    tokens: &Arc<Tokens>,
) -> Result<Option<Runner>> {
    if let Some(old) = old {
        tokio::spawn(old.end());
        tokio::time::sleep(times.scaled(RELOAD_GAP)).await;
    }
    start(config, times, tokens)
}

/// Takes over an `apisix.yaml` that has changed.
fn reread(sources: &Sources, version: &mut String, current: &watch::Receiver<Arc<Worker>>) {
    match sources.version() {
        Ok(now) if now != *version => {
            // A file that cannot be read is looked at again when it changes.
            version.clone_from(&now);
            match Table::read(&sources.apisix_yaml, &now) {
                Ok(table) => {
                    current.borrow().replace(table);
                    tracing::warn!("config file {} reloaded.", sources.apisix_yaml.display());
                }
                Err(error) => tracing::error!("not reloaded: {error:#}"),
            }
        }
        Ok(_) => {}
        Err(error) => tracing::error!("{error:#}"),
    }
}

async fn accept(
    listener: TcpListener,
    current: watch::Receiver<Arc<Worker>>,
    places: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let current = current.clone();
                connections.spawn(async move {
                    serve(stream, peer, current).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors: the next one may have to wait for some.
                tracing::error!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One client's connection, from its first request to its last.
async fn serve(stream: TcpStream, peer: SocketAddr, mut current: watch::Receiver<Arc<Worker>>) {
    let worker = Arc::clone(&current.borrow_and_update());
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let _only_slower = stream.set_nodelay(true);
    let (times, patience) = (worker.times, worker.config.patience);
    let (mut reader, mut writer) = client::split(stream, times.scaled(patience.send));
    let mut arrival = Arrival {
        peer,
        local,
        connection: worker.connections.fetch_add(1, Ordering::Relaxed) + 1,
        connection_requests: 0,
    };
    loop {
        arrival.connection_requests += 1;
        let (idle, wait) = (
            times.scaled(patience.keep_alive),
            times.scaled(patience.header),
        );
        let underscores = worker.config.underscores;
        let head = tokio::select! {
            head = Head::read(&mut reader, idle, wait, underscores) => head,
            // A connection without a request ends with its generation.
            _ = current.changed(), if arrival.connection_requests > 1 => break,
        };
        let request = |head: Head| {
            let expects = head.minor > 0
                && head
                    .headers
                    .get("expect")
                    .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
            let limit = worker.config.max_body;
            let body = Body::new(head.framing, expects, limit, times.scaled(patience.body));
            Request::new(head, body, arrival, &worker.config)
        };
        match head {
            Err(Refused::Silent) => break,
            Err(Refused::Status(status, mut head)) => {
                head.framing = Framing::None;
                let request = request(*head);
                let exchange = Exchange::new(&worker, &mut reader, &mut writer, request);
                exchange.refuse(status).await;
                break;
            }
            Ok(head) => {
                let request = request(head);
                let exchange = Exchange::new(&worker, &mut reader, &mut writer, request);
                if !exchange.serve().await || current.has_changed().unwrap_or(true) {
                    break;
                }
            }
        }
    }
    linger(&mut reader, &mut writer).await;
}

/// `lingering_close`: what the client still sends is read for a while, so that it
/// gets to read the answer instead of a reset.
async fn linger(reader: &mut client::Reader, writer: &mut client::Writer) {
    writer.finish().await;
    let rest = async {
        loop {
            reader.held.clear();
            if reader.fill(Duration::from_secs(1)).await.is_err() {
                return;
            }
        }
    };
    // nginx's `lingering_time`: however much the client has to say.
    let _ended_or_cut = tokio::time::timeout(Duration::from_secs(30), rest).await;
}
