//! What data families ask the control plane: a tenant's quotas, and where their use is written.

use futures::FutureExt;
use futures::future::BoxFuture;
use postern_common::Failure;
use postern_contract::{TenantId, WorkspaceId};
use postern_mongo::Reservation;
use sqlx::{PgExecutor, PgPool, PgTransaction};

/// Plans and their use, in the control-plane database.
pub(crate) struct ControlPlane(pub(crate) PgPool);

/// What the plan of a tenant allows; none: no limit.
async fn limit(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    of_plan: &'static str,
) -> Result<Option<i64>, Failure> {
    let found: Option<(Option<i64>,)> = sqlx::query_as(of_plan)
        .bind(tenant.to_string())
        .fetch_optional(db)
        .await?;
    // A tenant that the runner knew a moment ago and that is gone has room for nothing.
    Ok(found.map_or(Some(0), |(limit,)| limit))
}

async fn write(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    quota: &'static str,
    used: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO postern.usage (tenant_id, quota, used) SELECT id, $3, $2 FROM postern.tenant
         WHERE id = $1 ON CONFLICT (tenant_id, quota, period) DO UPDATE SET used = excluded.used",
    )
    .bind(tenant.to_string())
    .bind(used)
    .bind(quota)
    .execute(db)
    .await?;
    Ok(())
}

fn unwritten(error: &sqlx::Error, tenant: TenantId, quota: &'static str) {
    tracing::warn!(%error, %tenant, quota, "the use of a quota was not written");
}

impl postern_postgres::Quotas for ControlPlane {
    fn tables(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        limit(
            &self.0,
            tenant,
            "SELECT p.tables FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
        )
        .boxed()
    }

    fn used(&self, tenant: TenantId, tables: i64) -> BoxFuture<'_, ()> {
        async move {
            if let Err(error) = write(&self.0, tenant, "tables", tables).await {
                unwritten(&error, tenant, "tables");
            }
        }
        .boxed()
    }
}

impl postern_mongo::Quotas for ControlPlane {
    fn reserve(&self, tenant: TenantId) -> BoxFuture<'_, Result<Box<dyn Reservation>, Failure>> {
        async move {
            let mut transaction = self.0.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('postern.collections ' || $1, 0))")
                .bind(tenant.to_string())
                .execute(&mut *transaction)
                .await?;
            let limit = limit(
                &mut *transaction,
                tenant,
                "SELECT p.collections FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
            )
            .await?;
            let reserved = Collections {
                transaction,
                tenant,
                limit,
            };
            Ok(Box::new(reserved) as Box<dyn Reservation>)
        }
        .boxed()
    }

    fn closed<'a>(
        &'a self,
        workspaces: &'a [WorkspaceId],
    ) -> BoxFuture<'a, Result<Vec<WorkspaceId>, Failure>> {
        async move {
            let ids: Vec<String> = workspaces.iter().map(WorkspaceId::to_string).collect();
            let open: Vec<(String,)> = sqlx::query_as(
                "SELECT w.id FROM postern.workspace w JOIN postern.tenant t ON t.id = w.tenant_id
                 WHERE w.id = ANY ($1) AND w.status NOT IN ('suspended', 'deactivated')
                   AND t.status NOT IN ('suspended', 'deactivated')",
            )
            .bind(&ids)
            .fetch_all(&self.0)
            .await?;
            let is_open = |id: &WorkspaceId| open.iter().any(|(open,)| *open == id.to_string());
            let closed = workspaces.iter().filter(|id| !is_open(id));
            Ok(closed.copied().collect())
        }
        .boxed()
    }
}

/// A tenant's collections, locked with the transaction.
struct Collections {
    transaction: PgTransaction<'static>,
    tenant: TenantId,
    limit: Option<i64>,
}

impl Reservation for Collections {
    fn limit(&self) -> Option<i64> {
        self.limit
    }

    fn used(mut self: Box<Self>, collections: i64) -> BoxFuture<'static, ()> {
        async move {
            let written = write(
                &mut *self.transaction,
                self.tenant,
                "collections",
                collections,
            );
            let written = match written.await {
                Ok(()) => self.transaction.commit().await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                unwritten(&error, self.tenant, "collections");
            }
        }
        .boxed()
    }
}
