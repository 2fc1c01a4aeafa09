//! How many requests may wait at once.
//!
//! A plugin that has to wait, for a store, the directory or an issuer, takes a place
//! first. Where none is free the request is refused at once, before anything was asked or
//! claimed for it: what waits already would only wait longer. Verdicts that take no
//! waiting need no place, so health, refusals and cached reads go on.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use postern_contract::Code;

use crate::plugin::Flow;
use crate::reply::Reply;

/// The places of one worker.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    limit: usize,
}

/// One of them, free again when dropped.
#[derive(Debug)]
pub(crate) struct Place<'p>(&'p AtomicUsize);

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            limit,
        }
    }

    /// A place, if there is one.
    pub(crate) fn take(&self) -> Option<Place<'_>> {
        let place = Place(&self.taken);
        // Taken first, and given back by the drop if it was one too many.
        (self.taken.fetch_add(1, Relaxed) < self.limit).then_some(place)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The answer where there is no place.
pub(crate) fn shed(plugin: &'static str) -> Flow {
    metrics::counter!("postern_shed_total", "plugin" => plugin).increment(1);
    let message = "the gateway has more requests under way than it can judge: retry later";
    let reply = Reply::refuse(Code::BackendUnavailable, message);
    Flow::Stop(reply.with_header("Retry-After", "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Places::new(2);
        let (one, two) = (places.take(), places.take());
        assert!(one.is_some() && two.is_some());
        assert!(places.take().is_none());
        assert_eq!(places.taken(), 2);
        drop(one);
        assert!(places.take().is_some());
        drop(two);
        assert_eq!(places.taken(), 0);
        assert!(Places::new(0).take().is_none());
    }
}
