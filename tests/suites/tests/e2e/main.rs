//! The HTTP API as its clients see it: through the gateway, the runner and the
//! handlers to PostgreSQL and back. `docs/api.md`, row by row.
//!
//! Tests share one stack and run side by side: each makes its own tenants, is a
//! subject of its own and comes from an address of its own. What needs to look
//! behind the gateway ([`inside`]) has a stack that was started here, also when
//! `GATEWAY_URL` names another one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod audit;
mod authorization;
mod bodies;
mod conditional;
mod context;
mod headers;
mod idempotency;
mod limits;
mod lists;
mod paths;
mod platform;
mod preflight;
mod projection;
mod provisioning;
mod tenancy;
mod tenants;
mod tokens;
mod workspaces;

use std::time::Duration;

use anyhow::{Result, ensure};
use postern_harness::stack::{Stack, Tenant, Workspace};
use postern_harness::wait_for;
use postern_suites::described::described;
use serde_json::Value;
use tokio::sync::OnceCell;

/// A request that everybody with a token may make.
const ANY: &str = "/v1/platform/info";

/// How long something may take that follows by itself: a change that runners
/// hear of, a step of provisioning.
const SOON: Duration = Duration::from_secs(10);

async fn stack() -> &'static Stack {
    static WATCHED: OnceCell<&'static Stack> = OnceCell::const_new();
    let watched = async || {
        let stack = Stack::shared().await.expect("the stack starts");
        described(stack).await.expect("a description");
        stack
    };
    WATCHED.get_or_init(watched).await
}

/// A stack whose database, keys and handlers the test can reach.
async fn inside() -> &'static Stack {
    static OWN: OnceCell<Stack> = OnceCell::const_new();
    if std::env::var_os("GATEWAY_URL").is_none() {
        return stack().await;
    }
    OWN.get_or_init(async || Stack::start().await.expect("the stack starts"))
        .await
}

/// Waits until a workspace is active, and runners know it.
async fn active(tenant: &Tenant<'_>, workspace: &Workspace) -> Result<()> {
    let path = workspace.path();
    wait_for("the workspace to be active", SOON, async || {
        let reply = tenant.admin.get(&path).await?.expect(200)?;
        ensure!(reply.text_at("/status")? == "active", "{reply:?}");
        let data = format!("/v1/mongo/{}/collections", workspace.id);
        let reply = tenant.admin.get(&data).await?;
        ensure!(reply.status != 409, "{reply:?}");
        Ok(())
    })
    .await
}

/// The fields that `details` of a refusal name, sorted.
fn named_fields(error: &Value) -> Vec<String> {
    let details = error["details"].as_array().cloned().unwrap_or_default();
    let mut fields: Vec<String> = details
        .iter()
        .filter_map(|detail| {
            assert!(
                detail["reason"]
                    .as_str()
                    .is_some_and(|reason| !reason.is_empty()),
                "{detail} gives no reason"
            );
            detail["field"].as_str().map(str::to_owned)
        })
        .collect();
    fields.sort();
    fields
}
