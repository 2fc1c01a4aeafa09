//! Named points of the handlers, at which a test holds the next mutation, or kills them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Call;
use postern_harness::http::Reply;
use postern_harness::stack::Stack;
use postern_harness::wait_for;

/// Longer than a claim's lease and a restart together.
const SOON: Duration = Duration::from_secs(30);

/// A point that is armed.
#[derive(Debug)]
pub struct Held {
    name: &'static str,
    armed: PathBuf,
    reached: PathBuf,
}

/// Holds the next mutation that comes to `name`.
///
/// # Errors
/// The stack runs elsewhere.
pub fn hold(stack: &Stack, name: &'static str) -> Result<Held> {
    let folder = stack.faults()?;
    let held = Held {
        name,
        armed: folder.join(name),
        reached: folder.join(format!("{name}.reached")),
    };
    std::fs::write(&held.armed, "")?;
    Ok(held)
}

impl Held {
    /// Waits until a mutation stands there.
    ///
    /// # Errors
    /// None comes.
    pub async fn reached(&self) -> Result<()> {
        let what = format!("a mutation at {}", self.name);
        wait_for(&what, SOON, async || {
            let there = self.reached.exists();
            there.then_some(()).context("nobody came there yet")
        })
        .await
    }

    /// Lets it go on, or forgets whom a kill left there.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn release(self) -> Result<()> {
        Ok(std::fs::remove_file(&self.reached)?)
    }
}

/// Kills the handlers while a mutation stands at `name`, and repeats it until it is made.
///
/// # Errors
/// It does not come there, or is never made.
pub async fn killed_at(
    stack: &mut Stack,
    name: &'static str,
    mutation: impl Fn() -> Call,
) -> Result<Reply> {
    let held = hold(stack, name)?;
    let lost = tokio::spawn(mutation().into_future());
    held.reached().await?;
    stack.services()?.restart_handlers().await?;
    held.release()?;
    let _ = lost.await?;
    made(mutation).await
}

/// Repeats a mutation until it is made. Until then it may be said to be running, to come
/// too often, or that somebody is away, and nothing else.
///
/// # Errors
/// It is refused otherwise, or never made.
pub async fn made(mutation: impl Fn() -> Call) -> Result<Reply> {
    let answer = wait_for("a repeated mutation", SOON, async || {
        let reply = mutation().await?;
        let again = matches!(reply.status, 409 | 429 | 502 | 503 | 504);
        ensure!(!again, "{reply:?}");
        Ok(reply)
    });
    let reply = answer.await?;
    ensure!(matches!(reply.status, 200 | 201), "{reply:?}");
    Ok(reply)
}
