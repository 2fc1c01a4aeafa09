//! One effect a key, whoever is killed whenever (`docs/idempotency.md`).
//!
//! Each test has a stack of its own, holds a request at an instant of its choice,
//! and kills. Instants inside a handler are named points (a file in a folder holds
//! the next mutation there); those inside the runner and PostgreSQL are locks that
//! the test takes in the database. Effects are counted in the audit trail, which
//! has no unique key: a second one would show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod chaos;
mod clients;
mod handlers;
mod postgres;
mod processes;
mod provisioning;
mod reloads;
mod runner;
mod storm;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::{Call, Client};
use postern_harness::http::Reply;
use postern_harness::stack::Stack;
use postern_harness::token::unique;
use postern_harness::wait_for;
use postern_suites::database::{connect, count};
use postern_suites::points;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Longer than a claim's lease and a restart together.
const SOON: Duration = Duration::from_secs(20);

/// One action with its key: a tenant to be made.
#[derive(Clone)]
struct Action {
    client: Client,
    slug: String,
    key: String,
}

impl Action {
    async fn new(stack: &Stack) -> Result<Self> {
        Ok(Self {
            client: stack.platform_admin().await?,
            slug: format!("fault-{}", unique()),
            key: unique(),
        })
    }

    /// Another one of the same client.
    fn again(&self) -> Self {
        Self {
            client: self.client.clone(),
            slug: format!("fault-{}", unique()),
            key: unique(),
        }
    }

    fn body(&self) -> Value {
        json!({
            "slug": self.slug,
            "displayName": "Once",
            "plan": "starter",
            "adminEmail": "admin@fault.example.com",
        })
    }

    fn call(&self) -> Call {
        self.client.post("/v1/tenants", &self.body()).key(&self.key)
    }

    /// Sends it and does not wait.
    fn start(&self) -> JoinHandle<Result<Reply>> {
        tokio::spawn(self.call().into_future())
    }

    /// Retries until it is answered with 201. Until then it may be said to be
    /// running, to come too often, or that somebody is away, and nothing else.
    async fn retry(&self) -> Result<Reply> {
        let answer = wait_for("a retry to succeed", SOON, async || {
            let reply = self.call().await?;
            ensure!(
                !matches!(reply.status, 409 | 429 | 502 | 503 | 504),
                "{reply:?}"
            );
            Ok(reply)
        })
        .await?;
        answer.expect(201)
    }

    /// A retry that must be a replay.
    async fn replay(&self) -> Result<Reply> {
        let reply = self.retry().await?;
        ensure!(
            reply.header("x-idempotency-replayed") == Some("true"),
            "it was not replayed: {reply:?}"
        );
        Ok(reply)
    }

    /// How often it took effect, by what has no unique key; and the row is there
    /// as often.
    async fn effects(&self, stack: &Stack) -> Result<i64> {
        let mut db = connect(stack).await?;
        let events = "SELECT count(*) FROM postern.audit_event \
                      WHERE action = 'tenants.create' AND changes->>'slug' = $1";
        let rows = "SELECT count(*) FROM postern.tenant WHERE slug = $1";
        let events = count(&mut db, events, &self.slug).await?;
        let rows = count(&mut db, rows, &self.slug).await?;
        ensure!(rows == events, "{rows} rows and {events} events");
        Ok(events)
    }
}

/// An answer that the gateway gave because somebody behind it is gone.
fn told_away(reply: &Reply) -> Result<()> {
    ensure!(matches!(reply.status, 502..=504), "{reply:?}");
    assert_eq!(reply.text_at("/error/code")?, "BACKEND_UNAVAILABLE");
    reply.one("retry-after").context("no Retry-After")?;
    Ok(())
}
