//! Against a real Redis: the script decides as the function does.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

use std::time::Duration;

use anyhow::{Result, anyhow};
use postern_harness::redis::{Redis, RedisCluster};
use postern_harness::wait_for;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio_util::sync::CancellationToken;

use super::super::gcra::{Bucket, Limit};
use super::super::keys::Naming;
use super::*;

const START: u64 = 1_700_000_000_000_000;

/// A script's answer: now, wait, then a bucket's end and what was taken, for each.
fn model(buckets: &mut [Bucket], asks: &[Ask], now: u64) -> Vec<u64> {
    let waits = buckets
        .iter()
        .zip(asks)
        .map(|(b, ask)| b.wait(now, ask.least));
    let wait = waits.max().unwrap();
    let mut answer = vec![now, wait];
    for (bucket, ask) in buckets.iter_mut().zip(asks) {
        let mut taken = 0;
        if wait == 0 {
            let least = ask.least.min(bucket.limit.burst);
            taken = least.max(ask.most.min(bucket.remaining(now)));
            bucket.take(now, taken);
        }
        answer.extend([now + bucket.full_in(now), u64::from(taken)]);
    }
    answer
}

fn key(tag: &str, index: usize) -> Key {
    let limit = Limit { rate: 1, burst: 1 };
    Naming::Shared.key("p", limit, &[tag.as_bytes()], &[&index.to_be_bytes()])
}

#[tokio::test]
async fn the_script_decides_as_the_function_does() -> Result<()> {
    let redis = Redis::start().await?;
    let client = ::redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    // The test's clock may stand still where the server's does not: nothing is to lapse.
    let (lapse, never) = ("math.floor(ahead[i] / 1000) + 1", "3600000");
    let text = include_str!("take.lua");
    assert!(text.contains(lapse));
    let script = Script::new(&text.replace(lapse, never));
    let limit = (
        prop_oneof![1..400_u32, 1..5_000_000_u32],
        prop_oneof![1..8_u32, 1..4_000_u32],
    );
    let ask = (0..6_u32, 0..20_u32);
    let step = (
        prop_oneof![Just(0), 0..200_000_u64, 0..90_000_000_u64],
        proptest::collection::vec(ask, 3),
    );
    let cases = (
        proptest::collection::vec(limit, 1..=3),
        proptest::collection::vec(step, 1..40),
    );
    let mut runner = TestRunner::deterministic();
    for case in 0..100 {
        let tree = cases.new_tree(&mut runner);
        let (limits, steps) = tree.map_err(|reason| anyhow!("{reason}"))?.current();
        let full = |&(rate, burst)| Bucket {
            limit: Limit { rate, burst },
            full_at: 0,
        };
        let mut buckets: Vec<_> = limits.iter().map(full).collect();
        let names: Vec<_> = (0..buckets.len())
            .map(|index| name(key(&case.to_string(), index)))
            .collect();
        let mut now = START;
        for (step, (gap, asks)) in steps.into_iter().enumerate() {
            now += gap;
            let asks = asks.into_iter().take(buckets.len());
            let asks: Vec<_> = asks
                .map(|(least, more)| Ask {
                    least,
                    most: least + more,
                })
                .collect();
            let mut call = script.prepare_invoke();
            call.arg(now);
            for ((bucket, ask), name) in buckets.iter().zip(&asks).zip(&names) {
                call.key(name)
                    .arg(bucket.limit.interval())
                    .arg(bucket.limit.burst)
                    .arg(ask.least)
                    .arg(ask.most);
            }
            let expected = model(&mut buckets, &asks, now);
            let answer: Vec<u64> = call.invoke_async(&mut connection).await?;
            assert_eq!(
                answer, expected,
                "case {case}, step {step}: {buckets:?} {asks:?}"
            );
        }
    }
    Ok(())
}

async fn shared(url: &str) -> Result<(Shared, CancellationToken)> {
    let link = Arc::new(Link::new(url, None, Duration::from_secs(1))?);
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&link).keep(stop.clone()));
    wait_for("the store to be up", Duration::from_secs(10), async || {
        anyhow::ensure!(link.is_up());
        Ok(())
    })
    .await?;
    Ok((Shared::new(link), stop))
}

