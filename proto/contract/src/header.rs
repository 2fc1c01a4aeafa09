//! Header names, and the rules of the values that both sides read.
//!
//! Names are in lower case, as the gateway hands them to the runner.

/// The sealed context, set by the runner for our handlers.
pub const POSTERN_CONTEXT: &str = "x-postern-context";
/// Ties a request, its answer and the logs together.
pub const CORRELATION_ID: &str = "x-correlation-id";
/// The date of the API that the client was written for.
pub const API_VERSION: &str = "x-api-version";
/// The client's name for one action and all its retries.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// On a replayed answer: `true`.
pub const IDEMPOTENCY_REPLAYED: &str = "x-idempotency-replayed";
/// On a replay of an outcome too large to keep: `omitted`.
pub const IDEMPOTENCY_BODY: &str = "x-idempotency-body";
/// The rate in requests a minute.
pub const RATE_LIMIT_LIMIT: &str = "x-ratelimit-limit";
/// How many requests would pass now.
pub const RATE_LIMIT_REMAINING: &str = "x-ratelimit-remaining";
/// The epoch second at which the bucket is full.
pub const RATE_LIMIT_RESET: &str = "x-ratelimit-reset";
/// IETF draft `ratelimit-headers` 11: the state of the policies.
pub const RATE_LIMIT: &str = "ratelimit";
/// IETF draft `ratelimit-headers` 11: the policies.
pub const RATE_LIMIT_POLICY: &str = "ratelimit-policy";
/// Headers that `mode: headers` projects for upstreams that are not our handlers.
pub const AUTH: [&str; 6] = [
    "x-auth-subject",
    "x-auth-tenant-id",
    "x-auth-workspace-id",
    "x-auth-plan-id",
    "x-auth-roles",
    "x-auth-scopes",
];

/// With as many visible headers a request is refused: the gateway shows the
/// runner 100, and what stands beyond travels unseen.
pub const MAX_HEADERS: usize = 90;

/// Whether a value is a correlation id: `^[A-Za-z0-9._:-]{8,128}$`.
#[must_use]
pub fn is_correlation_id(value: &[u8]) -> bool {
    let allowed = |byte: &u8| OF_ID.get(usize::from(*byte)) == Some(&true);
    (8..=128).contains(&value.len()) && value.iter().all(allowed)
}

/// Which bytes a correlation id may have: looked up, as every request brings one.
#[expect(
    clippy::indexing_slicing,
    reason = "computed while compiling, where it would be an error"
)]
static OF_ID: [bool; 256] = {
    let mut of_id = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        of_id[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
        byte += 1;
    }
    of_id
};

/// A correlation id for a request that brought none.
#[must_use]
pub fn new_correlation_id() -> String {
    format!("cor_{}", ulid::Ulid::generate())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_ids() {
        for good in [
            "12345678",
            "a.b_c:d-e",
            &"x".repeat(128),
            &new_correlation_id(),
        ] {
            assert!(is_correlation_id(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "1234567",
            &"x".repeat(129),
            "with space",
            "umlaut-\u{e4}",
            "new\nline",
        ] {
            assert!(!is_correlation_id(bad.as_bytes()), "{bad:?}");
        }
    }
}
