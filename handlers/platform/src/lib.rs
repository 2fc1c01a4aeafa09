//! The control plane: platform, tenants and workspaces, and what hangs on them.
//!
//! | module | is |
//! |---|---|
//! | `info`, [`openapi`] | the platform's own routes |
//! | `tenants`, `workspaces`, `audit` | the resources, a function a route |
//! | `store` | their rows, a module a resource |
//! | [`provisioning`] | the outbox, worked off in the backends |
//! | `control_plane` | what other families ask |
//! | [`directory`] | what runners ask and watch |
//! | [`revocation`] | tokens that are refused although they are otherwise valid |

mod audit;
mod control_plane;
pub mod directory;
mod info;
mod metadata;
mod model;
pub mod openapi;
pub mod provisioning;
pub mod revocation;
mod store;
mod tenants;
mod workspaces;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use postern_common::fields::kind;
use postern_common::idempotency::{Ledger, Work};
use postern_common::page::CursorKeys;
use postern_common::{Call, Caller, Failure, Reply, Router};
use postern_contract::{Code, Family};
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use info::Probe;
pub use store::migrate;

use model::Status;
use provisioning::Provisioning;

/// The families that this crate serves.
pub const FAMILIES: [Family; 3] = [Family::Platform, Family::Tenants, Family::Workspaces];

/// What the deployment tells of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Supported dates, newest last.
    pub api_versions: Vec<String>,
    /// Families that are on, in this process or another.
    pub families: Vec<Family>,
    /// What families say of their bodies, as [`openapi::SCHEMAS`] does.
    pub schemas: Vec<&'static str>,
}

/// The state behind the routes.
pub struct Platform {
    pool: PgPool,
    ledger: Arc<Ledger>,
    cursors: CursorKeys,
    provisioning: Arc<Provisioning>,
    purge_after_days: i32,
    about: About,
    probes: OnceLock<Vec<(&'static str, Probe)>>,
    health: info::LastHealth,
}

impl Platform {
    /// The control plane in this database. Data of deactivated workspaces is kept
    /// for `purge_after_days`.
    #[must_use]
    pub fn new(
        pool: PgPool,
        ledger: Arc<Ledger>,
        cursors: CursorKeys,
        provisioning: Arc<Provisioning>,
        purge_after_days: i32,
        about: About,
    ) -> Self {
        Self {
            pool,
            ledger,
            cursors,
            provisioning,
            purge_after_days,
            about,
            probes: OnceLock::new(),
            health: info::LastHealth::default(),
        }
    }

    /// Stores beside those of capabilities that the health route asks too, by name. They
    /// are set once: some are made after this value.
    pub fn ask_too(&self, probes: Vec<(&'static str, Probe)>) {
        drop(self.probes.set(probes));
    }

    /// Every route of the families, on one screen.
    #[must_use]
    pub fn router(self: &Arc<Self>) -> Router {
        Router::default()
            .route("health", self, info::alive)
            .route("platform.health", self, info::health)
            .route("platform.info", self, info::info)
            .route("platform.openapi", self, info::openapi)
            .route("platform.audit", self, audit::of_platform)
            .route("tenants.create", self, tenants::create)
            .route("tenants.list", self, tenants::list)
            .route("tenants.get", self, tenants::get)
            .route("tenants.update", self, tenants::update)
            .route("tenants.delete", self, tenants::delete)
            .route("tenants.audit", self, tenants::audit)
            .route("tenants.usage", self, tenants::usage)
            .route("workspaces.create", self, workspaces::create)
            .route("workspaces.list", self, workspaces::list)
            .route("workspaces.get", self, workspaces::get)
            .route("workspaces.update", self, workspaces::update)
            .route("workspaces.delete", self, workspaces::delete)
    }

    /// Carries out a mutation at most once a key, in a task that outlives the client.
    async fn mutate(&self, call: &Call, body: &[u8], work: impl Work) -> Result<Reply, Failure> {
        self.ledger
            .run(call.keyed(body)?, call.caller.correlation_id(), work)
            .await
    }

    /// Removes what is old and measures what is left, `every` so often, until `stop`.
    /// Events of the audit trail are old after `audit_days`.
    pub async fn sweep(&self, every: Duration, audit_days: u16, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(every))
            .await
            .is_some()
        {
            let swept = async {
                self.ledger.sweep().await?;
                store::directory::forget(&self.pool).await?;
                store::revocations::forget(&self.pool).await?;
                store::calls::forget(&self.pool).await?;
                store::outbox::forget(&self.pool).await?;
                store::audit::forget(&self.pool, audit_days).await?;
                self.provisioning.measure().await
            };
            if let Err(error) = swept.await {
                tracing::warn!(%error, "nothing was swept");
            }
        }
    }
}

/// A status in a body.
fn read_status(value: Value) -> Result<Status, String> {
    match value {
        Value::String(text) => Status::read(&text),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

/// Whether a PATCH may change a resource in this status into that one.
fn may_move(what: &str, old: Status, new: Status) -> Result<(), Failure> {
    if old == Status::Deactivated {
        let message = format!("the {what} is deactivated and stays as it is");
        return Err(Failure::new(Code::InvalidStatusTransition, message));
    }
    if old == new || old.next().contains(&new) {
        return Ok(());
    }
    let next: Vec<_> = old.next().iter().map(|status| status.as_str()).collect();
    let next = if next.is_empty() {
        "nowhere yet".into()
    } else {
        format!("to {}", next.join(" or "))
    };
    let message = format!(
        "the {what} is {} and can go {next}, not to {}",
        old.as_str(),
        new.as_str()
    );
    Err(Failure::new(Code::InvalidStatusTransition, message))
}

/// A token that is pinned to one workspace does nothing beyond it.
fn refuse_pinned(caller: &Caller, what: &str) -> Result<(), Failure> {
    match caller.pinned() {
        None => Ok(()),
        Some(workspace) => Err(Failure::new(
            Code::PermissionDenied,
            format!("{what} is not open to a token that is pinned to {workspace}"),
        )),
    }
}
