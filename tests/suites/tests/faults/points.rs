//! Named points of the handlers, at which a test holds the next mutation.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use postern_harness::stack::Stack;
use postern_harness::wait_for;

use super::SOON;

/// A point that is armed.
pub(super) struct Held {
    name: &'static str,
    armed: PathBuf,
    reached: PathBuf,
}

/// Holds the next mutation that comes to `name`.
pub(super) fn hold(stack: &Stack, name: &'static str) -> Result<Held> {
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
    pub(super) async fn reached(&self) -> Result<()> {
        let what = format!("a mutation at {}", self.name);
        wait_for(&what, SOON, async || {
            let there = self.reached.exists();
            there.then_some(()).context("nobody came there yet")
        })
        .await
    }

    /// Lets it go on, or forgets whom a kill left there.
    pub(super) fn release(self) -> Result<()> {
        Ok(std::fs::remove_file(&self.reached)?)
    }
}
