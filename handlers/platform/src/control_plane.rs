//! The control plane, to the other families.

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use postern_common::control_plane::{ControlPlane, Deed, DueRealm, Revoked, Tenant, Workspace};
use postern_common::{Caller, Failure};
use postern_contract::{TenantId, WorkspaceId};
use sqlx::PgConnection;

use crate::Platform;
use crate::model::Status;
use crate::provisioning::pause;
use crate::revocation::{self, RevokeError};
use crate::store::audit::{self, Actor, Done};
use crate::store::realms::{self, Row};
use crate::store::workspaces;

impl From<Row> for Tenant {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            slug: row.slug,
            display_name: row.display_name,
            admin_email: row.admin_email,
            plan: row.plan,
            capabilities: row.capabilities,
            active: row.status == Status::Active,
            ended: row.status == Status::Deactivated,
        }
    }
}

impl ControlPlane for Platform {
    fn tenant(&self, id: TenantId) -> BoxFuture<'_, Result<Option<Tenant>, Failure>> {
        async move { Ok(realms::by_id(&self.pool, id).await?.map(Tenant::from)) }.boxed()
    }

    fn tenant_named<'a>(&'a self, slug: &'a str) -> BoxFuture<'a, Result<Option<Tenant>, Failure>> {
        async move { Ok(realms::by_slug(&self.pool, slug).await?.map(Tenant::from)) }.boxed()
    }

    fn workspace(
        &self,
        tenant: TenantId,
        id: WorkspaceId,
    ) -> BoxFuture<'_, Result<Option<Workspace>, Failure>> {
        async move {
            let status = workspaces::status(&self.pool, tenant, id).await?;
            Ok(status.map(|status| Workspace {
                ended: status == Status::Deactivated,
            }))
        }
        .boxed()
    }

    fn done<'t>(
        &'t self,
        db: &'t mut PgConnection,
        caller: &'t Caller,
        deed: Deed,
    ) -> BoxFuture<'t, Result<(), Failure>> {
        async move {
            let Deed {
                action,
                tenant,
                changes,
            } = deed;
            let done = Done::to_tenant(action, tenant, changes);
            audit::done(&caller.scope()?, db, &Actor::from(caller), done).await?;
            Ok(())
        }
        .boxed()
    }

    fn revoke<'a>(
        &'a self,
        issuer: &'a str,
        revoked: Revoked<'a>,
        until: Timestamp,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        let revoked = match revoked {
            Revoked::Token(jti) => revocation::Revoked::Token(jti),
            Revoked::Session(sid) => revocation::Revoked::Session(sid),
        };
        async move {
            match revocation::revoke(&self.pool, issuer, revoked, until).await {
                Ok(()) => Ok(()),
                Err(RevokeError::Database(error)) => Err(error.into()),
                // No runner takes a token with such a claim.
                Err(error @ RevokeError::Length(..)) => Err(Failure::internal(error)),
            }
        }
        .boxed()
    }

    fn next_realm(&self) -> BoxFuture<'_, Result<Option<DueRealm>, Failure>> {
        async move {
            let due = realms::take(&self.pool).await?;
            Ok(due.map(|(transaction, due)| DueRealm {
                tenant: due.tenant.into(),
                attempts: due.attempts,
                transaction,
            }))
        }
        .boxed()
    }

    fn realm_tried(
        &self,
        due: DueRealm,
        failed: Option<String>,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let DueRealm {
                tenant,
                attempts,
                mut transaction,
            } = due;
            match failed {
                None => realms::done(&mut transaction, tenant.id).await?,
                Some(error) => {
                    realms::failed(&mut transaction, tenant.id, pause(attempts), &error).await?;
                }
            }
            transaction.commit().await?;
            Ok(())
        }
        .boxed()
    }
}
