//! Whether the pooler before the control-plane database keeps prepared statements: every
//! statement there is one, and without them requests fail whenever the pooler hands another
//! connection out.

use std::time::Duration;

use anyhow::{Result, bail};
use postern_common::failure::sqlstate;
use sqlx::{Connection as _, PgPool};

/// One on a quiet pooler is enough; on a busy one another client may be in between.
const TRIES: u32 = 3;

/// Runs a statement again after another client has taken the server's connection that
/// knows it.
pub(crate) async fn check(pool: &PgPool, patience: Duration) -> Result<()> {
    for _ in 0..TRIES {
        let (mut one, mut other) = (pool.acquire().await?, pool.acquire().await?);
        keeps(sqlx::query("SELECT 1").execute(&mut *one).await)?;
        let mut held = other.begin().await?;
        // It is the pooler that takes a connection, and not before a statement comes.
        sqlx::raw_sql("SELECT 1").execute(&mut *held).await?;
        let again = sqlx::query("SELECT 1").execute(&mut *one);
        let again = tokio::time::timeout(patience, again).await;
        held.rollback().await?;
        match again {
            Ok(again) => keeps(again)?,
            // The pooler has a single connection: there is none to lose the statement to.
            Err(_) => {
                drop(one.detach());
                break;
            }
        }
    }
    Ok(())
}

/// What the statement's outcome says of the pooler. The first one may fail, too: its name is
/// taken by what a process before this one has left.
fn keeps<T>(outcome: Result<T, sqlx::Error>) -> Result<()> {
    match outcome {
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("26000" | "42P05")) => {
            bail!(
                "the pooler keeps no prepared statements: it has to be PgBouncer 1.21 or newer with \
                 max_prepared_statements above 0, or database.url has to lead past it"
            )
        }
        other => Ok(other.map(drop)?),
    }
}
