//! The process's one reader of revisions.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use postern_directory::{Event, HEARTBEAT, Heartbeat, Reset, Revocations, SILENCE, event};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{revocations, unsigned};
use crate::store::directory::{self as store, Change, Revisions};

/// Changes that a slow watcher may lag behind before it has to start over.
const BUFFER: usize = 1024;
/// Changes read at once; more of them are told as a reset.
const BATCH: i64 = 512;
/// Waits for the database end in silence well before the watchers' patience does.
const PATIENCE: Duration = Duration::from_millis(600);

/// Tells watchers what changed.
pub struct Feed {
    pool: PgPool,
    events: broadcast::Sender<Event>,
    revocations: broadcast::Sender<Revocations>,
    told: Mutex<Told>,
    woken: Notify,
}

/// What was told last, and when the database last answered.
#[derive(Clone, Copy)]
struct Told {
    revisions: Revisions,
    asked: Instant,
}

impl Feed {
    /// A feed from the newest revision on; it has to be [run](Feed::run).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn new(pool: PgPool) -> Result<Self, sqlx::Error> {
        let told = Told {
            revisions: store::revisions(&pool).await?,
            asked: Instant::now(),
        };
        Ok(Self {
            pool,
            events: broadcast::Sender::new(BUFFER),
            revocations: broadcast::Sender::new(BUFFER),
            told: Mutex::new(told),
            woken: Notify::new(),
        })
    }

    fn told(&self) -> Told {
        *self
            .told
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn revision(&self) -> i64 {
        self.told().revisions.directory
    }

    /// The revision at which a watch begins and what comes after it; `None` while
    /// the database does not answer.
    pub(super) fn watch(&self) -> Option<(i64, broadcast::Receiver<Event>)> {
        // Subscribed first: what is told in between is heard twice rather than never.
        let events = self.events.subscribe();
        let Told { revisions, asked } = self.told();
        (asked.elapsed() < SILENCE).then_some((revisions.directory, events))
    }

    /// Revocations from now on; `None` while the database does not answer.
    pub(super) fn watch_revocations(&self) -> Option<broadcast::Receiver<Revocations>> {
        let told = self.revocations.subscribe();
        (self.told().asked.elapsed() < SILENCE).then_some(told)
    }

    /// Reads revisions until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let reading = async { tokio::join!(self.look(), self.listen()) };
        stop.run_until_cancelled(reading).await;
    }

    async fn look(&self) {
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let tick = tokio::select! {
                _ = ticks.tick() => Some(()),
                () = self.woken.notified() => None,
            };
            match timeout(PATIENCE, self.advance()).await {
                Ok(Ok(())) if tick.is_some() => {
                    // Without watchers nobody hears it.
                    let _ = self.events.send(heartbeat(self.revision()));
                    let _ = self.revocations.send(revocations::told(&[], true));
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "revisions cannot be read; the watchers hear nothing")
                }
                Err(_) => {
                    tracing::warn!("revisions cannot be read in time; the watchers hear nothing")
                }
            }
        }
    }

    /// Tells what was committed since the last look.
    async fn advance(&self) -> Result<(), sqlx::Error> {
        let last = self.told().revisions;
        let newest = store::revisions(&self.pool).await?;
        let (directory, events) = self.changes(last.directory, newest.directory).await?;
        let (revocation, revoked) = self.revoked(last.revocation, newest.revocation).await?;
        // Before the events go out: who subscribes in between begins at the newer
        // revision and passes over what it covers.
        *self
            .told
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Told {
            revisions: Revisions {
                directory,
                revocation,
            },
            asked: Instant::now(),
        };
        for event in events {
            // Without watchers nobody hears it.
            let _ = self.events.send(event);
        }
        for told in revoked {
            let _ = self.revocations.send(told);
        }
        Ok(())
    }

    /// What changed after `last`, and the revision that this reaches to.
    async fn changes(&self, last: i64, newest: i64) -> Result<(i64, Vec<Event>), sqlx::Error> {
        let changes = if newest == last {
            Vec::new()
        } else {
            store::changes(&self.pool, last, BATCH).await?
        };
        let reached = changes
            .last()
            .map_or(newest, |change| change.revision.max(newest));
        Ok((reached, tell(last, newest, &changes)))
    }

    /// What was revoked after `last`, and the revision that this reaches to.
    async fn revoked(
        &self,
        mut last: i64,
        newest: i64,
    ) -> Result<(i64, Vec<Revocations>), sqlx::Error> {
        let mut told = Vec::new();
        while last < newest {
            let batch = revocations::after(&self.pool, last).await?;
            // The rest has expired since, or was renewed under a newer revision.
            last = batch
                .last()
                .map_or(newest, |revocation| revocation.revision);
            if !batch.is_empty() {
                told.push(revocations::told(&batch, false));
            }
        }
        Ok((last, told))
    }

    /// Wakes the feed when somebody commits. Behind a pooler there are no
    /// notifications, and the next look finds the change.
    async fn listen(&self) {
        loop {
            let listening = async {
                let mut listener = PgListener::connect_with(&self.pool).await?;
                listener.listen("postern_directory").await?;
                loop {
                    listener.recv().await?;
                    self.woken.notify_one();
                }
            };
            let Err(error): Result<Infallible, sqlx::Error> = listening.await;
            tracing::warn!(%error, "no notifications; changes are found by looking");
            tokio::time::sleep(SILENCE).await;
        }
    }
}