const LIMIT: Limit = Limit { rate: 1, burst: 10 };

fn items(keys: &[Key]) -> Items {
    let mut items = Items::default();
    for key in keys {
        items.push("p", LIMIT, *key);
    }
    items
}

fn one(count: u32) -> Of<Ask> {
    [Ask {
        least: count,
        most: count,
    }; MOST]
}

#[tokio::test]
async fn what_is_given_back_can_be_taken_again() -> Result<()> {
    let redis = Redis::start().await?;
    let (shared, _stop) = shared(&redis.url()).await?;
    let items = items(&[key("a", 0)]);
    assert_eq!(shared.take(&items, &one(10)).await.unwrap().0.wait, 0);
    assert!(shared.take(&items, &one(1)).await.unwrap().0.wait > 59_000_000);
    let item = *items.iter().next().unwrap();
    shared.give_back([(item, 3)].into_iter()).await.unwrap();
    let (decision, _) = shared.take(&items, &one(1)).await.unwrap();
    assert_eq!(
        (decision.wait, decision.buckets()[0].remaining(decision.now)),
        (0, 2)
    );
    shared.give_back([(item, 100)].into_iter()).await.unwrap();
    let (decision, _) = shared.take(&items, &one(1)).await.unwrap();
    assert_eq!(
        decision.buckets()[0].remaining(decision.now),
        9,
        "no more than the burst"
    );
    Ok(())
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_again() -> Result<()> {
    let redis = Redis::start().await?;
    let (shared, _stop) = shared(&redis.url()).await?;
    let items = items(&[key("a", 0)]);
    shared.take(&items, &one(1)).await.unwrap();
    let client = ::redis::Client::open(redis.url())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let _: String = ::redis::cmd("SCRIPT")
        .arg("FLUSH")
        .query_async(&mut connection)
        .await?;
    let (decision, _) = shared.take(&items, &one(1)).await.unwrap();
    assert_eq!(decision.buckets()[0].remaining(decision.now), 8);
    Ok(())
}

/// Tenants in different slots, and nothing taken where one of them has nothing left.
#[tokio::test]
async fn in_a_cluster_all_or_nothing_holds_across_slots() -> Result<()> {
    let cluster = RedisCluster::start().await?;
    let url = cluster.urls().join(",").replace("redis://", "");
    let (login, _) = url.split_once('@').unwrap();
    let nodes = url.replace(&format!("{login}@"), "");
    let (shared, _stop) = shared(&format!("redis-cluster://{login}@{nodes}")).await?;
    for round in 0..20 {
        let [here, there] = ["x", "y"].map(|side| key(&format!("{side}{round}"), 0));
        let both = items(&[here, there]);
        shared.take(&items(&[there]), &one(10)).await.unwrap();
        assert!(shared.take(&both, &one(1)).await.unwrap().0.wait > 0);
        let (decision, _) = shared.take(&items(&[here]), &one(10)).await.unwrap();
        assert_eq!(decision.wait, 0, "the refused request took nothing");
    }
    // Of one tenant: one script, whatever the policies.
    let several = items(&[key("acme", 0), key("acme", 1), key("acme", 2)]);
    assert_eq!(shared.owners(&several).count(), 1);
    assert_eq!(shared.take(&several, &one(10)).await.unwrap().0.wait, 0);
    Ok(())
}

#[tokio::test]
async fn a_store_that_stops_is_asked_by_nobody_until_it_answers() -> Result<()> {
    let redis = Redis::start().await?;
    let link = Arc::new(Link::new(&redis.url(), None, Duration::from_millis(20))?);
    tokio::spawn(Arc::clone(&link).keep(CancellationToken::new()));
    let up = async || {
        wait_for("the store to be up", Duration::from_secs(10), async || {
            anyhow::ensure!(link.is_up());
            Ok(())
        })
        .await
    };
    up().await?;
    let shared = Shared::new(Arc::clone(&link));
    let items = items(&[key("a", 0)]);
    redis.pause()?;
    assert_eq!(shared.take(&items, &one(1)).await.unwrap_err(), Away);
    assert!(!link.is_up());
    redis.resume()?;
    up().await?;
    assert_eq!(shared.take(&items, &one(1)).await.unwrap().0.wait, 0);
    Ok(())
}
