//! The connection to the store, and whether the store is worth asking.
//!
//! One task connects, and is the only one that waits for a store that is away; it says up
//! or down. Requests ask only a store that is up, and wait for `timeoutMs` at most: the
//! first that waits in vain says down, and all others decide without the store until the
//! task has had an answer again.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{FromRedisValue, ScriptInvocation};
use arc_swap::ArcSwapOption;
use postern_redis::{Authority, Connection, Servers, UrlError};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long connecting may take, and an answer that nobody waits for any more.
const CONNECT: Duration = Duration::from_secs(1);
/// How long the task waits for an answer before it connects anew.
const PROBE: Duration = Duration::from_millis(500);
/// Between two questions whether the store is well.
const PULSE: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// The store is away, or did not answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Away;

/// Where the store is, and the connection while it answers.
pub(crate) struct Link {
    servers: Servers,
    patience: Duration,
    /// `None`: away.
    up: ArcSwapOption<Connection>,
    /// A request has said that it is away.
    down: Notify,
}

impl Link {
    /// The store of a URL, for whose certificate `authority` vouches. Not connected yet.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn new(
        url: &str,
        authority: Option<&Authority>,
        patience: Duration,
    ) -> Result<Self, UrlError> {
        let servers = Servers::new(url, authority, CONNECT)?;
        Ok(Self {
            servers,
            patience,
            up: ArcSwapOption::empty(),
            down: Notify::new(),
        })
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.servers.is_cluster()
    }

    /// Whether the store is worth asking.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load().is_some()
    }

    /// Runs a script on a store that is up, within the patience.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Away> {
        let connection = self.up.load_full().ok_or(Away)?;
        let answer = timeout(self.patience, connection.run(script)).await;
        let reason = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".into(),
        };
        // Only who takes the connection down tells of it: the others failed with it.
        let before = self.up.compare_and_swap(&connection, None);
        if before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, &connection))
        {
            metrics::gauge!("postern_limit_store_up").set(0.0);
            tracing::warn!(
                reason,
                "the store of limits is away; limits are decided without it"
            );
            self.down.notify_one();
        }
        Err(Away)
    }

    /// Keeps the connection for as long as the process lives.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        metrics::gauge!("postern_limit_store_up").set(0.0);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.connect_again_and_again() => {}
        }
    }

    async fn connect_again_and_again(&self) {
        let mut told = false;
        loop {
            match timeout(CONNECT, self.servers.connect()).await {
                Ok(Ok(connection)) => {
                    told = false;
                    self.serve(connection).await;
                }
                failed => {
                    let error = failed.map_or("no answer in time".into(), |failed| {
                        failed
                            .err()
                            .map(|error| error.to_string())
                            .unwrap_or_default()
                    });
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error, "the store of limits cannot be reached");
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Says up for as long as the connection answers.
    async fn serve(&self, connection: Connection) {
        while matches!(timeout(PROBE, connection.ping()).await, Ok(Ok(()))) {
            if !self.is_up() {
                self.up.store(Some(Arc::new(connection.clone())));
                metrics::gauge!("postern_limit_store_up").set(1.0);
                tracing::info!("the store of limits answers");
            }
            // Told of trouble, it asks at once whether it has passed.
            let _ = timeout(PULSE, self.down.notified()).await;
        }
        if self.up.swap(None).is_some() {
            metrics::gauge!("postern_limit_store_up").set(0.0);
            tracing::warn!("the store of limits does not answer; connecting anew");
        }
    }
}