/// The events for what was committed after `last`, up to `newest` at least. Where a
/// revision is missing (forgotten, or more than a batch), watchers start over.
fn tell(last: i64, newest: i64, changes: &[Change]) -> Vec<Event> {
    let gapless = changes
        .iter()
        .zip(last + 1..)
        .all(|(change, expected)| change.revision == expected);
    let complete = changes.last().map_or(last, |change| change.revision) >= newest;
    if !gapless || !complete {
        return vec![reset(
            changes
                .last()
                .map_or(newest, |change| change.revision.max(newest)),
        )];
    }
    let event = |change: &Change| Event {
        revision: unsigned(change.revision),
        kind: Some(match (&change.tenant_id, &change.workspace_id) {
            (Some(id), _) => event::Kind::TenantChanged(id.clone()),
            (None, Some(id)) => event::Kind::WorkspaceChanged(id.clone()),
            (None, None) => event::Kind::Reset(Reset {}),
        }),
    };
    changes.iter().map(event).collect()
}

pub(super) fn heartbeat(revision: i64) -> Event {
    Event {
        revision: unsigned(revision),
        kind: Some(event::Kind::Heartbeat(Heartbeat {})),
    }
}

pub(super) fn reset(revision: i64) -> Event {
    Event {
        revision: unsigned(revision),
        kind: Some(event::Kind::Reset(Reset {})),
    }
}

pub(super) fn is_heartbeat(event: &Event) -> bool {
    matches!(event.kind, Some(event::Kind::Heartbeat(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: i64) -> Change {
        Change {
            revision,
            tenant_id: Some("tnt_x".into()),
            workspace_id: None,
        }
    }

    #[test]
    fn every_change_is_told_or_everything_is_forgotten() {
        let kinds = |events: Vec<Event>| {
            events
                .into_iter()
                .map(|e| (e.revision, is_reset(&e)))
                .collect::<Vec<_>>()
        };
        fn is_reset(event: &Event) -> bool {
            matches!(event.kind, Some(event::Kind::Reset(_)))
        }
        assert_eq!(kinds(tell(4, 4, &[])), []);
        assert_eq!(
            kinds(tell(4, 6, &[change(5), change(6)])),
            [(5, false), (6, false)]
        );
        // Committed between the two statements.
        assert_eq!(
            kinds(tell(4, 5, &[change(5), change(6)])),
            [(5, false), (6, false)]
        );
        // A gap, a forgotten past, more than a batch.
        assert_eq!(kinds(tell(4, 7, &[change(5), change(7)])), [(7, true)]);
        assert_eq!(kinds(tell(4, 9, &[])), [(9, true)]);
        assert_eq!(kinds(tell(4, 9, &[change(5)])), [(9, true)]);
    }
}
