//! What data families ask the control plane: a tenant's quotas, and where their use is written.

use futures::FutureExt;
use futures::future::BoxFuture;
use postern_common::Failure;
use postern_contract::TenantId;
use sqlx::PgPool;

/// Plans and their use, in the control-plane database.
pub(crate) struct ControlPlane(pub(crate) PgPool);

impl ControlPlane {
    async fn limit(&self, tenant: TenantId, of_plan: &'static str) -> Result<Option<i64>, Failure> {
        let found: Option<(Option<i64>,)> = sqlx::query_as(of_plan)
            .bind(tenant.to_string())
            .fetch_optional(&self.0)
            .await?;
        // A tenant that the runner knew a moment ago and that is gone has room for nothing.
        Ok(found.map_or(Some(0), |(limit,)| limit))
    }

    async fn write(&self, tenant: TenantId, quota: &'static str, used: i64) {
        let written = sqlx::query(
            "INSERT INTO postern.usage (tenant_id, quota, used) SELECT id, $3, $2 FROM postern.tenant
             WHERE id = $1 ON CONFLICT (tenant_id, quota, period) DO UPDATE SET used = excluded.used",
        )
        .bind(tenant.to_string())
        .bind(used)
        .bind(quota)
        .execute(&self.0)
        .await;
        if let Err(error) = written {
            tracing::warn!(%error, %tenant, quota, "the use of a quota was not written");
        }
    }
}

impl postern_postgres::Quotas for ControlPlane {
    fn tables(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        self.limit(
            tenant,
            "SELECT p.tables FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
        )
        .boxed()
    }

    fn used(&self, tenant: TenantId, tables: i64) -> BoxFuture<'_, ()> {
        self.write(tenant, "tables", tables).boxed()
    }
}

impl postern_mongo::Quotas for ControlPlane {
    fn collections(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        self.limit(
            tenant,
            "SELECT p.collections FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
        )
        .boxed()
    }

    fn used(&self, tenant: TenantId, collections: i64) -> BoxFuture<'_, ()> {
        self.write(tenant, "collections", collections).boxed()
    }
}
