//! What the runner knows of tenants and workspaces when that changes, when the stream of
//! changes falls silent, and when nobody is there to ask (`docs/directory.md`).
//!
//! On a paused clock and at every phase: `runner/src/plugins/authorize/directory/tests.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::certificates::{Authority, Identity};
use postern_harness::http::{Http, Reply};
use postern_harness::ports::Port;
use postern_harness::proxy::{SocketProxy, Wire};
use postern_harness::stack::{Stack, Tenant};
use postern_harness::{temporary_folder, wait_for};
use postern_suites::runner::Runner;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// Between two requests that look for a change: each is by a subject of its own, so
/// that no limit is met.
const STEP: Duration = Duration::from_millis(10);
/// How often a stream that lives says something.
const HEARTBEAT: Duration = Duration::from_millis(300);
/// How long a change may take that is not what a test measures.
const SOON: Duration = Duration::from_secs(10);
/// `authorize.maxStalenessSeconds` of these stacks.
const STALENESS: Duration = Duration::from_secs(4);

/// A stack whose runner reaches the directory over a wire that the test holds.
struct Wired {
    stack: Stack,
    wire: SocketProxy,
}

impl Wired {
    async fn start() -> Result<Self> {
        let mut wire = None;
        let stack = Stack::start_with(|plan| {
            let (ours, theirs) = (plan.run.join("wire.sock"), plan.run.join("directory.sock"));
            plan.runner = json!({"plugins": {"authorize": {
                "directory": format!("unix:{}", ours.display()),
                "maxStalenessSeconds": STALENESS.as_secs(),
            }}});
            // The stack makes it too, later.
            let made = std::fs::create_dir_all(&plan.run).context("no folder for the wire");
            wire = Some(made.and_then(|()| SocketProxy::start(&ours, &theirs)));
        })
        .await?;
        let wire = wire.context("there is no wire")??;
        Ok(Self { stack, wire })
    }
}

/// Somebody of a tenant who has not asked before.
async fn ask(tenant: &Tenant<'_>) -> Result<Reply> {
    tenant
        .member("tenant_operator")
        .await?
        .get(&tenant.path())
        .await
}

async fn status(admin: &Client, tenant: &Tenant<'_>, status: &str) -> Result<()> {
    let body = json!({"status": status});
    admin.patch(&tenant.path(), &body).await?.expect(200)?;
    Ok(())
}

/// How long after now a tenant is refused as suspended.
async fn until_refused(tenant: &Tenant<'_>, limit: Duration) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        let reply = ask(tenant).await?;
        if reply.status == 403 {
            reply.refused(403, "TENANT_SUSPENDED")?;
            return Ok(asked - began);
        }
        reply.expect(200)?;
        ensure!(began.elapsed() < limit, "it is let in after {limit:?}");
        sleep(STEP).await;
    }
}

async fn until_let_in(tenant: &Tenant<'_>) -> Result<()> {
    let let_in = async || ask(tenant).await?.expect(200).map(drop);
    wait_for("the tenant to be let in", SOON, let_in).await
}

#[tokio::test]
async fn a_suspended_tenant_is_refused_within_a_second() -> Result<()> {
    let stack = Stack::shared().await?;
    let (admin, acme) = (
        stack.platform_admin().await?,
        stack.with_tenant("acme").await?,
    );
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        until_let_in(&acme).await?;
        status(&admin, &acme, "suspended").await?;
        slowest = slowest.max(until_refused(&acme, Duration::from_secs(1)).await?);
        status(&admin, &acme, "active").await?;
    }
    println!("refused after {slowest:?} at the latest");
    Ok(())
}

#[tokio::test]
async fn behind_a_silent_stream_within_two() -> Result<()> {
    let Wired { stack, wire } = Wired::start().await?;
    let (admin, acme) = (
        stack.platform_admin().await?,
        stack.with_tenant("acme").await?,
    );
    let mut slowest = Duration::ZERO;
    for round in 0..4 {
        until_let_in(&acme).await?;
        // Everything of before has been told then, and another phase of the heartbeat
        // has come each time.
        sleep(HEARTBEAT + Duration::from_millis(75 * round)).await;
        wire.set(Wire::Stale);
        status(&admin, &acme, "suspended").await?;
        slowest = slowest.max(until_refused(&acme, Duration::from_secs(2)).await?);
        status(&admin, &acme, "active").await?;
        wire.set(Wire::Whole);
    }
    println!("refused after {slowest:?} at the latest");
    ensure!(
        slowest > Duration::from_millis(300),
        "the stream was not silent: {slowest:?}"
    );
    Ok(())
}

