//! Rate limits: the arithmetic ([`gcra`]) and the buckets of this process ([`store`]),
//! shared by `address-limit` and `rate-limit`.

pub(crate) mod gcra;
pub(crate) mod store;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use postern_contract::Code;

use crate::facts::RateLimit;
use crate::{Flow, Reply};

use gcra::Bucket;

/// Nanoseconds since 1970.
///
/// The wall clock, because `X-RateLimit-Reset` is a time of day; a clock that is set
/// back costs a client nothing (see [`gcra::Bucket`]).
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A limiter's name with the bucket as it stands after the decision, for the answer's headers.
pub(crate) fn fact(policy: &str, bucket: &Bucket, now: u64) -> RateLimit {
    let full_in = bucket.full_in(now);
    RateLimit {
        policy: policy.to_owned(),
        limit: bucket.limit.rate,
        burst: bucket.limit.burst,
        remaining: bucket.remaining(now),
        reset: seconds_up(now.saturating_add(full_in)),
        reset_after: seconds_up(full_in),
    }
}

/// What a limiter that is used up says, in earnest or in shadow.
pub(crate) fn refuse(policy: &str, rate: u32, wait: u64, shadow: bool) -> Flow {
    let mode = if shadow { "shadow" } else { "enforced" };
    metrics::counter!("postern_limit_refused_total", "policy" => policy.to_owned(), "mode" => mode)
        .increment(1);
    if shadow {
        tracing::info!(policy, "a limit in shadow mode would have refused");
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

fn seconds_up(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
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

/// The interval between two requests at `rate` a minute, rounded so that a minute never
/// holds more than `rate` of them.
pub(crate) fn interval(rate: u32) -> u64 {
    let minute = u64::try_from(Duration::from_secs(60).as_nanos()).unwrap_or(u64::MAX);
    minute.div_ceil(u64::from(rate.max(1)))
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
        assert_eq!(
            [0, 1, 1_000_000_000, 1_000_000_001].map(seconds_up),
            [0, 1, 1, 2]
        );
    }
}
