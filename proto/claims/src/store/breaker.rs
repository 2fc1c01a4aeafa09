//! Keeps callers away from a store that does not answer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row, and the store counts as down.
const FAILURES: u32 = 3;
/// A store that is down is asked by one caller in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Closed while the store answers, open while it is down.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the next caller may try a store that is down.
    retry: Option<Instant>,
}

impl Breaker {
    /// Whether to ask the store.
    pub(super) fn admits(&self) -> bool {
        let mut state = self.state();
        if state.failures < FAILURES {
            return true;
        }
        let now = Instant::now();
        let due = state.retry.is_none_or(|retry| retry <= now);
        if due {
            state.retry = Some(now + PAUSE);
        }
        due
    }

    /// The store answered.
    pub(super) fn answered(&self) {
        *self.state() = State::default();
    }

    /// The store did not.
    pub(super) fn failed(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.retry = Some(Instant::now() + PAUSE);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_is_asked_by_one_caller_a_second() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.admits());
            breaker.failed();
        }
        assert!(!breaker.admits());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits());
        assert!(!breaker.admits());
        breaker.failed();
        assert!(!breaker.admits());
        tokio::time::advance(PAUSE).await;
        assert!(breaker.admits());
        breaker.answered();
        assert!(breaker.admits());
        assert!(breaker.admits());
    }

    #[test]
    fn one_answer_forgives_what_failed_before() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed();
            breaker.failed();
            breaker.answered();
        }
        assert!(breaker.admits());
    }
}
