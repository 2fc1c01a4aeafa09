//! Tenants.

use postern_common::failure::constraint;
use postern_common::page::Page;
use postern_common::{Failure, Scope};
use postern_contract::{Code, TenantId};
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor};

use crate::model::{Status, Tenant};

/// What a new tenant is made from.
#[derive(Debug)]
pub(crate) struct NewTenant {
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) plan: String,
    pub(crate) admin_email: String,
    pub(crate) metadata: Map<String, Value>,
}

/// Which tenants a list holds.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) status: Option<Status>,
    pub(crate) plan: Option<String>,
}

pub(crate) async fn insert(
    scope: &Scope,
    db: &mut PgConnection,
    id: TenantId,
    new: &NewTenant,
) -> Result<Tenant, Failure> {
    if !scope.reaches(id) {
        return Err(Failure::new(
            Code::PermissionDenied,
            "a tenant's token cannot make tenants",
        ));
    }
    sqlx::query_as(
        "INSERT INTO postern.tenant (id, slug, display_name, plan, status, admin_email, metadata)
         VALUES ($1, $2, $3, $4, 'active', $5, $6) RETURNING *",
    )
    .bind(id.to_string())
    .bind(&new.slug)
    .bind(&new.display_name)
    .bind(&new.plan)
    .bind(&new.admin_email)
    .bind(Json(&new.metadata))
    .fetch_one(db)
    .await
    .map_err(|error| match constraint(&error) {
        Some("tenant_slug") => Failure::new(
            Code::TenantSlugTaken,
            format!("the slug {} is taken", new.slug),
        ),
        _ => error.into(),
    })
}

pub(crate) async fn list(
    scope: &Scope,
    db: impl PgExecutor<'_>,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<Tenant>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM postern.tenant
         WHERE ($1::text IS NULL OR id = $1) AND ($2::text IS NULL OR status = $2)
           AND ($3::text IS NULL OR plan = $3) AND ($4::text IS NULL OR id > $4)
         ORDER BY id LIMIT $5",
    )
    .bind(scope.tenant_filter())
    .bind(filter.status.map(Status::as_str))
    .bind(&filter.plan)
    .bind(&page.after)
    .bind(page.fetch())
    .fetch_all(db)
    .await
}

pub(crate) async fn get(
    scope: &Scope,
    db: impl PgExecutor<'_>,
    id: TenantId,
) -> Result<Option<Tenant>, sqlx::Error> {
    if !scope.reaches(id) {
        return Ok(None);
    }
    sqlx::query_as("SELECT * FROM postern.tenant WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(db)
        .await
}

/// As [`get`], and nobody else changes it before the transaction ends.
pub(crate) async fn lock(
    scope: &Scope,
    db: &mut PgConnection,
    id: TenantId,
) -> Result<Option<Tenant>, sqlx::Error> {
    if !scope.reaches(id) {
        return Ok(None);
    }
    sqlx::query_as("SELECT * FROM postern.tenant WHERE id = $1 FOR UPDATE")
        .bind(id.to_string())
        .fetch_optional(db)
        .await
}

/// Writes the changeable fields of a locked tenant.
pub(crate) async fn update(
    scope: &Scope,
    db: &mut PgConnection,
    tenant: &Tenant,
) -> Result<Tenant, sqlx::Error> {
    if !scope.reaches(tenant.id) {
        return Err(sqlx::Error::RowNotFound);
    }
    sqlx::query_as(
        "UPDATE postern.tenant
         SET display_name = $2, plan = $3, status = $4, metadata = $5, version = version + 1, updated_at = now(),
             deactivated_at = CASE WHEN $4 = 'deactivated' THEN now() END
         WHERE id = $1 RETURNING *",
    )
    .bind(tenant.id.to_string())
    .bind(&tenant.display_name)
    .bind(&tenant.plan)
    .bind(tenant.status.as_str())
    .bind(&tenant.metadata)
    .fetch_one(db)
    .await
}
