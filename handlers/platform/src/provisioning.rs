//! From a committed wish to something that exists: the outbox, worked off.
//!
//! A workspace's row and its outbox entries are committed together; the handler
//! that wrote them starts at once, and every handler looks again each second, so
//! whatever a crash left is taken up by whoever comes first. Steps can be repeated.
//! A capability that has no backend here waits in the outbox for a handler that
//! has one; the workspace turns active without it.

mod postgres;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use postern_contract::{TenantId, WorkspaceId};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use postgres::PostgresBackend;

use crate::store::outbox::{self, Entry, Step};

/// What a step may fail with; it is logged and the step repeated.
pub type BackendError = Box<dyn Error + Send + Sync>;

/// Whose place is made.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The workspace.
    pub workspace: WorkspaceId,
    /// Its tenant.
    pub tenant: TenantId,
}

/// A system that holds workspaces' data. Each step can be repeated.
pub trait Backend: Send + Sync {
    /// The capability it gives.
    fn capability(&self) -> &'static str;
    /// Makes what a workspace needs.
    fn provision(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Destroys it with all data.
    fn purge(&self, place: Place) -> BoxFuture<'_, Result<(), BackendError>>;
    /// Whether it answers.
    fn probe(&self) -> BoxFuture<'_, Result<(), BackendError>>;
}

/// Works the outbox off.
pub struct Provisioning {
    pool: PgPool,
    backends: Vec<Arc<dyn Backend>>,
    capabilities: Vec<String>,
    woken: Notify,
}

/// How often the outbox is looked at without being told to.
const LOOK: Duration = Duration::from_secs(1);
/// A step that takes longer failed.
const STEP: Duration = Duration::from_secs(30);
/// The longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(300);

impl Provisioning {
    /// Works off what these backends can do.
    #[must_use]
    pub fn new(pool: PgPool, backends: Vec<Arc<dyn Backend>>) -> Self {
        let capabilities = backends
            .iter()
            .map(|backend| backend.capability().to_owned())
            .collect();
        Self {
            pool,
            backends,
            capabilities,
            woken: Notify::new(),
        }
    }

    /// Whether a capability has a backend here.
    pub(crate) fn backs(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|backed| backed == capability)
    }

    /// The capabilities that have one.
    pub(crate) fn capabilities(&self) -> &[String] {
        &self.capabilities
    }

    pub(crate) fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Works until `stop`. A step under way is left to the next handler.
    pub async fn run(&self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                match self.step().await {
                    Ok(true) => {}
                    Ok(false) => drop(tokio::time::timeout(LOOK, self.woken.notified()).await),
                    Err(error) => {
                        tracing::warn!(%error, "the outbox cannot be worked off");
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        })
        .await;
    }

    /// Does the next due step, if there is one.
    async fn step(&self) -> Result<bool, sqlx::Error> {
        let Some((mut transaction, entry)) = outbox::take(&self.pool, &self.capabilities).await?
        else {
            return Ok(false);
        };
        let done = tokio::time::timeout(STEP, self.carry_out(&entry)).await;
        match done.unwrap_or_else(|_| Err("took too long".into())) {
            Ok(()) if entry.step == Step::Purge => outbox::purged(&mut transaction, &entry).await?,
            Ok(()) if entry.deactivated => outbox::skipped(&mut transaction, &entry).await?,
            Ok(()) => outbox::provisioned(&mut transaction, &entry, &self.capabilities).await?,
            Err(error) => {
                let workspace = entry.workspace_id.as_str();
                tracing::warn!(%error, workspace, capability = entry.capability, attempts = entry.attempts, "a step failed");
                metrics::counter!("postern_outbox_failures_total", "capability" => entry.capability.clone()).increment(1);
                outbox::failed(
                    &mut transaction,
                    &entry,
                    pause(entry.attempts),
                    &error.to_string(),
                )
                .await?;
            }
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn carry_out(&self, entry: &Entry) -> Result<(), BackendError> {
        let place = Place {
            workspace: entry.workspace_id.parse()?,
            tenant: entry.tenant_id.parse()?,
        };
        let backend = self
            .backends
            .iter()
            .find(|backend| backend.capability() == entry.capability);
        let backend = backend.ok_or("no backend")?;
        match entry.step {
            Step::Purge => backend.purge(place).await,
            Step::Provision if entry.deactivated => Ok(()),
            Step::Provision => backend.provision(place).await,
        }
    }

    /// Overdue steps and the pool's connections, for the metrics.
    pub(crate) async fn measure(&self) -> Result<(), sqlx::Error> {
        let overdue = outbox::overdue(&self.pool, &self.capabilities).await?;
        let overdue = u32::try_from(overdue).unwrap_or(u32::MAX);
        metrics::gauge!("postern_outbox_overdue").set(f64::from(overdue));
        metrics::gauge!("postern_database_connections").set(f64::from(self.pool.size()));
        Ok(())
    }
}

/// 1 s, 2 s, 4 s … 5 min.
pub(crate) fn pause(attempts: i32) -> Duration {
    let doubled = 1_u64
        .checked_shl(u32::try_from(attempts).unwrap_or(u32::MAX))
        .unwrap_or(u64::MAX);
    Duration::from_secs(doubled).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(
            [0, 1, 3].map(|attempts| pause(attempts).as_secs()),
            [1, 2, 8]
        );
        assert_eq!([9, 63, 64, i32::MAX].map(pause), [MAX_PAUSE; 4]);
    }
}
