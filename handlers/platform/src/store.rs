//! The control-plane database, a module a resource.
//!
//! Whatever acts for a caller takes the caller's [`Scope`](postern_common::Scope)
//! first and sees nothing beyond it. [`calls`], [`outbox`], [`directory`], [`realms`]
//! and [`revocations`] serve no caller.

pub(crate) mod audit;
pub(crate) mod calls;
pub(crate) mod directory;
pub(crate) mod outbox;
pub(crate) mod plans;
pub(crate) mod realms;
pub(crate) mod revocations;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod workspaces;

use sqlx::PgPool;
use sqlx::migrate::MigrateError;

/// Brings the control plane's schemas up to date: its own, the records', the claims'.
/// Processes that start together wait for each other (advisory lock).
///
/// # Errors
/// When the database refuses or a migration was changed after it ran.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = sqlx::migrate!();
    migrator.create_schema("postern");
    migrator.dangerous_set_table_name("postern.migration");
    migrator.run(pool).await?;
    postern_common::idempotency::migrate(pool).await?;
    let mut alone = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('postern_claims.schema', 0))")
        .execute(&mut *alone)
        .await?;
    sqlx::raw_sql(postern_claims::SCHEMA)
        .execute(&mut *alone)
        .await?;
    alone.commit().await?;
    Ok(())
}
