//! The control plane's database, to count effects and to stand in its way.

use anyhow::{Context as _, Result};
use postern_harness::stack::Stack;
use sqlx::{Connection as _, PgConnection};

/// A connection of the test's own.
///
/// # Errors
/// The stack runs elsewhere, or its database does not answer.
pub async fn connect(stack: &Stack) -> Result<PgConnection> {
    PgConnection::connect(stack.database_url()?)
        .await
        .context("the test cannot reach the database")
}

/// How many rows `query` counts, given its one text.
///
/// # Errors
/// The query fails.
pub async fn count(db: &mut PgConnection, query: &'static str, text: &str) -> Result<i64> {
    sqlx::query_scalar(query)
        .bind(text)
        .fetch_one(db)
        .await
        .with_context(|| query.to_owned())
}
