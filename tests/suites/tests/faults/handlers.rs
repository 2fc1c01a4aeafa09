//! kill -9 of the handlers at each point of the idempotent transaction.

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;

use super::{Action, points, told_away};

/// Each point, and whether the effect is committed there.
const POINTS: [(&str, bool); 6] = [
    ("before-record", false),
    ("after-record", false),
    ("after-effect", false),
    ("before-commit", false),
    ("after-commit", true),
    ("after-claim", true),
];

#[tokio::test]
async fn a_handler_killed_anywhere_leaves_one_effect() -> Result<()> {
    let mut stack = Stack::start().await?;
    let mut actions = Vec::new();
    for (point, committed) in POINTS {
        let action = Action::new(&stack).await?;
        let held = points::hold(&stack, point)?;
        let request = action.start();
        held.reached().await?;
        stack.services()?.handlers().kill()?;
        told_away(&request.await??).context(point)?;
        held.release()?;
        let effects = action.effects(&stack).await?;
        assert_eq!(effects, i64::from(committed), "{point}");
        stack.services()?.restart_handlers().await?;
        actions.push((point, committed, action));
    }
    for (point, committed, action) in actions {
        let reply = action.retry().await.context(point)?;
        let replayed = reply.header("x-idempotency-replayed").is_some();
        assert_eq!(replayed, committed, "{point}: {reply:?}");
        let again = action.replay().await?;
        assert_eq!(again.body, reply.body, "{point}");
        assert_eq!(action.effects(&stack).await?, 1, "{point}");
    }
    Ok(())
}

#[tokio::test]
async fn a_verdict_survives_the_handler_that_gave_it() -> Result<()> {
    let mut stack = Stack::start().await?;
    let first = Action::new(&stack).await?;
    first.call().await?.expect(201)?;
    let mut second = Action::new(&stack).await?;
    second.slug.clone_from(&first.slug);
    let held = points::hold(&stack, "after-commit")?;
    let request = second.start();
    held.reached().await?;
    stack.services()?.handlers().kill()?;
    told_away(&request.await??)?;
    held.release()?;
    stack.services()?.restart_handlers().await?;
    // The slug is free now; what was decided stays decided.
    let mut db = postern_suites::database::connect(&stack).await?;
    sqlx::query("UPDATE postern.tenant SET slug = slug || '-gone' WHERE slug = $1")
        .bind(&first.slug)
        .execute(&mut db)
        .await?;
    let verdict = postern_harness::wait_for("the verdict", super::SOON, async || {
        let reply = second.call().await?;
        assert_ne!(reply.status, 201, "{reply:?}");
        ensure!(
            reply.text_at("/error/code")? == "TENANT_SLUG_TAKEN",
            "{reply:?}"
        );
        Ok(reply)
    })
    .await?;
    assert_eq!(verdict.one("x-idempotency-replayed")?, "true");
    Ok(())
}
