//! What the postgres family asks the control plane: a tenant's quota of tables.

use futures::FutureExt;
use futures::future::BoxFuture;
use postern_common::Failure;
use postern_contract::TenantId;
use postern_postgres::Quotas;
use sqlx::PgPool;

/// Plans and their use, in the control-plane database.
pub(crate) struct ControlPlane(pub(crate) PgPool);

impl Quotas for ControlPlane {
    fn tables(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        async move {
            let found: Option<(Option<i64>,)> = sqlx::query_as(
                "SELECT p.tables FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
            )
            .bind(tenant.to_string())
            .fetch_optional(&self.0)
            .await?;
            // A tenant that the runner knew a moment ago and that is gone has room for nothing.
            Ok(found.map_or(Some(0), |(limit,)| limit))
        }
        .boxed()
    }

    fn used(&self, tenant: TenantId, tables: i64) -> BoxFuture<'_, ()> {
        async move {
            let written = sqlx::query(
                "INSERT INTO postern.usage (tenant_id, quota, used) SELECT id, 'tables', $2 FROM postern.tenant
                 WHERE id = $1 ON CONFLICT (tenant_id, quota, period) DO UPDATE SET used = excluded.used",
            )
            .bind(tenant.to_string())
            .bind(tables)
            .execute(&self.0)
            .await;
            if let Err(error) = written {
                tracing::warn!(%error, %tenant, "the use of tables was not written");
            }
        }
        .boxed()
    }
}
