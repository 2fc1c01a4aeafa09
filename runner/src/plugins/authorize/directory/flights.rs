//! One question for all who ask the same at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use super::{Away, Entry};

type Flight = Shared<BoxFuture<'static, Result<Arc<Entry>, Away>>>;

/// The last number, and flights by id, each with its own.
type Numbered = (u64, HashMap<String, (u64, Flight)>);

/// Questions under way by id, each with its number. There are never more than requests
/// that wait for one.
#[derive(Default)]
pub(super) struct Flights(Mutex<Numbered>);

impl Flights {
    /// Joins the flight for this id, or starts one.
    pub(super) fn join(
        &self,
        id: &str,
        start: impl FnOnce(u64) -> BoxFuture<'static, Result<Arc<Entry>, Away>>,
    ) -> Flight {
        let mut flights = self.lock();
        let (last, by_id) = &mut *flights;
        if let Some((_, flight)) = by_id.get(id) {
            return flight.clone();
        }
        *last += 1;
        let flight = start(*last).shared();
        by_id.insert(id.to_owned(), (*last, flight.clone()));
        flight
    }

    /// A flight has landed: the next who asks starts another.
    pub(super) fn landed(&self, id: &str, number: u64) {
        let (_, by_id) = &mut *self.lock();
        // It may be another's already.
        if by_id.get(id).is_some_and(|(known, _)| *known == number) {
            by_id.remove(id);
        }
    }

    /// Who is under way arrives; nobody joins any more.
    pub(super) fn forget(&self, id: &str) {
        self.lock().1.remove(id);
    }

    pub(super) fn forget_all(&self) {
        self.lock().1.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
