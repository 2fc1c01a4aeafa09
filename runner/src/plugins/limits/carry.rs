//! What a worker leaves to the one that takes over from it: the buckets that are not
//! full, with the seeds of their names.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::limiter::Limiter;
use super::store::Slot;

/// Buckets that are left at most: 24 MiB of them.
const MOST: usize = 1 << 20;

impl Limiter {
    /// Everything that is to outlive this process.
    pub(crate) fn leave(&self, now: u64) -> Bytes {
        // Where all runners share their buckets they are not this process's to leave.
        let Some(seeds) = self.naming.seeds() else {
            return Bytes::new();
        };
        let used = self.buckets.used(now, MOST);
        let mut left = BytesMut::with_capacity((used.len() * 3 + seeds.len()) * 8);
        for word in seeds.iter().chain(used.iter().flatten()) {
            left.put_u64_le(*word);
        }
        left.freeze()
    }

    /// Goes on from there, before the first request. What cannot be read is left out:
    /// the supervisor keeps to one build, so that would be a mistake of ours.
    pub(crate) fn take_over(&self, left: &[u8]) {
        let (words, _) = left.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (Some(first), Some(second)) = (words.next(), words.next()) else {
            return;
        };
        self.naming.adopt([first, second]);
        if self.naming.seeds() != Some([first, second]) {
            return;
        }
        let next = || -> Option<Slot> { Some([words.next()?, words.next()?, words.next()?]) };
        self.buckets.restore(std::iter::from_fn(next));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Items;
    use super::super::gcra::Limit;
    use super::super::store::Buckets;
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000;

    fn take(limiter: &Limiter, who: &str) -> bool {
        let limit = Limit { rate: 60, burst: 2 };
        let mut items = Items::default();
        items.push("p", limit, limiter.key("p", limit, &[], &[who.as_bytes()]));
        limiter.decide_here(&items, NOW, 1).wait == 0
    }

    fn local() -> Limiter {
        Limiter::local(Buckets::new(64))
    }

    #[test]
    fn a_successor_goes_on_where_the_one_before_stood() {
        let before = local();
        assert!(take(&before, "a") && take(&before, "a") && take(&before, "b"));
        let after = local();
        after.take_over(&before.leave(NOW));
        assert_eq!(
            ["a", "b", "b", "c"].map(|who| take(&after, who)),
            [false, true, false, true]
        );
    }

    #[test]
    fn what_is_no_legacy_is_left_out() {
        let before = local();
        assert!(take(&before, "a"));
        let left = before.leave(NOW);
        for end in 0..left.len() {
            let after = local();
            after.take_over(left.get(..end).unwrap_or_default());
            assert!(take(&after, "a") && take(&after, "a"));
        }
    }
}
