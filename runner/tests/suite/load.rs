//! Clients that call without a pause and count what they get.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use postern_runner::testkit::{Gateway, Simulated, request};
use postern_wire::message::Message;
use tokio::net::UnixStream;

use crate::process::wait_for;

/// A chain that answers at once, and whose answer shows that it was this one.
pub const CONF: &[(&str, &str)] = &[("correlation-id", r#"{"missing":"generate"}"#)];

pub fn good_request() -> Simulated {
    request("GET", "/v1/tenants").header("x-correlation-id", "corr-load-1234")
}

/// What came of the calls.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answered as they should be.
    pub good: AtomicU64,
    /// Answered with something else.
    pub wrong: AtomicU64,
    /// The connection broke before the answer.
    pub lost: AtomicU64,
    /// No connection could be made.
    pub refused: AtomicU64,
}

impl Counts {
    pub fn good(&self) -> u64 {
        self.good.load(SeqCst)
    }

    pub fn wrong(&self) -> u64 {
        self.wrong.load(SeqCst)
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(SeqCst)
    }
}

/// How a client uses its connections.
#[derive(Clone, Copy)]
pub enum Habit {
    /// One for all calls, a new one only when it broke.
    Keep,
    /// A new one for each call.
    Fresh,
}

/// Clients at work, on a thread of their own.
pub struct Load {
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start(socket: &Path, clients: usize, habit: Habit) -> Self {
        let (counts, stop) = (
            Arc::new(Counts::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = {
            let (socket, counts, stop) =
                (socket.to_owned(), Arc::clone(&counts), Arc::clone(&stop));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let work = |_| {
                        client(
                            socket.clone(),
                            Arc::clone(&counts),
                            Arc::clone(&stop),
                            habit,
                        )
                    };
                    futures::future::join_all((0..clients).map(work)).await;
                });
            })
        };
        let load = Self {
            counts,
            stop,
            thread: Some(thread),
        };
        load.progress(100);
        load
    }

    /// Waits until so many more calls were answered well.
    pub fn progress(&self, more: u64) {
        let target = self.counts.good() + more;
        wait_for("further good answers", || {
            (self.counts.good() >= target)
                .then_some(())
                .ok_or_else(|| format!("{:?}", self.counts))
        });
    }

    pub fn stop(mut self) -> Arc<Counts> {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap();
        Arc::clone(&self.counts)
    }
}

async fn client(socket: PathBuf, counts: Arc<Counts>, stop: Arc<AtomicBool>, habit: Habit) {
    let request = good_request();
    let mut connection: Option<(Gateway, u32)> = None;
    while !stop.load(SeqCst) {
        let (mut gateway, token) = match connection.take() {
            Some(connection) => connection,
            None => {
                let Ok(stream) = UnixStream::connect(&socket).await else {
                    counts.refused.fetch_add(1, SeqCst);
                    tokio::task::yield_now().await;
                    continue;
                };
                let mut gateway = Gateway::over(stream);
                match gateway.prepare("route#load#p#1", CONF).await {
                    Ok(token) => (gateway, token),
                    Err(_) => {
                        counts.lost.fetch_add(1, SeqCst);
                        continue;
                    }
                }
            }
        };
        match gateway.call(token, &request).await {
            Ok(Message::HttpReqCallResp { id: 7, .. }) => {
                counts.good.fetch_add(1, SeqCst);
                if matches!(habit, Habit::Keep) {
                    connection = Some((gateway, token));
                }
            }
            Ok(_) => drop(counts.wrong.fetch_add(1, SeqCst)),
            Err(_) => drop(counts.lost.fetch_add(1, SeqCst)),
        }
    }
}
