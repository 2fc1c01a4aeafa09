//! The faults themselves, one after the other in each of two lanes: of processes, and of
//! stores and wires. So two at a time go wrong, and each is over before the next begins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_harness::proxy::{Proxy, Wire};
use postern_harness::wait_for;
use rustix::process::{Pid, Signal};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::plan::{Fault, Schedule};
use super::world::{Processes, Stores};
use crate::processes;

/// A store that is away at that moment is back before.
const RESTART: Duration = Duration::from_secs(90);

/// Keys that live at least between two faults of a lane.
const KEYS_BETWEEN: usize = 25;
const LOOK: Duration = Duration::from_millis(50);

/// How often each kind of fault was done.
pub(super) type Done = BTreeMap<Fault, usize>;

/// A lane's faults, until the storm is over.
pub(super) async fn lane(
    mut schedule: Schedule,
    started: Instant,
    lived: &AtomicUsize,
    over: watch::Receiver<bool>,
    mut inject: impl AsyncFnMut(Fault, Duration) -> Result<()>,
) -> Result<Done> {
    let mut done = Done::new();
    let mut before = 0;
    while let Some((calm, fault, lasts)) = schedule.next() {
        sleep(calm).await;
        // Spread over the work, not over time alone: on a busy machine the storm waits, too.
        while lived.load(Ordering::Relaxed) < before + KEYS_BETWEEN && !*over.borrow() {
            sleep(LOOK).await;
        }
        if *over.borrow() {
            break;
        }
        let began = started.elapsed();
        inject(fault, lasts)
            .await
            .with_context(|| format!("{fault:?}"))?;
        before = lived.load(Ordering::Relaxed);
        println!("{began:>8.1?} to {:>8.1?}  {fault:?}", started.elapsed());
        *done.entry(fault).or_default() += 1;
    }
    Ok(done)
}

impl Processes {
    pub(super) async fn inject(&mut self, fault: Fault, lasts: Duration) -> Result<()> {
        let Self { stack, family } = self;
        match fault {
            Fault::WorkerKilled => {
                let worker = processes::worker(stack).await?;
                processes::signal(worker, Signal::KILL)
            }
            Fault::WorkerPaused => {
                let worker = processes::worker(stack).await?;
                processes::signal(worker, Signal::STOP)?;
                sleep(lasts).await;
                // Its supervisor may have given it up.
                let _ = processes::signal(worker, Signal::CONT);
                Ok(())
            }
            Fault::SupervisorKilled => {
                let supervisor = processes::supervisor(stack).await?;
                processes::signal(supervisor, Signal::KILL)?;
                // The gateway starts the next one after 3 s.
                processes::gone(supervisor).await?;
                processes::worker(stack).await.map(drop)
            }
            Fault::GatewayKilled => {
                // It waits for the handlers, which may be away for want of a store.
                wait_for("the gateway to be back", RESTART, async || {
                    stack.services()?.restart_gateway().await
                })
                .await
            }
            Fault::GatewayPaused => {
                let gateway = stack.services()?.gateway();
                gateway.signal(Signal::STOP)?;
                sleep(lasts).await;
                gateway.signal(Signal::CONT)
            }
            Fault::FamilyKilled => family.restart().await,
            Fault::FamilyPaused => {
                family.process().signal(Signal::STOP)?;
                sleep(lasts).await;
                family.process().signal(Signal::CONT)
            }
            Fault::HandlersKilled => {
                // Without its store it does not start; whoever runs it tries again.
                wait_for("the handlers to be back", RESTART, async || {
                    stack.services()?.restart_handlers().await
                })
                .await
            }
            other => anyhow::bail!("{other:?} is none of processes"),
        }
    }
}

impl Stores {
    pub(super) async fn inject(&mut self, fault: Fault, lasts: Duration) -> Result<()> {
        match fault {
            Fault::PostgresKilled => self.cluster.restart().await,
            Fault::PostgresPaused => {
                self.cluster.pause()?;
                sleep(lasts).await;
                self.cluster.resume()
            }
            Fault::BackendKilled => self.kill_backend().await,
            Fault::RedisKilled => self.redis()?.restart().await,
            Fault::RedisPaused => {
                let redis = self.redis()?;
                redis.pause()?;
                sleep(lasts).await;
                redis.resume()
            }
            Fault::ClaimsEmptied => match &mut self.redis {
                // It keeps nothing.
                Some(redis) => redis.restart().await,
                None => self.empty_claims().await,
            },
            Fault::ClaimsCut => broken(&self.claims, Wire::Cut, lasts).await,
            Fault::ClaimsSwallowed => broken(&self.claims, Wire::Swallowing, lasts).await,
            Fault::EffectsCut => broken(&self.effects, Wire::Cut, lasts).await,
            Fault::EffectsSwallowed => broken(&self.effects, Wire::Swallowing, lasts).await,
            Fault::UpstreamCut => broken(&self.upstream, Wire::Cut, lasts).await,
            Fault::UpstreamSwallowed => broken(&self.upstream, Wire::Swallowing, lasts).await,
            other => anyhow::bail!("{other:?} is none of stores"),
        }
    }

    fn redis(&mut self) -> Result<&mut postern_harness::redis::Redis> {
        self.redis.as_mut().context("claims are in PostgreSQL")
    }

    /// kill -9 of one backend: PostgreSQL then ends all others and recovers.
    async fn kill_backend(&mut self) -> Result<()> {
        let mut db = PgConnection::connect(&self.cluster.url()).await?;
        let victim: Option<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
             ORDER BY random() LIMIT 1",
        )
        .fetch_optional(&mut db)
        .await?;
        if let Some(victim) = victim.and_then(Pid::from_raw) {
            processes::signal(victim, Signal::KILL)?;
        }
        Ok(())
    }

    async fn empty_claims(&mut self) -> Result<()> {
        let mut db = PgConnection::connect(&self.cluster.url()).await?;
        sqlx::query("TRUNCATE postern_claims.claim")
            .execute(&mut db)
            .await?;
        Ok(())
    }
}

async fn broken(proxy: &Proxy, wire: Wire, lasts: Duration) -> Result<()> {
    proxy.set(wire);
    sleep(lasts).await;
    proxy.set(Wire::Whole);
    Ok(())
}
