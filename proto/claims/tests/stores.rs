//! Every kind of claim store means the same, in good times and in bad ones.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use postern_claims::{Authority, Claim, ClaimError, ClaimStore, Holder, LEASE};
use postern_harness::certificates::Authority as Certificates;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::redis::{Redis, RedisCluster};
use postern_harness::{ports::Port, temporary_folder, wait_for};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_millis(1_500);
/// A call of a store that is away may take its patience and a busy machine's delay.
const BOUND: Duration = Duration::from_millis(2_500);
const SOON: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);
const FINGERPRINT: [u8; 32] = [7; 32];

fn store(url: &str) -> ClaimStore {
    ClaimStore::connect(url, 4, PATIENCE).expect("the harness gives good URLs")
}

/// A name that no other story uses.
fn scope() -> [u8; 32] {
    let (one, two) = (Holder::random().unwrap(), Holder::random().unwrap());
    let mut scope = [0; 32];
    scope[..16].copy_from_slice(&one.0);
    scope[16..].copy_from_slice(&two.0);
    scope
}

async fn claimed(store: &ClaimStore, scope: &[u8; 32]) -> Result<Holder> {
    match store.claim(scope).await? {
        Claim::New(holder) => Ok(holder),
        other => anyhow::bail!("{other:?}"),
    }
}

async fn every_story(store: &ClaimStore) -> Result<()> {
    one_of_many_holds_it(store).await?;
    only_its_holder_extends_and_releases(store).await?;
    what_lapses_is_free_again(store).await?;
    what_is_done_is_told(store).await
}

async fn one_of_many_holds_it(store: &ClaimStore) -> Result<()> {
    let scope = scope();
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        tasks.spawn(async move { store.claim(&scope).await });
    }
    let mut held = 0;
    while let Some(claim) = tasks.join_next().await {
        match claim?? {
            Claim::New(_) => held += 1,
            Claim::Running => {}
            Claim::Done { .. } => anyhow::bail!("nobody was done"),
        }
    }
    ensure!(held == 1, "{held} hold it");
    Ok(())
}

async fn only_its_holder_extends_and_releases(store: &ClaimStore) -> Result<()> {
    let scope = scope();
    let holder = claimed(store, &scope).await?;
    let stranger = Holder::random()?;
    ensure!(store.extend(&scope, holder, LEASE).await?);
    ensure!(!store.extend(&scope, stranger, LEASE).await?);
    store.release(&scope, stranger).await?;
    ensure!(store.claim(&scope).await? == Claim::Running);
    store.release(&scope, holder).await?;
    ensure!(!store.extend(&scope, holder, LEASE).await?);
    claimed(store, &scope).await?;
    Ok(())
}

async fn what_lapses_is_free_again(store: &ClaimStore) -> Result<()> {
    let scope = scope();
    let first = claimed(store, &scope).await?;
    ensure!(
        store
            .extend(&scope, first, Duration::from_millis(50))
            .await?
    );
    let second = wait_for("the claim to lapse", SOON, async || {
        claimed(store, &scope).await
    })
    .await?;
    // Whoever was late neither extends nor releases the other's.
    ensure!(!store.extend(&scope, first, LEASE).await?);
    store.release(&scope, first).await?;
    ensure!(store.extend(&scope, second, LEASE).await?);
    Ok(())
}

async fn what_is_done_is_told(store: &ClaimStore) -> Result<()> {
    let scope = scope();
    let holder = claimed(store, &scope).await?;
    let outcome: Vec<u8> = (0..=255).collect();
    let done = store.done(&scope, &FINGERPRINT, Some(&outcome), DAY);
    done.await?;
    let told = Claim::Done {
        fingerprint: FINGERPRINT,
        outcome: Some(outcome),
    };
    ensure!(store.claim(&scope).await? == told);
    // What is done is nobody's to extend or release.
    ensure!(!store.extend(&scope, holder, LEASE).await?);
    store.release(&scope, holder).await?;
    ensure!(store.claim(&scope).await? == told);
    // Over it, and without a copy.
    store.done(&scope, &[8; 32], None, DAY).await?;
    let told = Claim::Done {
        fingerprint: [8; 32],
        outcome: None,
    };
    ensure!(store.claim(&scope).await? == told);
    // Where no claim stood, and for a moment only.
    store
        .done(&scope, &FINGERPRINT, None, Duration::from_millis(50))
        .await?;
    wait_for("what was done to be forgotten", SOON, async || {
        claimed(store, &scope).await
    })
    .await?;
    Ok(())
}

