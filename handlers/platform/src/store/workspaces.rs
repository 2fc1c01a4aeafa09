//! Workspaces.

use postern_common::failure::constraint;
use postern_common::page::Page;
use postern_common::{Failure, Scope};
use postern_contract::{Code, TenantId, WorkspaceId};
use sqlx::{PgConnection, PgExecutor};

use crate::model::{Status, Workspace};

/// What a new workspace is made from.
#[derive(Debug)]
pub(crate) struct NewWorkspace {
    pub(crate) tenant: TenantId,
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) capabilities: Vec<String>,
    /// `active` where nothing has to be provisioned.
    pub(crate) status: Status,
}

/// Which workspaces a list holds.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) status: Option<Status>,
}

/// Every column of the resource; what is pending is computed.
macro_rules! columns {
    () => {
        "id, tenant_id, slug, display_name, status, capabilities, created_at, updated_at, deactivated_at, purge_after, \
         version, ARRAY(SELECT c FROM unnest(capabilities) c WHERE NOT c = ANY (provisioned)) AS pending_capabilities"
    };
}

pub(crate) async fn insert(
    scope: &Scope,
    db: &mut PgConnection,
    id: WorkspaceId,
    new: &NewWorkspace,
) -> Result<Workspace, Failure> {
    if !scope.reaches(new.tenant) {
        return Err(Failure::internal("a workspace outside the caller's scope"));
    }
    sqlx::query_as(concat!(
        "INSERT INTO postern.workspace (id, tenant_id, slug, display_name, status, capabilities)
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING ",
        columns!()
    ))
    .bind(id.to_string())
    .bind(new.tenant.to_string())
    .bind(&new.slug)
    .bind(&new.display_name)
    .bind(new.status.as_str())
    .bind(&new.capabilities)
    .fetch_one(db)
    .await
    .map_err(|error| match constraint(&error) {
        Some("workspace_slug") => Failure::new(
            Code::WorkspaceSlugTaken,
            format!("the slug {} is taken in this tenant", new.slug),
        ),
        _ => error.into(),
    })
}

pub(crate) async fn list(
    scope: &Scope,
    db: impl PgExecutor<'_>,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<Workspace>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM postern.workspace
         WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR id = $2)
           AND ($3::text IS NULL OR tenant_id = $3) AND ($4::text IS NULL OR status = $4)
           AND ($5::text IS NULL OR id > $5)
         ORDER BY id LIMIT $6"
    ))
    .bind(scope.tenant_filter())
    .bind(scope.workspace_filter())
    .bind(filter.tenant.map(|id| id.to_string()))
    .bind(filter.status.map(Status::as_str))
    .bind(&page.after)
    .bind(page.fetch())
    .fetch_all(db)
    .await
}

pub(crate) async fn get(
    scope: &Scope,
    db: impl PgExecutor<'_>,
    id: WorkspaceId,
) -> Result<Option<Workspace>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM postern.workspace
         WHERE id = $3 AND ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR id = $2)"
    ))
    .bind(scope.tenant_filter())
    .bind(scope.workspace_filter())
    .bind(id.to_string())
    .fetch_optional(db)
    .await
}

/// The status of a workspace of this tenant.
pub(crate) async fn status(
    db: impl PgExecutor<'_>,
    tenant: TenantId,
    id: WorkspaceId,
) -> Result<Option<Status>, sqlx::Error> {
    sqlx::query_scalar("SELECT status FROM postern.workspace WHERE tenant_id = $1 AND id = $2")
        .bind(tenant.to_string())
        .bind(id.to_string())
        .fetch_optional(db)
        .await
}

/// As [`get`], and nobody else changes it before the transaction ends.
pub(crate) async fn lock(
    scope: &Scope,
    db: &mut PgConnection,
    id: WorkspaceId,
) -> Result<Option<Workspace>, sqlx::Error> {
    sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM postern.workspace
         WHERE id = $3 AND ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR id = $2) FOR UPDATE"
    ))
    .bind(scope.tenant_filter())
    .bind(scope.workspace_filter())
    .bind(id.to_string())
    .fetch_optional(db)
    .await
}

/// Writes the changeable fields of a locked workspace.
pub(crate) async fn update(
    scope: &Scope,
    db: &mut PgConnection,
    workspace: &Workspace,
) -> Result<Workspace, sqlx::Error> {
    if !scope.reaches(workspace.tenant_id) {
        return Err(sqlx::Error::RowNotFound);
    }
    sqlx::query_as(concat!(
        "UPDATE postern.workspace
         SET display_name = $2, status = $3, capabilities = $4, version = version + 1, updated_at = now()
         WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(workspace.id.to_string())
    .bind(&workspace.display_name)
    .bind(workspace.status.as_str())
    .bind(&workspace.capabilities)
    .fetch_one(db)
    .await
}

/// Which workspaces end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    One(WorkspaceId),
    AllOf(TenantId),
}

/// Deactivates workspaces, and puts their purge into the outbox at the date that
/// the row then shows.
pub(crate) async fn deactivate(
    scope: &Scope,
    db: &mut PgConnection,
    ending: Ending,
    purge_after_days: i32,
) -> Result<(), sqlx::Error> {
    let (one, all_of) = match ending {
        Ending::One(id) => (Some(id.to_string()), None),
        Ending::AllOf(tenant) => (None, Some(tenant.to_string())),
    };
    sqlx::query(
        "WITH ended AS (
            UPDATE postern.workspace
            SET status = 'deactivated', version = version + 1, updated_at = now(), deactivated_at = now(),
                purge_after = now() + make_interval(days => $5)
            WHERE status <> 'deactivated' AND (id = $3 OR tenant_id = $4)
              AND ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR id = $2)
            RETURNING id, provisioned, purge_after)
         INSERT INTO postern.outbox (workspace_id, capability, step, due_at)
         SELECT id, unnest(provisioned), 'purge', purge_after FROM ended",
    )
    .bind(scope.tenant_filter())
    .bind(scope.workspace_filter())
    .bind(one)
    .bind(all_of)
    .bind(purge_after_days)
    .execute(db)
    .await?;
    Ok(())
}
