//! What families ask of the control plane, which the platform family answers.

use futures::future::BoxFuture;
use jiff::Timestamp;
use postern_contract::{TenantId, WorkspaceId};
use serde_json::Value;
use sqlx::{PgConnection, PgTransaction};

use crate::{Caller, Failure};

/// A tenant, as other families see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its slug, for good.
    pub slug: String,
    /// What people call it.
    pub display_name: String,
    /// Who runs it first.
    pub admin_email: String,
    /// The plan's name.
    pub plan: String,
    /// What the plan includes.
    pub capabilities: Vec<String>,
    /// Whether its status is `active`.
    pub active: bool,
    /// Whether it is `deactivated`, for good.
    pub ended: bool,
}

/// A workspace, as other families see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Whether it is `deactivated`, for good.
    pub ended: bool,
}

/// Something done for a caller, for the audit trail.
#[derive(Clone, Debug)]
pub struct Deed {
    /// The route's id.
    pub action: &'static str,
    /// Whose it is.
    pub tenant: TenantId,
    /// What changed, without secrets.
    pub changes: Value,
}

/// Which tokens of an issuer are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked<'r> {
    /// The one with this `jti`.
    Token(&'r str),
    /// All of this session (`sid`).
    Session(&'r str),
}

/// A tenant whose realm is not as it has to be, and the transaction that keeps others
/// from seeing to it.
pub struct DueRealm {
    /// Whose.
    pub tenant: Tenant,
    /// Earlier tries that failed.
    pub attempts: i32,
    /// Holds the tenant's place in the queue; committed by [`ControlPlane::realm_tried`].
    pub transaction: PgTransaction<'static>,
}

/// The control plane, to other families.
pub trait ControlPlane: Send + Sync {
    /// A tenant by its id.
    fn tenant(&self, id: TenantId) -> BoxFuture<'_, Result<Option<Tenant>, Failure>>;

    /// A tenant by its slug.
    fn tenant_named<'a>(&'a self, slug: &'a str) -> BoxFuture<'a, Result<Option<Tenant>, Failure>>;

    /// A workspace of this tenant.
    fn workspace(
        &self,
        tenant: TenantId,
        id: WorkspaceId,
    ) -> BoxFuture<'_, Result<Option<Workspace>, Failure>>;

    /// Writes to the audit trail, in the transaction of the deed.
    fn done<'t>(
        &'t self,
        db: &'t mut PgConnection,
        caller: &'t Caller,
        deed: Deed,
    ) -> BoxFuture<'t, Result<(), Failure>>;

    /// Refuses tokens of `issuer` from now on, everywhere. `until`: when the last one
    /// that is meant expires.
    fn revoke<'a>(
        &'a self,
        issuer: &'a str,
        revoked: Revoked<'a>,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<(), Failure>>;

    /// The next tenant whose realm has to be made, or to follow a change of the tenant.
    fn next_realm(&self) -> BoxFuture<'_, Result<Option<DueRealm>, Failure>>;

    /// The realm is as the tenant is, or why not; then it is due again after a pause.
    fn realm_tried(
        &self,
        due: DueRealm,
        failed: Option<String>,
    ) -> BoxFuture<'_, Result<(), Failure>>;
}
