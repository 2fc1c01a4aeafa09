//! Finding and signalling processes that the stack's own started.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use rustix::process::{Pid, Signal};

fn children(id: i32) -> Result<Vec<i32>> {
    // Each thread has the children that it started.
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("children"))?;
        children.extend(
            text.split_whitespace()
                .filter_map(|id| id.parse::<i32>().ok()),
        );
    }
    Ok(children)
}

/// The runner's worker: the child of the supervisor, which is a child of the gateway.
pub(super) async fn worker(stack: &mut Stack) -> Result<Pid> {
    let gateway = i32::try_from(stack.services()?.gateway().id())?;
    wait_for("the runner's worker", Duration::from_secs(10), async || {
        let workers: Vec<i32> = children(gateway)?
            .into_iter()
            .filter_map(|supervisor| children(supervisor).ok())
            .flatten()
            .collect();
        let [one] = workers[..] else {
            anyhow::bail!("the workers are {workers:?}");
        };
        Pid::from_raw(one).context("no process has the id 0")
    })
    .await
}

/// The runner's supervisor, a child of the gateway.
pub(super) async fn supervisor(stack: &mut Stack) -> Result<Pid> {
    let gateway = i32::try_from(stack.services()?.gateway().id())?;
    wait_for("the runner", Duration::from_secs(10), async || {
        let [one] = children(gateway)?[..] else {
            anyhow::bail!("the gateway has no one child");
        };
        Pid::from_raw(one).context("no process has the id 0")
    })
    .await
}

pub(super) fn signal(process: Pid, signal: Signal) -> Result<()> {
    Ok(rustix::process::kill_process(process, signal)?)
}

/// Waits until a process has ended.
pub(super) async fn gone(process: Pid) -> Result<()> {
    wait_for(
        "a killed process to be gone",
        Duration::from_secs(10),
        async || {
            let there = rustix::process::test_kill_process(process).is_ok();
            ensure!(!there, "{process:?} is still there");
            Ok(())
        },
    )
    .await
}
