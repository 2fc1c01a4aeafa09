//! Refused credentials, answered alike and at the same pace.
//!
//! Keycloak hashes for an unknown user as it does for a wrong password (140 ms each,
//! measured), but a user who has no password yet, a client or a realm that does not exist
//! are refused in 2 ms, which tells them apart. So a refusal waits for the next full step
//! since the request began, and all that take less than a step take the same. A log-in
//! that succeeds waits for nothing.

use std::time::Duration;

use http::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use postern_common::Failure;
use postern_contract::Code;
use tokio::time::Instant;

/// The refusal of credentials, whatever was wrong with them.
pub(crate) fn invalid_credentials() -> Failure {
    Failure::new(
        Code::InvalidCredentials,
        "these credentials are not good for a token; check each of them, the client and the grant",
    )
    .with_header(WWW_AUTHENTICATE, "Bearer realm=\"postern\"")
    .with_header(CACHE_CONTROL, "no-store")
}

/// Waits until the next multiple of `step` since `began`.
pub(crate) async fn wait(began: Instant, step: Duration) {
    tokio::time::sleep_until(began + until(began.elapsed(), step)).await;
}

fn until(passed: Duration, step: Duration) -> Duration {
    let steps = passed.as_nanos().div_ceil(step.as_nanos().max(1)).max(1);
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_less_than_a_step_takes_the_same() {
        let step = Duration::from_millis(500);
        let ends = |ms| until(Duration::from_millis(ms), step).as_millis();
        assert_eq!([0, 1, 140, 500].map(ends), [500; 4]);
        assert_eq!([501, 1000, 1001].map(ends), [1000, 1000, 1500]);
    }
}
