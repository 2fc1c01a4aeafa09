//! What a tenant uses of its plan's quotas.

use std::collections::HashMap;

use postern_common::Scope;
use postern_contract::TenantId;
use serde::Serialize;
use sqlx::PgConnection;

use crate::model::Plan;

/// One quota.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Quota {
    pub(crate) quota: &'static str,
    pub(crate) used: i64,
    /// `None`: no limit.
    pub(crate) limit: Option<i64>,
}

/// Each quota of the plan with what the tenant uses. Workspaces are counted here;
/// the rest is what the families have written.
pub(crate) async fn of(
    scope: &Scope,
    db: &mut PgConnection,
    tenant: TenantId,
    plan: &Plan,
) -> Result<Vec<Quota>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT 'workspaces', count(*) FROM postern.workspace
         WHERE tenant_id = $1 AND ($2::text IS NULL OR tenant_id = $2) AND status <> 'deactivated'
         UNION ALL
         SELECT quota, used FROM postern.usage
         WHERE tenant_id = $1 AND ($2::text IS NULL OR tenant_id = $2)
           AND period = CASE quota WHEN 'callsPerMonth'
                        THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date ELSE 'epoch' END",
    )
    .bind(tenant.to_string())
    .bind(scope.tenant_filter())
    .fetch_all(db)
    .await?;
    let used: HashMap<String, i64> = rows.into_iter().collect();
    let quota = |(quota, limit)| Quota {
        quota,
        used: used.get(quota).copied().unwrap_or_default(),
        limit,
    };
    Ok(plan.quotas().map(quota).into())
}
