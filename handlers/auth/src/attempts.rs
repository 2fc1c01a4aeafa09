//! How often one user name (or client) may be tried, whatever address the tries come from.
//!
//! GCRA as in the runner: one number a name, the time at which its bucket is full again.
//! The table is bounded and of this process alone; names that are tried most stay in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use moka::sync::Cache;
use postern_common::Failure;
use postern_contract::Code;

/// Tries of one name.
#[derive(Clone, Copy, Debug)]
pub struct AttemptLimit {
    /// A minute, at least 1.
    pub rate: u32,
    /// At once from full, at least 1.
    pub burst: u32,
    /// Names that are remembered.
    pub names: u64,
}

pub(crate) struct Attempts {
    limit: AttemptLimit,
    /// Nanoseconds since `epoch` at which a name's bucket is full.
    full_at: Cache<[u8; 32], Arc<AtomicU64>>,
    epoch: Instant,
}

impl Attempts {
    pub(crate) fn new(limit: AttemptLimit) -> Self {
        let interval = interval(limit);
        let full = Duration::from_nanos(interval.saturating_mul(u64::from(limit.burst)));
        Self {
            limit,
            full_at: Cache::builder()
                .max_capacity(limit.names)
                // A bucket that nobody touched for so long is full, as a new one is.
                .time_to_idle(full.max(Duration::from_secs(1)))
                .build(),
            epoch: Instant::now(),
        }
    }

    /// Takes one try of a name in a realm. Names are folded as Keycloak folds them.
    ///
    /// # Errors
    /// `RATE_LIMITED`, with the time of the next try.
    pub(crate) fn take(&self, realm: &str, name: &str) -> Result<(), Failure> {
        let key = postern_contract::idempotency::sha256(
            format!("{realm}\n{}", name.trim().to_lowercase()).as_bytes(),
        );
        let bucket = self.full_at.get_with(key, Arc::default);
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait = decide(&bucket, self.limit, now);
        if wait == 0 {
            return Ok(());
        }
        metrics::counter!("postern_auth_attempts_limited_total").increment(1);
        let seconds = wait.div_ceil(1_000_000_000);
        let message = format!("there were too many log-ins with this name; retry in {seconds} s");
        Err(Failure::new(Code::RateLimited, message).with_header(RETRY_AFTER, &seconds.to_string()))
    }
}

fn interval(limit: AttemptLimit) -> u64 {
    60_000_000_000 / u64::from(limit.rate.max(1))
}

/// Nanoseconds until a try passes; 0: this one does.
fn decide(bucket: &AtomicU64, limit: AttemptLimit, now: u64) -> u64 {
    let interval = interval(limit);
    let capacity = interval.saturating_mul(u64::from(limit.burst.max(1)));
    let mut wait = 0;
    let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
        let after = full_at.max(now).saturating_add(interval);
        wait = after.saturating_sub(now).saturating_sub(capacity);
        (wait == 0).then_some(after)
    });
    if taken.is_ok() { 0 } else { wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: AttemptLimit = AttemptLimit {
        rate: 60,
        burst: 3,
        names: 100,
    };
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_one_per_interval() {
        let bucket = AtomicU64::new(0);
        let at = |now| decide(&bucket, LIMIT, now);
        let start = 100 * SECOND;
        assert_eq!([at(start), at(start), at(start)], [0, 0, 0]);
        assert_eq!(at(start), SECOND);
        assert_eq!(at(start), SECOND, "what was refused used nothing");
        assert_eq!([at(start + SECOND), at(start + SECOND)], [0, SECOND]);
    }

    #[test]
    fn names_are_limited_apart_and_in_any_spelling() {
        let attempts = Attempts::new(LIMIT);
        for name in ["ada", "Ada", " ADA "] {
            assert!(attempts.take("r", name).is_ok(), "{name}");
        }
        let failure = attempts.take("r", "aDa").err();
        assert_eq!(failure.map(|f| f.code()), Some(Code::RateLimited));
        assert!(attempts.take("r", "bob").is_ok());
        assert!(attempts.take("s", "ada").is_ok());
    }
}
