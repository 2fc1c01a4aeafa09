//! Calls a month: what the plan allows, what is used, and when it resets.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::stack::{Stack, Tenant};
use postern_harness::token::Token;
use postern_harness::wait_for;
use postern_suites::database;
use rustix::process::Signal;
use serde_json::Value;

/// A report goes out each second.
const SOON: Duration = Duration::from_secs(20);
const ALLOWED: u64 = 30;

/// Used and limit, as the platform sees them: its own calls are nobody's.
async fn usage(admin: &Client, tenant: &Tenant<'_>) -> Result<(u64, Value)> {
    let path = format!("{}/usage", tenant.path());
    let reply = admin.get(&path).await?.expect(200)?.json()?;
    let quotas = reply["quotas"].as_array().context("no quotas")?;
    let calls = quotas
        .iter()
        .find(|quota| quota["quota"] == "callsPerMonth");
    let calls = calls.context("no callsPerMonth")?;
    Ok((
        calls["used"].as_u64().context("used")?,
        calls["limit"].clone(),
    ))
}

/// As many calls are used, once all are reported.
pub(crate) async fn used(admin: &Client, tenant: &Tenant<'_>, expected: u64) -> Result<()> {
    wait_for("the calls to be added up", SOON, async || {
        let (used, _) = usage(admin, tenant).await?;
        ensure!(used == expected, "{used} are used, not {expected}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plan_has_so_many_calls_a_month() -> Result<()> {
    let stack = Stack::start().await?;
    let mut db = database::connect(&stack).await?;
    sqlx::query("INSERT INTO postern.plan (id, position, calls_per_month) VALUES ('tiny', 99, $1)")
        .bind(i64::try_from(ALLOWED)?)
        .execute(&mut db)
        .await?;
    let admin = stack.platform_admin().await?;
    let (tiny, other) = (
        stack.with_tenant_of("tiny", "tiny").await?,
        stack.with_tenant_of("enterprise", "other").await?,
    );
    assert_eq!(usage(&admin, &tiny).await?, (0, ALLOWED.into()));
    // Whatever comes of a call; what a limit refused is none.
    for _ in 0..ALLOWED - 1 {
        tiny.admin.get(&tiny.path()).await?.expect(200)?;
    }
    tiny.admin
        .get(&other.path())
        .await?
        .refused(404, "TENANT_NOT_FOUND")?;
    used(&admin, &tiny, ALLOWED).await?;
    // Another of the tenant's people, and a subject of its own limits.
    let member = stack
        .client(&Token::of_tenant(&tiny.id, "tenant_operator"))
        .await?;
    for client in [&tiny.admin, &member] {
        let refused = client.get(&tiny.path()).await?;
        refused.refused(429, "CALLS_EXCEEDED")?;
        let message = refused.text_at("/error/message")?;
        ensure!(
            message.contains("30 calls") && message.contains("-01T00:00:00Z"),
            "{message}"
        );
        let wait: u64 = refused.one("retry-after")?.parse()?;
        ensure!((1..=31 * 24 * 3600).contains(&wait), "{wait}");
    }
    assert_eq!(
        usage(&admin, &tiny).await?.0,
        ALLOWED,
        "what was refused is no call"
    );
    other.admin.get(&other.path()).await?.expect(200)?;
    used(&admin, &other, 1).await?;
    assert_eq!(usage(&admin, &other).await?.1, Value::Null, "no limit");

    // An operator gives the plan more, and runners hear of it.
    sqlx::query("UPDATE postern.plan SET calls_per_month = 32 WHERE id = 'tiny'")
        .execute(&mut db)
        .await?;
    wait_for("calls to pass again", SOON, async || {
        tiny.admin.get(&tiny.path()).await?.expect(200).map(drop)
    })
    .await?;
    member.get(&tiny.path()).await?.expect(200)?;
    used(&admin, &tiny, 32).await?;
    member
        .get(&tiny.path())
        .await?
        .refused(429, "CALLS_EXCEEDED")?;
    Ok(())
}

/// Nothing is lost when a worker hands over, and a second's calls at most when it is
/// killed; those that were reported stay.
#[tokio::test]
async fn calls_outlive_a_worker() -> Result<()> {
    let mut stack = Stack::start().await?;
    let runner = stack.services()?.gateway().id();
    let stack = stack;
    let admin = stack.platform_admin().await?;
    let acme = stack.with_tenant("acme").await?;
    for _ in 0..20 {
        acme.admin.get(&acme.path()).await?.expect(200)?;
    }
    let supervisor = child(runner)?;
    let supervisor = rustix::process::Pid::from_raw(supervisor).context("a process")?;
    rustix::process::kill_process(supervisor, Signal::HUP)?;
    for _ in 0..20 {
        acme.admin.get(&acme.path()).await?.expect(200)?;
    }
    used(&admin, &acme, 40).await
}

/// A worker that hands over tells what it has counted, also where the directory does not
/// answer for a while.
#[tokio::test]
async fn calls_outlive_a_worker_that_nobody_hears() -> Result<()> {
    let mut stack = Stack::start().await?;
    let services = stack.services()?;
    let (gateway, handlers) = (services.gateway().id(), services.handlers().id());
    let stack = stack;
    let admin = stack.platform_admin().await?;
    let acme = stack.with_tenant("acme").await?;
    for _ in 0..20 {
        acme.admin.get(&acme.path()).await?.expect(200)?;
    }
    let signal = |id: i32, signal| {
        let process = rustix::process::Pid::from_raw(id).context("a process")?;
        anyhow::Ok(rustix::process::kill_process(process, signal)?)
    };
    let (supervisor, handlers) = (child(gateway)?, i32::try_from(handlers)?);
    signal(handlers, Signal::STOP)?;
    signal(supervisor, Signal::HUP)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    signal(handlers, Signal::CONT)?;
    used(&admin, &acme, 20).await
}

/// The first child of a process: the runner is the gateway's only one.
fn child(id: u32) -> Result<i32> {
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
    let first = children.split_whitespace().next();
    Ok(first.context("no child")?.parse()?)
}
