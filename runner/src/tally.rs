//! Requests that a whole chain let go on: one addition each, put down to every plugin of
//! the chain when the numbers are read.
//!
//! Nearly all requests are such, and the recorder's own counters take two additions that
//! other threads can see at every plugin.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use metrics::Counter;

/// One chain's requests.
pub(crate) struct Tally {
    requests: AtomicU64,
    counters: Vec<Counter>,
}

/// Those of the chains there are.
static TALLIES: Mutex<Vec<Weak<Tally>>> = Mutex::new(Vec::new());

impl Tally {
    /// What is added counts for each of these.
    pub(crate) fn new(counters: Vec<Counter>) -> Arc<Self> {
        let tally = Arc::new(Self {
            requests: AtomicU64::new(0),
            counters,
        });
        let mut tallies = tallies();
        tallies.retain(|known| known.strong_count() > 0);
        tallies.push(Arc::downgrade(&tally));
        tally
    }

    pub(crate) fn add(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    fn settle(&self) {
        let requests = self.requests.swap(0, Relaxed);
        if requests > 0 {
            for counter in &self.counters {
                counter.increment(requests);
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Brings the recorder's counters up to date.
pub(crate) fn settle() {
    // Not settled under the lock: the last of a tally may go meanwhile.
    let all = tallies().clone();
    for tally in all.iter().filter_map(Weak::upgrade) {
        tally.settle();
    }
}

fn tallies() -> MutexGuard<'static, Vec<Weak<Tally>>> {
    TALLIES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_was_added_is_counted_once_also_when_the_chain_goes() {
        let counted = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let counters = counted.iter().cloned().map(Counter::from_arc).collect();
        let tally = Tally::new(counters);
        let now = || counted.each_ref().map(|counter| counter.load(Relaxed));
        tally.add();
        tally.add();
        assert_eq!(now(), [0, 0]);
        settle();
        settle();
        assert_eq!(now(), [2, 2]);
        tally.add();
        drop(tally);
        assert_eq!(now(), [3, 3]);
    }
}
