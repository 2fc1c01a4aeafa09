//! Several runners on one store.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use postern_harness::certificates::Authority;
use postern_harness::redis::{Redis, RedisCluster};
use postern_harness::{temporary_folder, wait_for};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::runner::{Runner, Verdict, store};

const RUNNERS: u32 = 4;
const RATE: u32 = 6_000;
const BURST: u32 = 1_500;
const MINUTE: Duration = Duration::from_secs(60);
/// Each runner is asked so often: together almost three times the rate.
const PACE: Duration = Duration::from_millis(15);

/// What a caller gets past four runners in a minute that it begins with a full bucket.
async fn admitted(redis: &Redis, mode: &str, caller: Ipv4Addr) -> Result<u32> {
    let settings = store(&redis.url(), mode);
    let runners = try_join_all((0..RUNNERS).map(|_| Runner::with_store(&settings))).await?;
    let conf = json!({"rate": RATE, "burst": BURST});
    let end = Instant::now() + MINUTE;
    let asked = runners.iter().map(async |runner| -> Result<u32> {
        let mut asking = runner.asking(&conf).await?;
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut passed = 0;
        while pace.tick().await < end && Instant::now() < end {
            match asking.ask(caller).await? {
                Verdict::Passed => passed += 1,
                Verdict::Limited => {}
                Verdict::Unavailable => anyhow::bail!("the store is away"),
            }
        }
        Ok(passed)
    });
    let passed = try_join_all(asked).await?;
    for runner in &runners {
        let without = runner.metric("postern_limit_without_store_total").await?;
        ensure!(without == 0.0, "{without} were decided without the store");
    }
    println!("{mode}: {passed:?}");
    Ok(passed.into_iter().sum())
}

/// From full, `rate + burst` pass in a minute: all of them, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_runners_let_one_limit_pass() -> Result<()> {
    let redis = Redis::start().await?;
    let (exact, leased) = tokio::try_join!(
        admitted(&redis, "exact", [192, 0, 2, 1].into()),
        admitted(&redis, "leased", [192, 0, 2, 2].into()),
    )?;
    let whole = RATE + BURST;
    ensure!(
        exact.abs_diff(whole) <= whole / 100,
        "exact: {exact}, not {whole}"
    );
    // Each runner may hold 5 % of the burst when the minute ends, and the clock's percent.
    let held = RUNNERS * BURST * 5 / 100;
    ensure!(
        leased <= whole + held && leased + held + whole / 100 >= whole,
        "leased: {leased}, not {whole} with {held} held"
    );
    Ok(())
}

#[tokio::test]
async fn shares_are_taken_once_and_given_back() -> Result<()> {
    let redis = Redis::start().await?;
    let (leased, exact) = tokio::try_join!(
        async { Runner::with_store(&store(&redis.url(), "leased")).await },
        async { Runner::with_store(&store(&redis.url(), "exact")).await },
    )?;
    // One a minute: nothing comes back by itself. A share is 50.
    let conf = json!({"rate": 1, "burst": 1000});
    let caller = [192, 0, 2, 1].into();
    let mut ahead = leased.asking(&conf).await?;
    assert_eq!(ahead.passed(caller, 200).await?, 200);
    let mut other = exact.asking(&conf).await?;
    let at_once = other.passed(caller, 1000).await?;
    ensure!(
        (750..=800).contains(&at_once),
        "{at_once} of 800 are left to the others"
    );
    // What the runner holds and does not use is given back.
    let mut left = 800 - at_once;
    wait_for(
        "the share to be given back",
        Duration::from_secs(20),
        async || {
            left -= other.passed(caller, 1000).await?;
            ensure!(left == 0, "{left} are missing");
            Ok(())
        },
    )
    .await
    .context("of 1000 all pass, however they are shared out")
}

#[tokio::test]
async fn a_cluster_decides_for_all_and_survives_a_node() -> Result<()> {
    let mut cluster = RedisCluster::start().await?;
    let urls = cluster.urls();
    let nodes: Vec<_> = urls.iter().map(|url| url.replace("redis://", "")).collect();
    let logins: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.split_once('@'))
        .collect();
    let (login, _) = logins.first().context("nodes with a password")?;
    let hosts: Vec<_> = logins.iter().map(|(_, host)| *host).collect();
    let url = format!("redis-cluster://{login}@{}", hosts.join(","));
    let settings = json!({"redis": {"url": url, "timeoutMs": 1000}});
    let (one, two) =
        tokio::try_join!(Runner::with_store(&settings), Runner::with_store(&settings))?;
    // Callers and the route lie in slots of their own.
    let conf = json!({"rate": 1, "burst": 10, "route": {"rate": 1, "burst": 35}});
    let (mut first, mut second) = (one.asking(&conf).await?, two.asking(&conf).await?);
    let mut passed = Vec::new();
    for host in 1..=4 {
        let caller = [192, 0, 2, host].into();
        passed.push(first.passed(caller, 6).await? + second.passed(caller, 6).await?);
    }
    assert_eq!(passed, [10, 10, 10, 5], "ten a caller, thirty-five in all");
    // Without a node: decided all the same, and by the store again once a replica serves.
    cluster.nodes().first_mut().context("a node")?.kill()?;
    let conf = json!({"rate": 1, "burst": 10});
    let (mut first, mut second) = (one.asking(&conf).await?, two.asking(&conf).await?);
    for host in 10..20 {
        let caller = [192, 0, 2, host].into();
        ensure!(
            first.ask(caller).await? == Verdict::Passed,
            "with a node away"
        );
    }
    one.store_is(1.0).await?;
    two.store_is(1.0).await?;
    let mut host = 20;
    wait_for(
        "the cluster to decide for both",
        Duration::from_secs(60),
        async || {
            host += 1;
            let caller = [192, 0, 2, host].into();
            let passed = first.passed(caller, 8).await? + second.passed(caller, 8).await?;
            ensure!(passed == 10, "{passed} of 10");
            Ok(())
        },
    )
    .await
}

/// A runner takes a store's word only from whom the operator trusts.
#[tokio::test]
async fn a_store_over_tls_is_known_by_its_authority() -> Result<()> {
    let (ours, others) = (Authority::new()?, Authority::new()?);
    let (redis, folder) = (
        Redis::start_with_tls(&ours).await?,
        temporary_folder("postern-tls")?,
    );
    let caller = [192, 0, 2, 9].into();
    let conf = json!({"rate": 1, "burst": 3});
    let section = |authority| json!({"redis": {"url": redis.tls_url().unwrap(), "timeoutMs": 1000, "authority": authority}});
    let knows = Runner::with_store(&section(ours.write(folder.path(), "ours")?)).await?;
    ensure!(knows.asking(&conf).await?.passed(caller, 5).await? == 3);
    let again = Runner::with_store(&section(ours.write(folder.path(), "again")?)).await?;
    ensure!(
        again.asking(&conf).await?.passed(caller, 1).await? == 0,
        "they share one limit"
    );
    let stranger = Runner::start(&section(others.write(folder.path(), "others")?)).await?;
    let told = async || {
        let log = stranger.log();
        ensure!(log.contains("cannot be reached"), "{log}");
        Ok(())
    };
    wait_for("the runner to say why", Duration::from_secs(20), told).await?;
    stranger.store_is(0.0).await
}
