//! The proof: thousands of keys, retried, sent twice and sent with other payloads, while
//! whatever can fail fails. Per key there is at most one effect, and exactly one where
//! anybody was told so.
//!
//! A run prints its seed; `FAULTS_SEED=<seed>` makes the same keys, clients and faults
//! again. Half of a run has its claims in PostgreSQL, the other half in Redis.
//! `./tests/run faults-long` is the same for `FAULTS_MINUTES` (60) instead of one.

mod client;
mod faults;
mod plan;
mod verdict;
mod world;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use postern_harness::stack::Stack;
use postern_harness::token::Token;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::Instant;

use client::Life;
use faults::{Done, lane};
use plan::{Action, OF_CLAIMS, OF_PROCESSES, OF_REDIS, OF_STORES, Schedule};
use verdict::{Broken, judge};
use world::{Claims, Records, World};

/// Keys under way at once.
const LANES: usize = 24;
/// Keys of one subject: so many that no limit is met.
const KEYS_OF_A_SUBJECT: usize = 6;
/// A storm that has not done its work by then has been held up.
const LIMIT: Duration = Duration::from_secs(600);

/// What a storm is to reach before it is over.
#[derive(Debug, Clone, Copy)]
struct Aim {
    lasts: Duration,
    keys: usize,
    faults: usize,
}

/// What a storm was.
#[derive(Debug, Default)]
struct Report {
    lasted: Duration,
    lives: Vec<Life>,
    faults: Done,
    broken: Broken,
}

