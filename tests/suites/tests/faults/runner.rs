//! kill -9 of the runner's worker, and the loss of every claim.

use anyhow::{Result, ensure};
use futures::future::join_all;
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use postern_suites::database::{connect, count};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use super::{Action, SOON, points, processes, told_away};

const CLAIMS: &str = "SELECT count(*) FROM postern_claims.claim WHERE $1 <> 'never'";

async fn drop_all_claims(db: &mut PgConnection) -> Result<()> {
    sqlx::query("TRUNCATE postern_claims.claim")
        .execute(db)
        .await?;
    Ok(())
}

/// The claim is committed, and the worker that asked for it never knows.
#[tokio::test]
async fn a_worker_killed_between_claim_and_answer_leaves_one_effect() -> Result<()> {
    let mut stack = Stack::start().await?;
    let action = Action::new(&stack).await?;
    // The statement is prepared before, so that claiming it is one round trip.
    Action::new(&stack).await?.call().await?.expect(201)?;
    let worker = processes::worker(&mut stack).await?;
    let (mut db, mut observer) = (connect(&stack).await?, connect(&stack).await?);
    let mut lock = db.begin().await?;
    sqlx::query("LOCK TABLE postern_claims.claim IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await?;
    let request = action.start();
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND query LIKE $1";
    wait_for("the worker to wait for its claim", SOON, async || {
        let claiming = count(&mut observer, waiting, "%INTO postern_claims.claim%").await?;
        ensure!(claiming == 1, "{claiming} wait");
        Ok(())
    })
    .await?;
    processes::signal(worker, Signal::STOP)?;
    lock.rollback().await?;
    wait_for("the claim to be committed", SOON, async || {
        ensure!(
            count(&mut observer, CLAIMS, "").await? == 2,
            "no second claim"
        );
        Ok(())
    })
    .await?;
    processes::signal(worker, Signal::KILL)?;
    told_away(&request.await??)?;
    assert_eq!(action.effects(&stack).await?, 0);
    // Nobody works for the claim: it lapses, and the retry is the first to be carried out.
    let made = action.retry().await?;
    ensure!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    ensure!(
        processes::worker(&mut stack).await? != worker,
        "the same worker"
    );
    action.replay().await?;
    assert_eq!(action.effects(&stack).await?, 1);
    Ok(())
}

#[tokio::test]
async fn what_the_worker_let_pass_ends_without_it() -> Result<()> {
    let mut stack = Stack::start().await?;
    let action = Action::new(&stack).await?;
    let held = points::hold(&stack, "before-commit")?;
    let request = action.start();
    held.reached().await?;
    let worker = processes::worker(&mut stack).await?;
    processes::signal(worker, Signal::KILL)?;
    processes::gone(worker).await?;
    // A duplicate meets the claim with the new worker.
    let duplicate = wait_for("the new worker", SOON, async || {
        let reply = action.call().await?;
        ensure!(reply.status != 503, "{reply:?}");
        Ok(reply)
    })
    .await?;
    duplicate.refused(409, "IDEMPOTENCY_IN_PROGRESS")?;
    held.release()?;
    request.await??.expect(201)?;
    action.replay().await?;
    assert_eq!(action.effects(&stack).await?, 1);
    Ok(())
}

#[tokio::test]
async fn losing_every_claim_loses_nothing() -> Result<()> {
    let stack = Stack::start().await?;
    let mut db = connect(&stack).await?;
    // After the outcome: the record has it.
    let done = Action::new(&stack).await?;
    let made = done.call().await?.expect(201)?;
    drop_all_claims(&mut db).await?;
    assert_eq!(done.replay().await?.body, made.body);
    let mut other = done.clone();
    other.slug.push('x');
    drop_all_claims(&mut db).await?;
    other.call().await?.refused(422, "IDEMPOTENCY_KEY_REUSED")?;
    assert_eq!(done.effects(&stack).await?, 1);
    assert_eq!(other.effects(&stack).await?, 0);

    // While it runs: duplicates meet the claim, and then the record.
    let running = Action::new(&stack).await?;
    let held = points::hold(&stack, "after-record")?;
    let request = running.start();
    held.reached().await?;
    for _ in 0..2 {
        for reply in join_all((0..8).map(|_| running.call().into_future())).await {
            let reply = reply?;
            reply.refused(409, "IDEMPOTENCY_IN_PROGRESS")?;
            reply.one("retry-after")?;
        }
        drop_all_claims(&mut db).await?;
    }
    held.release()?;
    request.await??.expect(201)?;
    drop_all_claims(&mut db).await?;
    running.replay().await?;
    assert_eq!(running.effects(&stack).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_claim_is_kept_for_as_long_as_its_handler_works() -> Result<()> {
    let stack = Stack::start().await?;
    let mut db = connect(&stack).await?;
    let action = Action::new(&stack).await?;
    let held = points::hold(&stack, "before-commit")?;
    let request = action.start();
    held.reached().await?;
    let lapses = "SELECT extract(epoch FROM max(lapses_at))::bigint FROM postern_claims.claim \
                  WHERE $1 <> 'never'";
    let first = count(&mut db, lapses, "").await?;
    wait_for(
        "the claim to be extended beyond its lease",
        SOON,
        async || {
            let now = count(&mut db, lapses, "").await?;
            ensure!(now > first + 5, "it lapsed at {first} and lapses at {now}");
            Ok(())
        },
    )
    .await?;
    action
        .call()
        .await?
        .refused(409, "IDEMPOTENCY_IN_PROGRESS")?;
    held.release()?;
    request.await??.expect(201)?;
    assert_eq!(action.effects(&stack).await?, 1);
    Ok(())
}
