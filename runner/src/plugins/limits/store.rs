//! The buckets of this process: a table of fixed size.
//!
//! A key's hash names a set of eight slots. A bucket that is full again is the same as
//! none, so its slot is free; when none of the eight is free, the bucket nearest to full
//! makes room and its owner starts from full again. So beyond the table's size some
//! clients may pass more often than their limit says, and nothing ever grows.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::gcra::decide;
use super::keys::Key;
use super::{Decision, Items};

/// Slots of a set.
const WAYS: usize = 8;

/// Two halves of a key, and when the bucket is full again. All zero: free. Plain numbers,
/// so that the system hands out the memory zeroed and only when it is touched.
pub(crate) type Slot = [u64; 3];

/// All buckets of the process.
pub(crate) struct Buckets {
    sets: Mutex<Vec<[Slot; WAYS]>>,
}

impl Buckets {
    /// A table for about as many buckets.
    pub(crate) fn new(capacity: usize) -> Self {
        let sets = vec![[[0; 3]; WAYS]; capacity.div_ceil(WAYS).max(1)];
        Self {
            sets: Mutex::new(sets),
        }
    }

    /// Decides over several limits, all or nothing.
    pub(crate) fn decide(&self, items: &Items, now: u64, cost: u32) -> Decision {
        let mut sets = self.sets();
        let mut decision = Decision::new(items, now);
        for (bucket, item) in decision.buckets_mut().iter_mut().zip(items.iter()) {
            bucket.full_at = full_at(&sets, item.key);
        }
        match decide(decision.buckets_mut(), now, cost) {
            Ok(()) => {
                for (bucket, item) in decision.buckets().iter().zip(items.iter()) {
                    put(&mut sets, item.key, bucket.full_at);
                }
            }
            Err(wait) => decision.wait = wait,
        }
        decision
    }

    /// Takes over what a store that all runners share has decided, so that this process
    /// goes on from there when that is away. What was taken here meanwhile stays taken.
    pub(crate) fn mirror(&self, items: &Items, decided: &Decision, now: u64) {
        let mut sets = self.sets();
        for (bucket, item) in decided.buckets().iter().zip(items.iter()) {
            let full_in = bucket.full_in(decided.now);
            let here = full_at(&sets, item.key);
            put(&mut sets, item.key, here.max(now.saturating_add(full_in)));
        }
    }

    /// Every bucket that is not full, at most `most` of them.
    pub(crate) fn used(&self, now: u64, most: usize) -> Vec<Slot> {
        let sets = self.sets();
        let slots = sets.iter().flatten();
        slots
            .filter(|[_, _, full_at]| *full_at > now)
            .take(most)
            .copied()
            .collect()
    }

    /// Puts buckets of a process before back.
    pub(crate) fn restore(&self, slots: impl Iterator<Item = Slot>) {
        let mut sets = self.sets();
        for [first, second, full_at] in slots {
            let bucket = [first, second];
            put(&mut sets, Key { owner: 0, bucket }, full_at);
        }
    }

    fn sets(&self) -> MutexGuard<'_, Vec<[Slot; WAYS]>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full_at(sets: &[[Slot; WAYS]], key: Key) -> u64 {
    let set = sets.get(place(key, sets.len()));
    let slot = set.and_then(|set| set.iter().find(|slot| owns(key, slot)));
    slot.map_or(0, |[_, _, full_at]| *full_at)
}

fn put(sets: &mut [[Slot; WAYS]], key: Key, full_at: u64) {
    let place = place(key, sets.len());
    let Some(set) = sets.get_mut(place) else {
        return;
    };
    // Its own slot, else the one that is free or nearest to it.
    let slot = match set.iter().position(|slot| owns(key, slot)) {
        Some(own) => set.get_mut(own),
        None => set.iter_mut().min_by_key(|[_, _, full_at]| *full_at),
    };
    if let Some(slot) = slot {
        let [first, second] = key.bucket;
        *slot = [first, second, full_at];
    }
}

fn place(key: Key, sets: usize) -> usize {
    let [first, _] = key.bucket;
    usize::try_from(first).unwrap_or(usize::MAX) % sets
}

fn owns(key: Key, [first, second, _]: &Slot) -> bool {
    key.bucket == [*first, *second]
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::super::gcra::Limit;
    use super::super::keys::Naming;
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000;
    const LIMIT: Limit = Limit { rate: 60, burst: 2 };

    struct Table(Buckets, Naming);

    impl Table {
        fn new(capacity: usize) -> Self {
            Self(Buckets::new(capacity), Naming::Own(OnceLock::new()))
        }

        fn items(&self, limits: &[(&'static str, Limit)], who: &str) -> Items {
            let mut items = Items::default();
            for (policy, limit) in limits {
                let key = self.1.key(policy, *limit, &[], &[who.as_bytes()]);
                items.push(policy, *limit, key);
            }
            items
        }

        fn take(&self, who: &str) -> bool {
            let items = self.items(&[("p", LIMIT)], who);
            self.0.decide(&items, NOW, 1).wait == 0
        }
    }

    #[test]
    fn everybody_has_a_bucket() {
        let table = Table::new(64);
        assert_eq!(
            ["a", "a", "a", "b"].map(|who| table.take(who)),
            [true, true, false, true]
        );
    }

    #[test]
    fn two_limits_share_one_decision() {
        let table = Table::new(64);
        let tight = Limit { rate: 60, burst: 1 };
        let both = table.items(&[("wide", LIMIT), ("tight", tight)], "a");
        assert_eq!(table.0.decide(&both, NOW, 1).wait, 0);
        let refused = table.0.decide(&both, NOW, 1);
        assert_eq!(refused.wait, 1_000_000);
        let left: Vec<_> = refused.buckets().iter().map(|b| b.remaining(NOW)).collect();
        assert_eq!(left, [1, 0]);
    }

    #[test]
    fn beyond_its_size_the_fullest_bucket_makes_room() {
        let table = Table::new(WAYS);
        let take = |who: &str| table.take(who);
        assert!(take("nearly full"));
        for who in 1..WAYS {
            assert!(take(&who.to_string()) && take(&who.to_string()));
        }
        assert!(take("one more"));
        assert!(take("nearly full") && take("nearly full"), "it starts anew");
        assert!(!take("1") || !take("2"), "who had less left was kept");
    }

    #[test]
    fn what_is_used_outlives_a_table() {
        let before = Table::new(64);
        assert!(before.take("a") && before.take("a") && before.take("b"));
        let used = before.0.used(NOW, 10);
        assert_eq!(used.len(), 2);
        assert_eq!(
            before.0.used(NOW + 10_000_000, 10),
            [] as [Slot; 0],
            "full again"
        );
        let after = Table::new(8);
        after.1.adopt(before.1.seeds().unwrap_or_default());
        after.0.restore(used.into_iter());
        assert_eq!(
            ["a", "b", "b", "c"].map(|who| after.take(who)),
            [false, true, false, true]
        );
    }

    #[test]
    fn a_mirrored_bucket_is_as_empty_on_another_clock() {
        let table = Table::new(8);
        let items = table.items(&[("p", LIMIT)], "a");
        let elsewhere = Buckets::new(8);
        let decided = elsewhere.decide(&items, NOW - 5_000_000, 2);
        table.0.mirror(&items, &decided, NOW);
        assert_eq!(table.0.decide(&items, NOW, 1).wait, 1_000_000);
    }
}