#[tokio::test]
async fn without_a_directory_who_is_known_is_served_for_a_while() -> Result<()> {
    let Wired { stack, wire } = Wired::start().await?;
    let admin = stack.platform_admin().await?;
    let (known, other) = (
        stack.with_tenant("known").await?,
        stack.with_tenant("other").await?,
    );
    until_let_in(&known).await?;
    // Cut is noticed at once, and silence after a second: the one takes no longer.
    for away in [Wire::Cut, Wire::Swallowing] {
        until_let_in(&known).await?;
        wire.set(away);
        let left = Instant::now();
        let mut slowest = Duration::ZERO;
        // It counts from the last heartbeat.
        while left.elapsed() < STALENESS - HEARTBEAT * 2 {
            let asked = Instant::now();
            ask(&known)
                .await?
                .expect(200)
                .with_context(|| format!("{away:?}, {:?}", left.elapsed()))?;
            slowest = slowest.max(asked.elapsed());
            sleep(STEP * 5).await;
        }
        ensure!(
            slowest < Duration::from_secs(2),
            "{away:?}: somebody waited {slowest:?}"
        );
        // Nobody knows this one here.
        let reply = ask(&other).await?;
        reply.refused(503, "BACKEND_UNAVAILABLE")?;
        reply.one("retry-after")?;
        status(&admin, &known, "suspended").await?;
        wait_for("what is known to be too old", STALENESS, async || {
            ask(&known)
                .await?
                .refused(503, "BACKEND_UNAVAILABLE")
                .map(drop)
        })
        .await?;
        let took = left.elapsed();
        ensure!(
            took < STALENESS + Duration::from_secs(2),
            "{away:?}: served for {took:?}"
        );
        // Who carries no tenant needs no directory.
        admin.get(&known.path()).await?.expect(200)?;
        wire.set(Wire::Whole);
        wait_for("the directory to be asked again", SOON, async || {
            ask(&known)
                .await?
                .refused(403, "TENANT_SUSPENDED")
                .map(drop)
        })
        .await?;
        // Nothing of before is believed: neither is let in for a moment.
        ask(&known).await?.refused(403, "TENANT_SUSPENDED")?;
        status(&admin, &known, "active").await?;
        println!("{away:?}: known for {took:?}, slowest answer {slowest:?}");
    }
    Ok(())
}

/// The runner's process and the handlers' over TCP: each shows a certificate, and one that
/// is refused is told of on both sides.
#[tokio::test]
async fn over_tcp_both_processes_show_a_certificate() -> Result<()> {
    let (ours, others) = (Authority::new()?, Authority::new()?);
    let (folder, port) = (temporary_folder("postern-mtls")?, Port::free()?);
    let folder = folder.path();
    let (own, stranger) = (
        ours.identity(folder, "runner")?,
        others.identity(folder, "stranger")?,
    );
    let (ca, other_ca) = (ours.write(folder, "ours")?, others.write(folder, "others")?);
    let serving = ours.identity(folder, "directory")?;
    let plugins = |ca: &Path, own: &Identity| {
        json!({"authorize": {
            "directory": format!("https://localhost:{}", port.number()),
            "directoryTls": {"authority": ca, "certificate": own.certificate, "key": own.key},
        }})
    };
    let stack = Stack::start_with(|plan| {
        plan.handlers = json!({
            "directory": port.address().to_string(),
            "directoryTls": {"certificate": serving.certificate, "key": serving.key, "clientCa": ca},
        });
        plan.runner = json!({"plugins": plugins(&ca, &own)});
    })
    .await?;
    let (admin, acme) = (
        stack.platform_admin().await?,
        stack.with_tenant("acme").await?,
    );
    until_let_in(&acme).await?;
    status(&admin, &acme, "suspended").await?;
    until_refused(&acme, SOON).await?;

    let log = stack.folder()?.join("data/handlers.log");
    for (what, plugins, told_by_runner, told_by_handlers) in [
        (
            "a runner of another authority",
            plugins(&ca, &stranger),
            "cannot be watched",
            "invalid peer certificate: UnknownIssuer",
        ),
        (
            "a directory of another authority",
            plugins(&other_ca, &own),
            "invalid peer certificate: UnknownIssuer",
            "received fatal alert: UnknownCA",
        ),
    ] {
        let runner = Runner::launch(&plugins)?;
        wait_for("both sides to say so", SOON, async || {
            let (runner, handlers) = (runner.process.tail(), std::fs::read_to_string(&log)?);
            ensure!(runner.contains(told_by_runner), "{what}: {runner}");
            ensure!(handlers.contains(told_by_handlers), "{what}: {handlers}");
            Ok(())
        })
        .await?;
        let ready = format!("{}/readyz", runner.admin_url());
        Http::from_address(None).get(&ready).await?.expect(503)?;
    }
    Ok(())
}
