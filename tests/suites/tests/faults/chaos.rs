//! Everything at once: duplicates, changed payloads and retries, while handlers,
//! workers and claims come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use postern_suites::database::connect;
use rustix::process::Signal;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::{Action, SOON, processes};

const ACTIONS: usize = 24;
const AT_ONCE: usize = 4;
const DISASTERS: usize = 6;

/// Carries an action out, three clients at a time with the same key, until each has
/// its answer: the same for all.
async fn insist(action: Action, answered: Arc<AtomicUsize>) -> Result<()> {
    let three = (0..3).map(|_| action.retry());
    let replies = try_join_all(three).await?;
    let first = replies.first().context("three were asked")?;
    for reply in &replies {
        assert_eq!(reply.body, first.body);
    }
    let fresh = replies
        .iter()
        .filter(|reply| reply.header("x-idempotency-replayed").is_none());
    ensure!(fresh.count() <= 1, "two were told they were the first");
    let mut changed = action.clone();
    changed.slug.push('x');
    let reply = wait_for("the changed payload to be refused", SOON, async || {
        let reply = changed.call().await?;
        ensure!(
            !matches!(reply.status, 409 | 429 | 502 | 503 | 504),
            "{reply:?}"
        );
        Ok(reply)
    })
    .await?;
    reply.refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    answered.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::test]
async fn whatever_happens_there_is_one_effect_a_key() -> Result<()> {
    LocalSet::new().run_until(disasters()).await
}

async fn disasters() -> Result<()> {
    let mut stack = Stack::start().await?;
    let mut actions = Vec::new();
    for _ in 0..ACTIONS {
        actions.push(Action::new(&stack).await?);
    }
    let answered = Arc::new(AtomicUsize::new(0));
    let mut lanes = Vec::new();
    for lane in 0..AT_ONCE {
        let own: Vec<Action> = actions
            .iter()
            .skip(lane)
            .step_by(AT_ONCE)
            .cloned()
            .collect();
        let answered = Arc::clone(&answered);
        lanes.push(spawn_local(async move {
            for action in own {
                insist(action, Arc::clone(&answered)).await?;
            }
            anyhow::Ok(())
        }));
    }
    let mut db = connect(&stack).await?;
    for disaster in 0..DISASTERS {
        // Spread over the work, not over time.
        let due = disaster * ACTIONS / DISASTERS;
        wait_for("some work to be done", 3 * SOON, async || {
            let done = answered.load(Ordering::Relaxed);
            let over = lanes.iter().any(JoinHandle::is_finished);
            ensure!(done >= due || over, "{done} of {due}");
            Ok(())
        })
        .await?;
        match disaster % 3 {
            0 => {
                stack.services()?.handlers().kill()?;
                stack.services()?.restart_handlers().await?;
            }
            1 => {
                let worker = processes::worker(&mut stack).await?;
                processes::signal(worker, Signal::KILL)?;
            }
            _ => {
                sqlx::query("TRUNCATE postern_claims.claim")
                    .execute(&mut db)
                    .await?;
            }
        }
    }
    for lane in lanes {
        lane.await??;
    }
    assert_eq!(answered.load(Ordering::Relaxed), ACTIONS);
    for action in &actions {
        assert_eq!(action.effects(&stack).await?, 1, "{}", action.slug);
    }
    Ok(())
}
