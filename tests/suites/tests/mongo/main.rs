//! Documents as clients see them: through the gateway, the runner and the handlers to a
//! real replica set and back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod collections;
mod documents;
mod faults;
mod flowing;
mod wall;

use std::time::Duration;

use anyhow::{Result, ensure};
use postern_harness::api::{Call, Client};
use postern_harness::mongo::Mongo;
use postern_harness::stack::{Stack, Tenant, Workspace};
use postern_harness::wait_for;
use postern_suites::described::described;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long something may take that follows by itself.
const SOON: Duration = Duration::from_secs(20);

/// A stack that serves documents, and where they are.
struct World {
    stack: Stack,
    mongo: Mongo,
}

async fn start() -> Result<World> {
    start_with(json!({})).await
}

/// With these settings of the family's.
async fn start_with(mut settings: Value) -> Result<World> {
    let mongo = Mongo::start().await?;
    settings["url"] = mongo.url().into();
    let stack = Stack::start_with(|plan| {
        plan.handlers = json!({"mongo": settings, "idempotency": {"sweepMs": 1000}});
    })
    .await?;
    described(&stack).await?;
    Ok(World { stack, mongo })
}

/// What tests share.
async fn world() -> &'static World {
    static SHARED: OnceCell<World> = OnceCell::const_new();
    SHARED
        .get_or_init(async || start().await.expect("the stack starts"))
        .await
}

/// A workspace of the tenant's that serves documents.
async fn workspace(tenant: &Tenant<'_>) -> Result<Workspace> {
    let workspace = tenant.with_workspace("dev", &["mongo"]).await?;
    let path = collections(&workspace);
    // Who looks has a rate of their own: the test's is used up by nobody else.
    let looking = tenant.member("tenant_operator").await?;
    wait_for("the workspace to serve documents", SOON, async || {
        let reply = looking.get(&path).await?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    })
    .await?;
    Ok(workspace)
}

fn collections(workspace: &Workspace) -> String {
    format!("/v1/mongo/{}/collections", workspace.id)
}

fn documents(workspace: &Workspace, collection: &str) -> String {
    format!("{}/{collection}/documents", collections(workspace))
}

/// A change as plain JSON: operators, or fields that are set.
fn patch(client: &Client, path: &str, change: &Value) -> Call {
    client.call(http::Method::PATCH, path).json(change)
}
