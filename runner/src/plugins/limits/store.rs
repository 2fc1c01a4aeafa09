//! The buckets of this process: a table of fixed size.
//!
//! A key's hash names a set of eight slots. A bucket that is full again is the same as
//! none, so its slot is free; when none of the eight is free, the bucket nearest to full
//! makes room and its owner starts from full again. So beyond the table's size some
//! clients may pass more often than their limit says, and nothing ever grows.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};

use ahash::RandomState;

use super::gcra::{Bucket, Limit, decide};

/// Slots of a set.
const WAYS: usize = 8;

/// Two halves of a key, and when the bucket is full again. All zero: free. Plain numbers,
/// so that the system hands out the memory zeroed and only when it is touched.
type Slot = [u64; 3];

/// Names a bucket. 128 bits under seeds that no client knows: nobody can aim at
/// another's bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64, u64);

/// All buckets of the process.
pub(crate) struct Buckets {
    seeds: [RandomState; 2],
    sets: Mutex<Vec<[Slot; WAYS]>>,
}

impl Buckets {
    /// A table for about as many buckets.
    pub(crate) fn new(capacity: usize) -> Self {
        let sets = vec![[[0; 3]; WAYS]; capacity.div_ceil(WAYS).max(1)];
        Self {
            seeds: [RandomState::new(), RandomState::new()],
            sets: Mutex::new(sets),
        }
    }

    /// The key of these pieces; no two lists of pieces give the same.
    pub(crate) fn key(&self, policy: &str, limit: Limit, pieces: &[&[u8]]) -> Key {
        let [first, second] = self.seeds.each_ref().map(|seed| {
            let mut hasher = seed.build_hasher();
            policy.hash(&mut hasher);
            (limit.rate, limit.burst).hash(&mut hasher);
            pieces.hash(&mut hasher);
            hasher.finish()
        });
        Key(first, second)
    }

    /// Decides over several limits, all or nothing, and gives their buckets as they then
    /// stand; on a refusal also the wait in nanoseconds.
    pub(crate) fn decide<const N: usize>(
        &self,
        limits: [(Key, Limit); N],
        now: u64,
        cost: u32,
    ) -> ([Bucket; N], Result<(), u64>) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sets.len();
        let mut buckets = limits.map(|(key, limit)| {
            let slot = sets
                .get(key.set(count))
                .and_then(|set| set.iter().find(|slot| key.owns(slot)));
            Bucket {
                limit,
                full_at: slot.map_or(0, |[_, _, full_at]| *full_at),
            }
        });
        let decision = decide(&mut buckets, now, cost);
        if decision.is_ok() {
            for ((key, _), bucket) in limits.iter().zip(&buckets) {
                if let Some(slot) = sets.get_mut(key.set(count)).and_then(|set| key.slot(set)) {
                    *slot = [key.0, key.1, bucket.full_at];
                }
            }
        }
        (buckets, decision)
    }
}

impl Key {
    fn set(self, sets: usize) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX) % sets
    }

    fn owns(self, [first, second, _]: &Slot) -> bool {
        *first == self.0 && *second == self.1
    }

    /// Its own slot, else the one that is free or nearest to it.
    fn slot(self, set: &mut [Slot; WAYS]) -> Option<&mut Slot> {
        match set.iter().position(|slot| self.owns(slot)) {
            Some(own) => set.get_mut(own),
            None => set.iter_mut().min_by_key(|[_, _, full_at]| *full_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;
    const LIMIT: Limit = Limit { rate: 60, burst: 2 };

    fn take(buckets: &Buckets, who: &str) -> bool {
        let key = buckets.key("p", LIMIT, &[who.as_bytes()]);
        buckets.decide([(key, LIMIT)], NOW, 1).1.is_ok()
    }

    #[test]
    fn everybody_has_a_bucket() {
        let buckets = Buckets::new(64);
        assert_eq!(
            ["a", "a", "a", "b"].map(|who| take(&buckets, who)),
            [true, true, false, true]
        );
    }

    #[test]
    fn pieces_do_not_run_together() {
        let buckets = Buckets::new(8);
        assert_ne!(
            buckets.key("p", LIMIT, &[b"ab", b"c"]),
            buckets.key("p", LIMIT, &[b"a", b"bc"])
        );
    }

    #[test]
    fn two_limits_share_one_decision() {
        let buckets = Buckets::new(64);
        let tight = Limit { rate: 60, burst: 1 };
        let both = [
            (buckets.key("wide", LIMIT, &[]), LIMIT),
            (buckets.key("tight", tight, &[]), tight),
        ];
        assert!(buckets.decide(both, NOW, 1).1.is_ok());
        let (after, refused) = buckets.decide(both, NOW, 1);
        assert_eq!(refused, Err(1_000_000_000));
        assert_eq!(after.map(|bucket| bucket.remaining(NOW)), [1, 0]);
    }

    #[test]
    fn beyond_its_size_the_fullest_bucket_makes_room() {
        let buckets = Buckets::new(WAYS);
        assert!(take(&buckets, "nearly full"));
        for who in 1..WAYS {
            assert!(take(&buckets, &who.to_string()) && take(&buckets, &who.to_string()));
        }
        assert!(take(&buckets, "one more"));
        assert!(
            take(&buckets, "nearly full") && take(&buckets, "nearly full"),
            "it starts anew"
        );
        assert!(
            !take(&buckets, "1") || !take(&buckets, "2"),
            "who had less left was kept"
        );
    }
}
