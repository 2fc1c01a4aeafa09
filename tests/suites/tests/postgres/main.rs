//! Rows as clients see them: through the gateway, the runner and the handlers to
//! PostgreSQL and back. What a request means is told in `handlers/postgres/tests`; here
//! is what needs the whole way: tokens, roles, line limits, keys under kills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod crowded;
mod data;
mod faults;
mod isolation;
mod leaving;
mod outage;
mod races;
mod rows;

use std::time::Duration;

use anyhow::{Result, ensure};
use postern_harness::http::Reply;
use postern_harness::stack::{Stack, Tenant, Workspace};
use postern_harness::wait_for;
use postern_suites::described::described;
use serde_json::json;
use tokio::sync::OnceCell;

/// How long something may take that follows by itself.
const SOON: Duration = Duration::from_secs(30);

/// The stack that tests share, with rows.
async fn stack() -> &'static Stack {
    static SHARED: OnceCell<Stack> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let stack = Stack::start_with(|plan| plan.postgres = true)
                .await
                .expect("the stack starts");
            described(&stack).await.expect("a description");
            stack
        })
        .await
}

/// A workspace of the tenant's that serves rows.
async fn workspace(tenant: &Tenant<'_>) -> Result<Workspace> {
    let workspace = tenant.with_workspace("dev", &["postgres"]).await?;
    let tables = tables(&workspace);
    wait_for("the workspace to serve rows", SOON, async || {
        let reply = tenant.admin.get(&tables).await?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })
    .await?;
    Ok(workspace)
}

fn tables(workspace: &Workspace) -> String {
    format!("/v1/postgres/{}/tables", workspace.id)
}

fn rows(workspace: &Workspace, table: &str) -> String {
    format!("/v1/postgres/{}/rows/{table}", workspace.id)
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body).into_owned()
}

/// A table without any key, in which a second effect would show.
async fn notes(tenant: &Tenant<'_>, workspace: &Workspace) -> Result<()> {
    let table = json!({"name": "notes", "columns": [{"name": "text", "type": "text"}]});
    tenant
        .admin
        .post(&tables(workspace), &table)
        .await?
        .expect(201)?;
    Ok(())
}
