//! What runners ask and watch. Every change has a revision, in the order of commits.

use sqlx::{FromRow, PgPool};

use crate::model::Status;

/// A tenant as runners see it.
#[derive(Debug, FromRow)]
pub(crate) struct TenantEntry {
    pub(crate) id: String,
    pub(crate) status: Status,
    pub(crate) plan: String,
    pub(crate) plan_capabilities: Vec<String>,
    pub(crate) slug: String,
}

/// A workspace as runners see it: with what can be used now.
#[derive(Debug, FromRow)]
pub(crate) struct WorkspaceEntry {
    pub(crate) id: String,
    pub(crate) tenant_id: String,
    pub(crate) status: Status,
    pub(crate) capabilities: Vec<String>,
}

/// One change. Without both ids: everything.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) tenant_id: Option<String>,
    pub(crate) workspace_id: Option<String>,
}

/// What has been committed so far.
#[derive(Clone, Copy, Debug, FromRow)]
pub(crate) struct Revisions {
    /// Of changes.
    #[sqlx(rename = "revision")]
    pub(crate) directory: i64,
    /// Of revoked tokens.
    pub(crate) revocation: i64,
}

pub(crate) async fn revisions(pool: &PgPool) -> Result<Revisions, sqlx::Error> {
    sqlx::query_as("SELECT revision, revocation FROM postern.directory_revision")
        .fetch_one(pool)
        .await
}

/// The revision is read first: what is read after it is at least as new.
pub(crate) async fn revision(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let (revision,) = sqlx::query_as("SELECT revision FROM postern.directory_revision")
        .fetch_one(pool)
        .await?;
    Ok(revision)
}

pub(crate) async fn tenant(pool: &PgPool, id: &str) -> Result<Option<TenantEntry>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.id, t.status, t.plan, p.capabilities AS plan_capabilities, t.slug
         FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan WHERE t.id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
}

/// `backed` are the capabilities that have a backend: theirs count once they are
/// provisioned. Without one there is nothing to wait for, and the family says that
/// it is off.
pub(crate) async fn workspace(
    pool: &PgPool,
    id: &str,
    backed: &[String],
) -> Result<Option<WorkspaceEntry>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, tenant_id, status,
                ARRAY(SELECT c FROM unnest(capabilities) c
                      WHERE c = ANY (provisioned) OR NOT c = ANY ($2)) AS capabilities
         FROM postern.workspace WHERE id = $1",
    )
    .bind(id)
    .bind(backed)
    .fetch_optional(pool)
    .await
}

/// Changes after a revision, oldest first, `limit` at most.
pub(crate) async fn changes(
    pool: &PgPool,
    after: i64,
    limit: i64,
) -> Result<Vec<Change>, sqlx::Error> {
    sqlx::query_as(
        "SELECT revision, tenant_id, workspace_id FROM postern.directory_change
         WHERE revision > $1 ORDER BY revision LIMIT $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Forgets old changes: whoever needs them is told to forget everything instead.
pub(crate) async fn forget(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "DELETE FROM postern.directory_change WHERE revision IN (
            SELECT revision FROM postern.directory_change
            WHERE at < now() - interval '1 hour' ORDER BY revision LIMIT 5000)",
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}
