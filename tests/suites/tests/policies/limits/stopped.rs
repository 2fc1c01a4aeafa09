//! The store stops answering: it holds its connections and says nothing.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use postern_harness::redis::Redis;
use serde_json::json;

use super::runner::{Runner, Verdict, store};

const CALLER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CONNECTIONS: u8 = 8;
const CALLS: u32 = 250;

/// Calls that were answered within 10 ms, and all.
async fn answered(runner: &Runner) -> Result<(f64, f64)> {
    Ok((
        runner
            .metric("postern_call_duration_seconds_bucket{le=\"0.01\"}")
            .await?,
        runner.metric("postern_call_duration_seconds_count").await?,
    ))
}

/// As it ships: nothing is said of how long a decision may wait.
#[tokio::test]
async fn decisions_come_within_10_ms_all_the_same() -> Result<()> {
    let redis = Redis::start().await?;
    let runner = Runner::with_store(&json!({"redis": {"url": redis.url()}})).await?;
    let conf = json!({"rate": 1, "burst": 20});
    redis.pause()?;
    let before = answered(&runner).await?;
    // From many connections at once, each with a caller of its own.
    let load = (1..=CONNECTIONS).map(async |host| -> Result<u32> {
        let mut asking = runner.asking(&conf).await?;
        asking.passed([198, 51, 100, host].into(), CALLS).await
    });
    let passed = try_join_all(load).await?;
    assert_eq!(
        passed, [20; CONNECTIONS as usize],
        "each as much as it may, and no more"
    );
    let after = answered(&runner).await?;
    let (soon, all) = (after.0 - before.0, after.1 - before.1);
    println!("{soon} of {all} within 10 ms");
    ensure!(
        all >= f64::from(CALLS) * f64::from(CONNECTIONS),
        "{all} were counted"
    );
    ensure!(soon >= 0.99 * all, "{soon} of {all} within 10 ms");
    Ok(())
}

#[tokio::test]
async fn the_route_says_who_decides_then() -> Result<()> {
    let redis = Redis::start().await?;
    let runner = Runner::with_store(&store(&redis.url(), "exact")).await?;
    let conf = |down: &str| json!({"rate": 1, "burst": 20, "onStoreDown": down});
    let mut local = runner.asking(&conf("local")).await?;
    let mut open = runner.asking(&conf("open")).await?;
    let mut closed = runner.asking(&conf("closed")).await?;
    assert_eq!(local.passed(CALLER, 15).await?, 15);
    redis.pause()?;
    // It goes on where the store stood: 15 of this caller's 20 are used.
    assert_eq!(local.passed(CALLER, 20).await?, 5);
    assert_eq!(open.passed(CALLER, 40).await?, 40);
    assert_eq!(closed.ask(CALLER).await?, Verdict::Unavailable);
    let without = runner
        .metric("postern_limit_without_store_total{mode=\"open\"}")
        .await?;
    assert_eq!(without, 40.0);
    redis.resume()?;
    runner.store_is(1.0).await?;
    // The store has heard of the one call that waited for it in vain.
    let left = closed.passed(CALLER, 20).await?;
    ensure!((4..=5).contains(&left), "{left}, not as the store had it");
    assert_eq!(closed.ask(CALLER).await?, Verdict::Limited);
    Ok(())
}

#[tokio::test]
async fn a_store_that_comes_back_empty_counts_anew() -> Result<()> {
    let mut redis = Redis::start().await?;
    let runner = Runner::with_store(&store(&redis.url(), "exact")).await?;
    let mut asking = runner.asking(&json!({"rate": 1, "burst": 10})).await?;
    assert_eq!(asking.passed(CALLER, 20).await?, 10);
    redis.kill()?;
    assert_eq!(
        asking.passed(CALLER, 20).await?,
        0,
        "the runner knows that it is used up"
    );
    runner.store_is(0.0).await?;
    redis.restart().await?;
    runner.store_is(1.0).await?;
    assert_eq!(asking.passed(CALLER, 20).await?, 10);
    Ok(())
}
