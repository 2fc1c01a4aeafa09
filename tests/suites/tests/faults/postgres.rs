//! PostgreSQL itself goes away and comes back.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use rustix::process::{Pid, Signal};

use super::{Action, SOON, points, processes};

/// The stack's server: where its data are and which port it has.
struct Server {
    data: PathBuf,
    port: u16,
}

impl Server {
    fn of(stack: &Stack) -> Result<Self> {
        let url = stack.database_url()?;
        let port = url
            .rsplit_once(':')
            .and_then(|(_, rest)| rest.split('/').next())
            .and_then(|port| port.parse().ok())
            .context("the URL names a port")?;
        Ok(Self {
            data: stack.folder()?.join("data"),
            port,
        })
    }

    fn process(&self) -> Result<Pid> {
        let file = self.data.join("postgres/data/postmaster.pid");
        let text = std::fs::read_to_string(file)?;
        let id = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        id.and_then(Pid::from_raw)
            .context("no process id in its file")
    }

    /// SIGQUIT: every backend ends at once, and recovery follows.
    async fn crash(&self) -> Result<()> {
        let process = self.process()?;
        processes::signal(process, Signal::QUIT)?;
        wait_for("PostgreSQL to end", SOON, async || {
            let file = self.data.join("postgres/data/postmaster.pid");
            ensure!(!file.exists() || zombie(process), "it still runs");
            Ok(())
        })
        .await
    }

    async fn start(&self) -> Result<Cluster> {
        Cluster::start(&self.data, self.port, Durability::Volatile).await
    }
}

/// Whether a process has ended and only waits to be looked after by the harness.
fn zombie(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
    })
}

#[tokio::test]
async fn without_its_database_the_api_says_when_to_come_back() -> Result<()> {
    let stack = Stack::start().await?;
    let server = Server::of(&stack)?;
    let action = Action::new(&stack).await?;
    action.client.get("/v1/tenants").await?.expect(200)?;
    server.crash().await?;
    for call in [action.call(), action.client.get("/v1/tenants")] {
        let reply = call.await?;
        reply.refused(503, "BACKEND_UNAVAILABLE")?;
        reply.one("retry-after")?;
    }
    let platform = stack
        .anonymous()
        .get("/v1/platform/health")
        .await?
        .expect(503)?;
    assert_eq!(platform.at("/backends/0/status")?, "down");
    stack.anonymous().get("/health").await?.expect(200)?;
    let _again = server.start().await?;
    let made = action.retry().await?;
    ensure!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    action.replay().await?;
    assert_eq!(action.effects(&stack).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_database_that_dies_before_the_commit_undoes_all() -> Result<()> {
    let stack = Stack::start().await?;
    let server = Server::of(&stack)?;
    let action = Action::new(&stack).await?;
    let held = points::hold(&stack, "before-commit")?;
    let request = action.start();
    held.reached().await?;
    server.crash().await?;
    held.release()?;
    let reply = request.await??;
    reply.refused(503, "BACKEND_UNAVAILABLE")?;
    reply.one("retry-after")?;
    let _again = server.start().await?;
    assert_eq!(action.effects(&stack).await?, 0);
    let made = action.retry().await?;
    ensure!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    assert_eq!(action.effects(&stack).await?, 1);
    Ok(())
}
