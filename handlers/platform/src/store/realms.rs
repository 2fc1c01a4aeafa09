//! Tenants as the identity families need them, and the queue of realms that are due.

use std::time::Duration;

use postern_contract::TenantId;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool, PgTransaction};

use crate::model::Status;

/// A tenant with what its plan includes.
#[derive(Debug, FromRow)]
pub(crate) struct Row {
    #[sqlx(try_from = "String")]
    pub(crate) id: TenantId,
    pub(crate) slug: String,
    pub(crate) display_name: String,
    pub(crate) admin_email: String,
    pub(crate) plan: String,
    pub(crate) capabilities: Vec<String>,
    pub(crate) status: Status,
}

/// A realm that is due.
#[derive(Debug, FromRow)]
pub(crate) struct Due {
    #[sqlx(flatten)]
    pub(crate) tenant: Row,
    pub(crate) attempts: i32,
}

pub(crate) async fn by_id(
    db: impl PgExecutor<'_>,
    id: TenantId,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.*, p.capabilities FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan
         WHERE t.id = $1",
    )
    .bind(id.to_string())
    .fetch_optional(db)
    .await
}

pub(crate) async fn by_slug(
    db: impl PgExecutor<'_>,
    slug: &str,
) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT t.*, p.capabilities FROM postern.tenant t JOIN postern.plan p ON p.id = t.plan
         WHERE t.slug = $1",
    )
    .bind(slug)
    .fetch_optional(db)
    .await
}

/// Takes the next one; others skip it while the transaction lasts. The tenant is read
/// after the row is locked, so it is not older than what made the realm due.
pub(crate) async fn take(
    pool: &PgPool,
) -> Result<Option<(PgTransaction<'static>, Due)>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let due: Option<(String,)> = sqlx::query_as(
        "SELECT tenant_id FROM postern.realm WHERE due_at <= now()
         ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED",
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((id,)) = due else { return Ok(None) };
    let due = sqlx::query_as(
        "SELECT t.*, p.capabilities, r.attempts
         FROM postern.realm r JOIN postern.tenant t ON t.id = r.tenant_id JOIN postern.plan p ON p.id = t.plan
         WHERE r.tenant_id = $1",
    )
    .bind(id)
    .fetch_one(&mut *transaction)
    .await?;
    Ok(Some((transaction, due)))
}

/// The realm is as the tenant is.
pub(crate) async fn done(db: &mut PgConnection, id: TenantId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE postern.realm SET due_at = NULL, attempts = 0, last_error = NULL WHERE tenant_id = $1",
    )
    .bind(id.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Again after `pause`.
pub(crate) async fn failed(
    db: &mut PgConnection,
    id: TenantId,
    pause: Duration,
    error: &str,
) -> Result<(), sqlx::Error> {
    let shown: String = error.chars().filter(|c| *c != '\0').take(500).collect();
    sqlx::query(
        "UPDATE postern.realm SET attempts = attempts + 1, last_error = $3,
             due_at = now() + make_interval(secs => $2) WHERE tenant_id = $1",
    )
    .bind(id.to_string())
    .bind(pause.as_secs_f64())
    .bind(shown)
    .execute(db)
    .await?;
    Ok(())
}
