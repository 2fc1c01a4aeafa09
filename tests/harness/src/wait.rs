//! Waiting for something to become true, with the last state in the failure.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers, at most for `limit`.
///
/// # Errors
/// The time is up: the message names `what` and the probe's last complaint.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + limit;
    let mut state = "no answer to the first probe".to_owned();
    loop {
        match tokio::time::timeout_at(end, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(complaint)) => state = format!("{complaint:#}"),
            // Cut off by the end of the time: what it said before stands.
            Err(_) => {}
        }
        if Instant::now() >= end {
            bail!("waited {limit:?} for {what}; last state: {state}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
