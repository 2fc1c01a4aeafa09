//! A server that is away, or changes its primary, is asked again for a while.
//!
//! The driver waits for a primary and asks once more by itself; an election takes longer
//! than that now and then. Who still gets no answer is told 503 and when to come back.

use std::time::Duration;

use postern_common::Failure;
use postern_contract::Code;
use tokio::time::{Instant, sleep};

/// No attempt begins later than this after the first. Each waits `mongo.selectMs` at most
/// for a primary, so that a request's own deadline (`limits.requestMs`) is not reached.
const AGAIN_FOR: Duration = Duration::from_secs(5);
/// Pauses between attempts, each twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// When to ask again.
pub(crate) struct Again {
    until: Instant,
    pause: Duration,
}

impl Again {
    pub(crate) fn new() -> Self {
        Self {
            until: Instant::now() + AGAIN_FOR,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits for the next attempt; false: there is none.
    pub(crate) async fn wait(&mut self) -> bool {
        if Instant::now() + self.pause > self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        true
    }
}

/// A read, which can be repeated.
///
/// # Errors
/// As the last attempt.
pub(crate) async fn read<T, F>(ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    repeat(ask, |failure| failure.code() == Code::BackendUnavailable).await
}

/// A mutation. Where it may have taken effect it is repeated only with a key: then its
/// record tells.
///
/// # Errors
/// As the last attempt.
pub(crate) async fn mutation<T, F>(keyed: bool, ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let again = |failure: &Failure| {
        let verdict = failure.verdict();
        verdict.code == Code::BackendUnavailable && (keyed || verdict.status != MAYBE_DONE)
    };
    repeat(ask, again).await
}

/// The status of a mutation whose outcome is not known.
pub(crate) const MAYBE_DONE: u16 = 504;

async fn repeat<T, F>(ask: impl Fn() -> F, again: impl Fn(&Failure) -> bool) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut next = Again::new();
    loop {
        match ask().await {
            Err(failure) if again(&failure) && next.wait().await => {
                tracing::info!(cause = %failure, "MongoDB is asked again");
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn asked(keyed: bool, failure: impl Fn() -> Failure) -> (u32, Duration) {
        let (count, began) = (Cell::new(0), Instant::now());
        let ended = mutation(keyed, || {
            count.set(count.get() + 1);
            let failure = failure();
            async move { Err::<(), _>(failure) }
        });
        assert!(ended.await.is_err());
        (count.get(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_away_is_asked_again_for_a_while() {
        let away = || Failure::new(Code::BackendUnavailable, "away");
        let (count, took) = asked(false, away).await;
        assert!(count > 5 && took <= AGAIN_FOR, "{count} in {took:?}");
        let maybe = || away().with_status(MAYBE_DONE);
        assert_eq!(asked(false, maybe).await.0, 1);
        assert!(asked(true, maybe).await.0 > 5);
        let wrong = || Failure::invalid_field("a", "is wrong");
        assert_eq!(asked(true, wrong).await.0, 1);
    }
}
