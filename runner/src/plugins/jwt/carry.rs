//! What a worker leaves to the one that takes over from it: the key sets of its issuers
//! and how long they are still good, so that a reload neither asks a thousand issuers at
//! once nor forgets one that is away.
//!
//! The heir takes a set only for an issuer that its own configuration trusts and whose
//! keys it would fetch from the same place, reads it by its own rules, and has it only
//! until its own first fetch: what that does not bring ends at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::issuer::Issuer;
use super::trust::Trust;

/// All of it, and of one issuer; who has more is asked again.
const MOST: usize = 16 << 20;
const MOST_OF_ONE: usize = 32 << 10;

/// One issuer's keys.
#[derive(Serialize, Deserialize)]
struct Left {
    issuer: String,
    /// Where the configuration said they are.
    jwks_uri: Option<String>,
    set: Value,
    good_for_ms: u64,
}

impl Trust {
    /// A line for each issuer that has keys.
    pub(super) fn leave(&self) -> Bytes {
        let mut left = Vec::new();
        for issuer in self.settled() {
            let Some(line) = line(&issuer) else { continue };
            if line.len() <= MOST_OF_ONE && left.len() + line.len() < MOST {
                left.extend(line);
                left.push(b'\n');
            }
        }
        left.into()
    }

    /// Goes on from there, before the first request.
    pub(super) fn take_over(&self, left: &[u8]) {
        for line in left.split(|byte| *byte == b'\n') {
            let Ok(left) = serde_json::from_slice::<Left>(line) else {
                continue;
            };
            self.take_in(&left.issuer, |issuer| {
                let set = issuer.read(left.set.to_string().as_bytes());
                if let Ok(set) = set
                    && issuer.jwks_uri() == left.jwks_uri
                {
                    issuer.inherit(set, Duration::from_millis(left.good_for_ms));
                }
            });
        }
    }
}

fn line(issuer: &Arc<Issuer>) -> Option<Vec<u8>> {
    let (set, good_for) = issuer.published()?;
    let left = Left {
        issuer: issuer.name().to_owned(),
        jwks_uri: issuer.jwks_uri(),
        set,
        good_for_ms: u64::try_from(good_for.as_millis()).ok()?,
    };
    serde_json::to_vec(&left).ok()
}
