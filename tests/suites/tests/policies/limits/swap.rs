//! A runner is reloaded: another worker takes over, and nobody's bucket fills by it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use postern_harness::wait_for;
use rustix::process::Signal;
use serde_json::json;

use super::runner::{Runner, Verdict};

const CALLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

#[tokio::test]
async fn buckets_outlive_a_worker() -> Result<()> {
    let runner = Runner::start(&json!({})).await?;
    let conf = json!({"rate": 1, "burst": 100});
    let mut asking = runner.asking(&conf).await?;
    assert_eq!(asking.passed(CALLER, 120).await?, 100);
    assert_eq!(asking.passed(OTHER, 60).await?, 60);
    for _ in 0..3 {
        let before = runner.workers()?;
        runner.process().signal(Signal::HUP)?;
        // Whoever asks all the while gets nothing more.
        wait_for("another worker", Duration::from_secs(20), async || {
            ensure!(asking.ask(CALLER).await? == Verdict::Limited, "let pass");
            let now = runner.workers()?;
            ensure!(
                now.len() == 1 && now != before,
                "{now:?}, before {before:?}"
            );
            Ok(())
        })
        .await?;
        assert_eq!(asking.ask(CALLER).await?, Verdict::Limited);
    }
    assert_eq!(asking.passed(OTHER, 60).await?, 40);
    Ok(())
}