/// The seed, of the environment or a new one.
fn seed() -> Result<u64> {
    match std::env::var("FAULTS_SEED") {
        Ok(text) => text.parse().context("FAULTS_SEED is no number"),
        Err(_) => Ok(rand::rng().random_range(0..1_000_000_000)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_effect_a_key_in_any_storm() -> Result<()> {
    let seed = seed()?;
    let aim = Aim {
        lasts: Duration::from_secs(32),
        keys: 1_050,
        faults: 11,
    };
    both_stores(seed, aim).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour: ./tests/run faults-long"]
async fn one_effect_a_key_in_a_long_storm() -> Result<()> {
    let minutes: u64 = match std::env::var("FAULTS_MINUTES") {
        Ok(text) => text.parse().context("FAULTS_MINUTES is no number")?,
        Err(_) => 60,
    };
    // New servers now and then: what only a fresh one does is seen, too.
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut seed = seed()?;
    while Instant::now() < end {
        let aim = Aim {
            lasts: Duration::from_secs(150).min(end - Instant::now()),
            keys: 0,
            faults: 0,
        };
        both_stores(seed, aim).await?;
        seed = seed.wrapping_add(1);
    }
    Ok(())
}

/// With the record's guard off nothing but claims keeps a key from taking effect twice,
/// and claims are lost. A storm that finds nothing then would find nothing ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_records_duplicates_are_found() -> Result<()> {
    let aim = Aim {
        lasts: Duration::from_secs(12),
        keys: 150,
        faults: 3,
    };
    let report = storm(seed()?, Claims::Redis, Records::Off, aim).await?;
    ensure!(
        !report.broken.duplicates.is_empty(),
        "no duplicate among {} keys",
        report.lives.len()
    );
    Ok(())
}

async fn both_stores(seed: u64, aim: Aim) -> Result<()> {
    let (mut lasted, mut keys, mut done) = (Duration::ZERO, 0, 0);
    for claims in [Claims::Postgres, Claims::Redis] {
        let report = storm(seed, claims, Records::On, aim).await?;
        let Broken { duplicates, others } = &report.broken;
        let broken: Vec<&String> = duplicates.iter().chain(others).collect();
        ensure!(
            broken.is_empty(),
            "FAULTS_SEED={seed}: {} keys are not as promised; the first of them:\n{:#?}",
            broken.len(),
            broken.iter().take(5).collect::<Vec<_>>()
        );
        lasted += report.lasted;
        keys += report.lives.len();
        done += report.faults.values().sum::<usize>();
    }
    say(&format!(
        "in all {lasted:.1?}, {keys} keys, {done} faults; one effect a key"
    ));
    Ok(())
}

/// One storm: keys and faults until the aim is reached, then calm, in which every key
/// that was given up is asked for once more; then the verdict.
async fn storm(seed: u64, claims: Claims, records: Records, aim: Aim) -> Result<Report> {
    say(&format!(
        "FAULTS_SEED={seed}, claims in {claims:?}, records {records:?}"
    ));
    let World {
        mut processes,
        mut stores,
        effects,
        path,
        tenant,
        _folder,
    } = World::start(claims, records).await?;
    let outside = Arc::new(processes.stack.from_outside());
    let started = Instant::now();
    let (finish, over) = watch::channel(false);
    let (next, keys) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..LANES)
        .map(|_| {
            let clients = Clients {
                seed,
                outside: Arc::clone(&outside),
                path: path.clone(),
                tenant: tenant.clone(),
                next: Arc::clone(&next),
                lived: Arc::clone(&keys),
                over: over.clone(),
            };
            tokio::spawn(clients.live())
        })
        .collect();
    let mut kinds = match records {
        Records::On => OF_STORES.to_vec(),
        // What is to be found is what claims alone do not hold.
        Records::Off => OF_CLAIMS.to_vec(),
    };
    if claims == Claims::Redis {
        kinds.extend(OF_REDIS);
    }
    let faults = AtomicUsize::new(0);
    let count = |result: Result<()>| {
        faults.fetch_add(1, Ordering::Relaxed);
        result
    };
    let of_processes = lane(
        Schedule::new(seed, 0, OF_PROCESSES.to_vec()),
        started,
        &keys,
        over.clone(),
        async |fault, lasts| count(processes.inject(fault, lasts).await),
    );
    let of_stores = lane(
        Schedule::new(seed, 1, kinds),
        started,
        &keys,
        over.clone(),
        async |fault, lasts| count(stores.inject(fault, lasts).await),
    );
    let end = async {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let reached = started.elapsed() >= aim.lasts
                && keys.load(Ordering::Relaxed) >= aim.keys
                && faults.load(Ordering::Relaxed) >= aim.faults;
            if reached || *over.borrow() {
                finish.send_replace(true);
                return anyhow::Ok(());
            }
            ensure!(
                started.elapsed() < LIMIT,
                "held up: {} keys and {} faults after {LIMIT:?}",
                keys.load(Ordering::Relaxed),
                faults.load(Ordering::Relaxed)
            );
        }
    };
    let (one, other, ()) = tokio::try_join!(of_processes, of_stores, end)?;
    let lasted = started.elapsed();
    let mut done = one;
    done.extend(other);
    let mut lives = Vec::new();
    for lived in try_join_all(clients).await? {
        lives.extend(lived?);
    }
    let broken = judge(&effects, &lives).await?;
    let requests: usize = lives.iter().map(|life| life.requests).sum();
    say(&format!(
        "{lasted:.1?}: {} keys, {requests} requests, {} faults of {} kinds; {} duplicates, {} else",
        lives.len(),
        done.values().sum::<usize>(),
        done.len(),
        broken.duplicates.len(),
        broken.others.len()
    ));
    Ok(Report {
        lasted,
        lives,
        faults: done,
        broken,
    })
}

/// Says it to whoever runs the suite, also when all goes well: the test runner keeps what
/// is printed to itself then.
fn say(line: &str) {
    // Nobody to tell it to is no reason to fail.
    let _ = writeln!(std::io::stderr(), "storm: {line}");
}

/// One key after the other, with a new subject every now and then.
struct Clients {
    seed: u64,
    outside: Arc<Stack>,
    path: String,
    tenant: String,
    next: Arc<AtomicUsize>,
    lived: Arc<AtomicUsize>,
    over: watch::Receiver<bool>,
}

impl Clients {
    async fn live(self) -> Result<Vec<Life>> {
        let mut lives = Vec::new();
        while !*self.over.borrow() {
            let token = Token::of_tenant(&self.tenant, "tenant_admin");
            let client = self.outside.client(&token).await?;
            let first = lives.len();
            for _ in 0..KEYS_OF_A_SUBJECT {
                let n = self.next.fetch_add(1, Ordering::Relaxed);
                let life = Life::new(Action::new(self.seed, n));
                lives.push(life.live(&client, &self.path).await);
                self.lived.fetch_add(1, Ordering::Relaxed);
                if *self.over.borrow() {
                    break;
                }
            }
            // Who gave up in the storm asks once more, soon after.
            for life in lives.iter_mut().skip(first) {
                if life.action.leaves.is_none() {
                    life.insist(&client, &self.path).await?;
                }
            }
        }
        Ok(lives)
    }
}
