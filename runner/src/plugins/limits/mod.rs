//! Rate limits, shared by `address-limit` and `rate-limit`.
//!
//! ```text
//! limits of a request (Items) → Limiter ── local ────────► store: buckets of this process
//!                                       ├─ leased ───────► leases: shares taken ahead, else ↓
//!                                       └─ exact ────────► redis: one script a decision
//!                                             away? onStoreDown: local, open, closed
//! ```
//!
//! The arithmetic is [`gcra`]'s in all three. What Redis decided is mirrored into the
//! buckets of this process, which go on from there when Redis is away.

pub(crate) mod calls;
pub(crate) mod carry;
pub(crate) mod gcra;
pub(crate) mod keys;
mod leases;
pub(crate) mod limiter;
mod redis;
pub(crate) mod settings;
pub(crate) mod store;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_contract::Code;

use crate::facts::RateLimit;
use crate::{Flow, Registry, Reply};

use gcra::{Bucket, Limit};
use keys::Key;
use limiter::Limiter;

/// Limits of one request at most: caller, tenant, plan, route, address.
const MOST: usize = 5;

/// One limit of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Item {
    pub(crate) policy: &'static str,
    pub(crate) limit: Limit,
    pub(crate) key: Key,
}

/// All limits of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Items {
    items: [Item; MOST],
    count: usize,
}

impl Items {
    /// Adds one; beyond [`MOST`] there are none.
    pub(crate) fn push(&mut self, policy: &'static str, limit: Limit, key: Key) {
        if let Some(item) = self.items.get_mut(self.count) {
            *item = Item { policy, limit, key };
            self.count += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().take(self.count)
    }
}

/// What was decided over all limits of a request, and how their buckets then stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    /// When, on the clock of the buckets; microseconds since 1970.
    pub(crate) now: u64,
    /// 0: it passes; else the microseconds until it would.
    pub(crate) wait: u64,
    buckets: [Bucket; MOST],
    count: usize,
}

impl Decision {
    /// Nothing was taken yet, and every bucket is full.
    fn new(items: &Items, now: u64) -> Self {
        let bucket = |item: Item| Bucket {
            limit: item.limit,
            full_at: 0,
        };
        Self {
            now,
            wait: 0,
            buckets: items.items.map(bucket),
            count: items.count,
        }
    }

    pub(crate) fn buckets(&self) -> &[Bucket] {
        self.buckets.get(..self.count).unwrap_or_default()
    }

    fn buckets_mut(&mut self) -> &mut [Bucket] {
        self.buckets.get_mut(..self.count).unwrap_or_default()
    }

    /// The limit that the client is told of: the one that refused for longest, else the
    /// one that will stop it first.
    pub(crate) fn tightest<'i>(&self, items: &'i Items, cost: u32) -> Option<(&'i Item, &Bucket)> {
        let all = items.iter().zip(self.buckets());
        if self.wait > 0 {
            all.max_by_key(|(_, bucket)| bucket.wait(self.now, cost))
        } else {
            all.min_by_key(|(_, bucket)| bucket.remaining(self.now))
        }
    }
}

/// Registers what outlives a worker, and what keeps the shared store, if there is one.
pub(crate) fn register(limiter: Arc<Limiter>, registry: Registry) -> Registry {
    let (leaving, heir) = (Arc::clone(&limiter), Arc::clone(&limiter));
    let registry = registry.with_legacy(
        "limits",
        move || leaving.leave(microseconds(SystemTime::now())),
        move |left| heir.take_over(left),
    );
    let Some(link) = limiter.link() else {
        return registry;
    };
    registry
        .with_task("store of limits", move |stop| link.keep(stop))
        .with_task("leases", move |stop| limiter.tend(stop))
}

/// Microseconds since 1970.
///
/// The wall clock, because `X-RateLimit-Reset` is a time of day; a clock that is set
/// back costs a client nothing (see [`gcra::Bucket`]).
pub(crate) fn microseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    in_microseconds(since.unwrap_or_default())
}

pub(crate) fn in_microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A limit with its bucket as it stands after the decision, for the answer's headers.
pub(crate) fn fact(item: &Item, bucket: &Bucket, now: u64) -> RateLimit {
    let full_in = bucket.full_in(now);
    let remaining = bucket.remaining(now);
    RateLimit {
        policy: item.policy,
        limit: bucket.limit.rate,
        burst: bucket.limit.burst,
        remaining,
        reset: seconds_up(now.saturating_add(full_in)),
        reset_after: match remaining {
            // Not later than `Retry-After`, which says when there is one again.
            0 => seconds_up(bucket.wait(now, 1)),
            _ => seconds_up(full_in),
        },
        partition: item.key.partition(),
    }
}

/// What a limiter that is used up says, in earnest or in shadow.
pub(crate) fn refuse(policy: &'static str, rate: u32, wait: u64, shadow: bool) -> Flow {
    if shadowed(policy, shadow) {
        return Flow::Next;
    }
    let seconds = seconds_up(wait).max(1);
    let message = format!(
        "the limit {policy} of {rate} requests a minute is used up; retry after {seconds} s"
    );
    Flow::Stop(
        Reply::refuse(Code::RateLimited, message).with_header("Retry-After", seconds.to_string()),
    )
}

/// Counts a refusal, and says whether it is in shadow only: then it is logged.
pub(crate) fn shadowed(policy: &'static str, shadow: bool) -> bool {
    let mode = if shadow { "shadow" } else { "enforced" };
    metrics::counter!("postern_limit_refused_total", "policy" => policy, "mode" => mode)
        .increment(1);
    if shadow {
        tracing::info!(policy, "a limit in shadow mode would have refused");
    }
    shadow
}

fn seconds_up(microseconds: u64) -> u64 {
    microseconds.div_ceil(1_000_000)
}

/// What stands for a client's address in a key. One IPv6 client has a whole /64.
pub(crate) fn address_key(address: Option<IpAddr>) -> [u8; 17] {
    let mut key = [0; 17];
    let (family, octets) = match address.map(|address| address.to_canonical()) {
        // The gateway always sends an address; without one all share a bucket.
        None => (0, [0; 16]),
        Some(IpAddr::V4(v4)) => (4, v4.to_ipv6_mapped().octets()),
        Some(IpAddr::V6(v6)) => (6, (u128::from(v6) >> 64 << 64).to_be_bytes()),
    };
    key[0] = family;
    if let Some(rest) = key.get_mut(1..) {
        rest.copy_from_slice(&octets);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_one_key() {
        let key = |text: &str| address_key(text.parse().ok());
        assert_eq!(key("2001:db8:1:2:aaaa::1"), key("2001:db8:1:2:bbbb::2"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), address_key(None));
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!([0, 1, 1_000_000, 1_000_001].map(seconds_up), [0, 1, 1, 2]);
    }
}
