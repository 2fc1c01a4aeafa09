//! The generic cell rate algorithm, over all limits of a request at once.
//!
//! A limit of `rate` a minute and `burst` gives back one request every 60 s / `rate`
//! and holds at most `burst`. A bucket is one number, the time at which it is full again;
//! taking `n` requests moves it `n` intervals on, and is refused when that would be further
//! than `burst` intervals ahead. So from full at most `rate + burst` pass in any minute.
//!
//! Everything here is a function of its arguments; time is an argument. The script that
//! Redis runs ([`super::redis`]) is the same function in the same whole numbers, hence
//! microseconds: nanoseconds since 1970 are beyond what Lua counts exactly.

/// Microseconds of a minute.
const MINUTE: u64 = 60_000_000;

/// The longest that a bucket may take from empty to full: with it, every number stays
/// far below 2^53, up to which Lua counts exactly.
pub(crate) const LONGEST: u64 = 366 * 24 * 60 * MINUTE;

/// How much may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Limit {
    /// Requests a minute, at least 1.
    pub(crate) rate: u32,
    /// How many at once from full, at least 1.
    pub(crate) burst: u32,
}

/// A limit with its state. Times are microseconds on one clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) limit: Limit,
    /// When it is full again; in the past: it is full.
    pub(crate) full_at: u64,
}

/// Takes `cost` requests from every bucket, or, if one of them does not hold as many,
/// nothing from any: then says how many microseconds it takes until all do.
///
/// A cost above a bucket's capacity takes the whole bucket, otherwise it could never pass.
pub(crate) fn decide(buckets: &mut [Bucket], now: u64, cost: u32) -> Result<(), u64> {
    let wait = buckets.iter().map(|bucket| bucket.wait(now, cost)).max();
    match wait {
        None | Some(0) => {
            for bucket in buckets {
                bucket.take(now, cost);
            }
            Ok(())
        }
        Some(wait) => Err(wait),
    }
}

impl Limit {
    /// Microseconds until one request is given back, rounded up, so that a minute never
    /// holds more than `rate` of them.
    pub(crate) fn interval(self) -> u64 {
        MINUTE.div_ceil(u64::from(self.rate.max(1)))
    }

    /// Microseconds from empty to full.
    pub(crate) fn capacity(self) -> u64 {
        u64::from(self.burst).saturating_mul(self.interval())
    }
}

impl Bucket {
    /// Requests that would pass now.
    pub(crate) fn remaining(&self, now: u64) -> u32 {
        let free = self.limit.capacity().saturating_sub(self.full_in(now));
        u32::try_from(free / self.limit.interval()).unwrap_or(u32::MAX)
    }

    /// Microseconds until it is full. Never more than from empty: a state further ahead
    /// comes from a clock that was set back since.
    pub(crate) fn full_in(&self, now: u64) -> u64 {
        self.full_at.saturating_sub(now).min(self.limit.capacity())
    }

    /// Microseconds until `cost` would pass.
    pub(crate) fn wait(&self, now: u64, cost: u32) -> u64 {
        let ahead = self.full_in(now).saturating_add(self.price(cost));
        ahead.saturating_sub(self.limit.capacity())
    }

    pub(crate) fn take(&mut self, now: u64, cost: u32) {
        let ahead = self.full_in(now).saturating_add(self.price(cost));
        self.full_at = now.saturating_add(ahead);
    }

    fn price(&self, cost: u32) -> u64 {
        u64::from(cost.min(self.limit.burst)).saturating_mul(self.limit.interval())
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failure is a failed test"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;
    const START: u64 = 1_700_000_000 * SECOND;

    fn full(rate: u32, burst: u32) -> Bucket {
        Bucket {
            limit: Limit { rate, burst },
            full_at: 0,
        }
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let mut bucket = [full(240, 60)];
        for left in (0..60).rev() {
            assert_eq!(decide(&mut bucket, START, 1), Ok(()));
            assert_eq!(bucket[0].remaining(START), left);
        }
        assert_eq!(decide(&mut bucket, START, 1), Err(SECOND / 4));
        assert_eq!(decide(&mut bucket, START + SECOND / 4, 1), Ok(()));
        assert_eq!(bucket[0].full_in(START + SECOND / 4), 15 * SECOND);
        assert_eq!(bucket[0].remaining(START + 3600 * SECOND), 60);
    }

    #[test]
    fn all_or_nothing() {
        let mut buckets = [full(240, 60), full(60, 1)];
        assert_eq!(decide(&mut buckets, START, 1), Ok(()));
        let before = buckets;
        assert_eq!(
            decide(&mut buckets, START, 1),
            Err(SECOND),
            "the second is empty"
        );
        assert_eq!(buckets, before, "and the first lost nothing");
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let mut bucket = [full(60, 10)];
        decide(&mut bucket, START, 10).unwrap();
        let earlier = START - 3600 * SECOND;
        assert_eq!(
            decide(&mut bucket, earlier, 1),
            Err(SECOND),
            "as if just emptied"
        );
    }

    #[test]
    fn more_than_the_capacity_takes_all_of_it() {
        let mut bucket = [full(60, 10)];
        assert_eq!(decide(&mut bucket, START, 1_000), Ok(()));
        assert_eq!(bucket[0].remaining(START), 0);
    }

    proptest! {
        /// The promise to operators, on a simulated clock, for any pattern of arrivals.
        #[test]
        fn at_most_rate_and_burst_in_any_minute(
            rate in 1_u32..400,
            burst in 1_u32..100,
            gaps in proptest::collection::vec(prop_oneof![Just(0), 1..2_000_000_u64], 1..1500),
        ) {
            let mut bucket = [full(rate, burst)];
            let (mut now, mut admitted) = (START, Vec::new());
            for gap in gaps {
                now += gap;
                if decide(&mut bucket, now, 1).is_ok() {
                    admitted.push(now);
                }
            }
            for (first, start) in admitted.iter().enumerate() {
                let in_minute = admitted[first..].iter().take_while(|at| **at - start < 60 * SECOND);
                prop_assert!(in_minute.count() <= (rate + burst) as usize);
            }
        }

        /// A refusal changes nothing, and the wait it names is exact.
        #[test]
        fn refused_costs_nothing_and_the_wait_is_exact(
            rate in 1_u32..400, burst in 1_u32..100, cost in 1_u32..20, taken in 0_u32..200, later in 0..SECOND,
        ) {
            let mut buckets = [full(rate, burst), full(rate * 2, burst)];
            for _ in 0..taken {
                let _ = decide(&mut buckets, START, 1);
            }
            let before = buckets;
            let now = START + later;
            if let Err(wait) = decide(&mut buckets, now, cost) {
                prop_assert_eq!(buckets, before);
                prop_assert!(decide(&mut buckets, now + wait - 1, cost).is_err());
                prop_assert!(decide(&mut buckets, now + wait, cost).is_ok());
            }
        }

        /// What `remaining` promises does pass, and no more.
        #[test]
        fn remaining_is_true(rate in 1_u32..400, burst in 1_u32..100, taken in 0_u32..100, later in 0..60 * SECOND) {
            let mut bucket = [full(rate, burst)];
            for _ in 0..taken {
                let _ = decide(&mut bucket, START, 1);
            }
            let now = START + later;
            let remaining = bucket[0].remaining(now);
            for _ in 0..remaining {
                prop_assert!(decide(&mut bucket, now, 1).is_ok());
            }
            prop_assert!(decide(&mut bucket, now, 1).is_err());
        }
    }
}