/// Every answer of a store that is away comes within the bound, and soon at once.
async fn is_away(store: &ClaimStore) -> Result<()> {
    for attempt in 0.. {
        let asked = Instant::now();
        let answer = store.claim(&scope()).await;
        let took = asked.elapsed();
        ensure!(took < BOUND, "call {attempt} took {took:?}");
        match answer {
            Err(ClaimError::Down) if attempt > 0 => {
                ensure!(took < Duration::from_millis(50), "{took:?} to say no");
                return Ok(());
            }
            Err(_) if attempt < 10 => {}
            other => anyhow::bail!("call {attempt}: {other:?}"),
        }
    }
    Ok(())
}

async fn is_back(store: &ClaimStore) -> Result<()> {
    let back = async || claimed(store, &scope()).await;
    wait_for("the store to be back", SOON, back).await?;
    every_story(store).await
}

async fn cluster() -> Result<(Cluster, tempfile::TempDir, Port)> {
    let folder = temporary_folder("postern-claims")?;
    let port = Port::free()?;
    let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
    Ok((cluster, folder, port))
}

#[tokio::test]
async fn postgres() -> Result<()> {
    let (mut server, _folder, _port) = cluster().await?;
    let store = store(&server.url());
    store.migrate().await?;
    store.migrate().await.context("again")?;
    every_story(&store).await?;
    server.pause()?;
    is_away(&store).await?;
    server.resume()?;
    is_back(&store).await?;
    server.restart().await?;
    is_back(&store).await
}

#[tokio::test]
async fn redis() -> Result<()> {
    let mut server = Redis::start().await?;
    let store = store(&server.url());
    every_story(&store).await?;
    server.pause()?;
    is_away(&store).await?;
    server.resume()?;
    is_back(&store).await?;
    server.kill()?;
    is_away(&store).await?;
    server.restart().await?;
    is_back(&store).await
}

#[tokio::test]
async fn redis_over_tls() -> Result<()> {
    let (ours, others) = (Certificates::new()?, Certificates::new()?);
    let server = Redis::start_with_tls(&ours).await?;
    let folder = temporary_folder("postern-claims")?;
    let trusting = |authority: &Certificates, name: &str| -> Result<ClaimStore> {
        let authority = Authority::read(&authority.write(folder.path(), name)?)?;
        let url = server.tls_url()?;
        let store = ClaimStore::connect_trusting(&url, Some(&authority), 4, PATIENCE);
        Ok(store?)
    };
    every_story(&trusting(&ours, "ours")?).await?;
    for stranger in [trusting(&others, "others")?, store(&server.tls_url()?)] {
        let refused = stranger.claim(&scope()).await;
        ensure!(matches!(refused, Err(ClaimError::Redis(_))), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn redis_cluster() -> Result<()> {
    let cluster = RedisCluster::start().await?;
    let urls = cluster.urls();
    let first = urls.first().context("six nodes")?;
    let (login, _) = first.rsplit_once('@').context("with a password")?;
    let nodes: Vec<_> = urls
        .iter()
        .filter_map(|url| Some(url.rsplit_once('@')?.1))
        .collect();
    let login = login.replace("redis://", "redis-cluster://");
    let store = store(&format!("{login}@{}", nodes.join(",")));
    for _ in 0..4 {
        every_story(&store).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_url_that_names_no_store_is_refused_without_being_told() {
    for url in [
        "",
        "hunter2",
        "redis",
        "mysql://u:hunter2@h/d",
        "redis://u:hunter2@[h",
        "postgres://u:hunter2@h:port/d",
        "redis-cluster://u:hunter2@",
        "redis-cluster://u:hunter2@h:1,",
    ] {
        let refused = ClaimStore::connect(url, 1, PATIENCE).expect_err(url);
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
}
