//! A client that leaves in the middle.

use anyhow::{Context as _, Result, ensure};
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use postern_suites::raw;

use super::{Action, SOON, points};

#[tokio::test]
async fn a_mutation_outlives_its_client() -> Result<()> {
    let stack = Stack::start().await?;
    for point in ["before-record", "after-effect", "after-commit"] {
        let action = Action::new(&stack).await?;
        let held = points::hold(&stack, point)?;
        let body = action.body().to_string();
        let mut client = raw::connect(stack.url()).await?;
        let request = format!(
            "POST /v1/tenants HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {}\r\n\
             X-API-Version: 2024-01-01\r\nX-Correlation-Id: leaves-early\r\n\
             Idempotency-Key: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            action.client.token().context("an admin has a token")?,
            action.key,
            body.len(),
        );
        raw::send(&mut client, request.as_bytes()).await?;
        held.reached().await?;
        drop(client);
        held.release()?;
        // Nobody asks again, and it happens all the same.
        wait_for("the effect", SOON, async || {
            let effects = action.effects(&stack).await?;
            ensure!(effects == 1, "{point}: {effects} effects");
            Ok(())
        })
        .await?;
        // A type of its own is part of what makes two requests the same.
        action.replay().await.context(point)?;
        assert_eq!(action.effects(&stack).await?, 1, "{point}");
    }
    Ok(())
}
