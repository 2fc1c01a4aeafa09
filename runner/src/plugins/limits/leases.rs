//! Shares taken ahead: most decisions then need no round trip.
//!
//! A bucket's lease is a stock of requests that Redis has counted as taken already. A
//! request is decided from the stocks of all its limits; where one is used up the store is
//! asked, and by one request at a time for more than itself: twice as much as the time
//! before, up to a share of the burst. What is not used for a while is given back.
//!
//! So a runner holds `share` of a bucket at most, and `n` runners let at most
//! `rate + burst + n × share` pass in a minute, and no less than `n × share` below what
//! an exact store would. What a bucket refused is refused here until it would pass.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use super::gcra::{Bucket, Limit};
use super::redis::{Ask, Of};
use super::{Decision, Item, Items};

/// A lease that was not used for so long is given back, in microseconds.
const IDLE: u64 = 1_000_000;

pub(super) struct Leases {
    /// Percent of a burst that a runner may hold.
    share: u32,
    /// Leases held at once; beyond it requests are decided one by one.
    capacity: usize,
    held: Mutex<HashMap<[u64; 2], Lease, RandomState>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    item: Item,
    stock: u32,
    /// How many were taken ahead last.
    last: u32,
    /// Somebody is asking for more.
    asking: bool,
    /// As the store knows it, on this process's clock: the stock counts as taken.
    full_at: u64,
    /// The store has refused so many, and would until then.
    refused: u32,
    refused_until: u64,
    used_at: u64,
}

/// A request on its way to the store. Dropped half-way, it puts back what it took here.
pub(super) struct Asking<'l> {
    leases: &'l Leases,
    items: Items,
    pub(super) asks: Of<Ask>,
    /// Taken from a stock.
    from_stock: Of<u32>,
    /// Asks for more than itself.
    ahead: Of<bool>,
}

impl Leases {
    pub(super) fn new(share: u32, capacity: usize) -> Self {
        Self {
            share,
            capacity,
            held: Mutex::default(),
        }
    }

    /// Decides from what is held, if that is enough to decide.
    pub(super) fn decide(&self, items: &Items, now: u64, cost: u32) -> Option<Decision> {
        let mut held = self.held();
        let mut decision = Decision::new(items, now);
        let mut enough = true;
        for (bucket, item) in decision.buckets.iter_mut().zip(items.iter()) {
            let lease = held.get(&item.key.bucket)?;
            bucket.full_at = lease.shown(now);
            let cost = cost.min(item.limit.burst);
            if lease.stock < cost {
                enough = false;
                if cost >= lease.refused {
                    decision.wait = decision.wait.max(lease.refused_until.saturating_sub(now));
                }
            }
        }
        if !enough {
            return (decision.wait > 0).then_some(decision);
        }
        for (bucket, item) in decision.buckets.iter_mut().zip(items.iter()) {
            if let Some(lease) = held.get_mut(&item.key.bucket) {
                lease.stock -= cost.min(item.limit.burst);
                lease.used_at = now;
                bucket.full_at = lease.shown(now);
            }
        }
        Some(decision)
    }

    /// What to ask the store for.
    pub(super) fn ask(&self, items: &Items, now: u64, cost: u32) -> Asking<'_> {
        let mut asking = Asking {
            leases: self,
            items: *items,
            asks: Of::default(),
            from_stock: Of::default(),
            ahead: Of::default(),
        };
        let mut held = self.held();
        for (index, item) in items.iter().enumerate() {
            let cost = cost.min(item.limit.burst);
            let room = held.len() < self.capacity;
            let lease = match held.get_mut(&item.key.bucket) {
                Some(lease) => Some(lease),
                None if room => Some(held.entry(item.key.bucket).or_default()),
                None => None,
            };
            let mut ask = Ask {
                least: cost,
                most: cost,
            };
            if let Some(lease) = lease {
                lease.item = *item;
                lease.used_at = now;
                if lease.stock >= cost {
                    lease.stock -= cost;
                    set(&mut asking.from_stock, index, cost);
                    ask = Ask::default();
                } else if !lease.asking {
                    lease.asking = true;
                    set(&mut asking.ahead, index, true);
                    let share = self.share_of(item.limit).saturating_sub(lease.stock);
                    let more = lease.last.saturating_mul(2).clamp(1, share.max(1));
                    ask.most = cost.max(more);
                }
            }
            set(&mut asking.asks, index, ask);
        }
        asking
    }

    /// How much of a limit a runner may hold.
    pub(super) fn share_of(&self, limit: Limit) -> u32 {
        let share = u64::from(limit.burst) * u64::from(self.share) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(1)
    }

    /// Takes out what was not used for a while, or everything, for it to be given back.
    pub(super) fn unused(&self, now: u64, everything: bool) -> Vec<(Item, u32)> {
        let mut unused = Vec::new();
        self.held().retain(|_, lease| {
            let idle = lease.used_at.saturating_add(IDLE) < now && lease.refused_until < now;
            let keep = lease.asking || !(idle || everything);
            if !keep && lease.stock > 0 {
                unused.push((lease.item, lease.stock));
            }
            keep
        });
        unused
    }

    fn held(&self) -> MutexGuard<'_, HashMap<[u64; 2], Lease, RandomState>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// When the bucket is full if what is in stock counts as not taken: what a client is
    /// told of, to whom shares are none of its business.
    fn shown(&self, now: u64) -> u64 {
        let stock = u64::from(self.stock).saturating_mul(self.item.limit.interval());
        self.full_at.saturating_sub(stock).max(now)
    }
}

impl Asking<'_> {
    /// The store has decided. Stocks what was taken beyond the request's own cost, and
    /// gives the decision as the client is told of it, on this process's clock.
    pub(super) fn decided(mut self, decided: &Decision, taken: &Of<u32>, now: u64) -> Decision {
        let mut told = *decided;
        told.now = now;
        let mut held = self.leases.held();
        for (index, item) in self.items.iter().enumerate() {
            let Some(bucket) = told.buckets.get_mut(index) else {
                continue;
            };
            let wait = match at(&self.asks, index).least {
                0 => 0,
                cost => bucket.wait(decided.now, cost),
            };
            *bucket = Bucket {
                limit: item.limit,
                full_at: now.saturating_add(bucket.full_in(decided.now)),
            };
            let Some(lease) = held.get_mut(&item.key.bucket) else {
                continue;
            };
            lease.full_at = bucket.full_at;
            if decided.wait == 0 {
                lease.refused_until = 0;
                let more = at(taken, index).saturating_sub(at(&self.asks, index).least);
                lease.stock = lease.stock.saturating_add(more);
                // Used: it is not put back.
                set(&mut self.from_stock, index, 0);
                if at(&self.ahead, index) {
                    lease.last = at(taken, index);
                }
            } else if wait > 0 {
                lease.refused = at(&self.asks, index).least;
                lease.refused_until = now.saturating_add(wait);
                lease.last = 0;
            }
            bucket.full_at = lease.shown(now);
        }
        drop(held);
        told
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut held = self.leases.held();
        for (index, item) in self.items.iter().enumerate() {
            if let Some(lease) = held.get_mut(&item.key.bucket) {
                lease.stock = lease.stock.saturating_add(at(&self.from_stock, index));
                if at(&self.ahead, index) {
                    lease.asking = false;
                }
            }
        }
    }
}

fn at<T: Copy + Default>(of: &Of<T>, index: usize) -> T {
    of.get(index).copied().unwrap_or_default()
}

fn set<T>(of: &mut Of<T>, index: usize, value: T) {
    if let Some(place) = of.get_mut(index) {
        *place = value;
    }
}
