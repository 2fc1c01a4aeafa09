//! Tokens that were verified, so that a signature is checked once a token.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ahash::{AHasher, RandomState};
use moka::sync::Cache;

use crate::Identity;

/// What stays true of a verified token for as long as its issuer's keys do.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) identity: Arc<Identity>,
    /// Its issuer's position among the trusted ones.
    pub(super) issuer: usize,
    /// The key set it was verified with.
    pub(super) generation: u64,
    /// `aud`, all of it: routes may ask for different ones.
    pub(super) audiences: Vec<String>,
    /// `nbf`, seconds since 1970; 0: none.
    pub(super) not_before: u64,
    /// `exp`, seconds since 1970.
    pub(super) expires_at: u64,
}

/// The verified tokens of this process, by their bytes: a hit is equal to what was
/// verified, byte for byte. A hash of its end under seeds that nobody knows finds it.
pub(super) struct Tokens(Cache<Box<[u8]>, Arc<Verified>, ByTheEnd>);

/// Hashes the last bytes of a token. They belong to its signature: two tokens that
/// were verified differ there, and the rest of one would only take longer to hash.
#[derive(Clone, Default)]
struct ByTheEnd(RandomState);

/// How many bytes are hashed.
const END: usize = 32;

struct EndHasher(AHasher);

impl BuildHasher for ByTheEnd {
    type Hasher = EndHasher;

    fn build_hasher(&self) -> EndHasher {
        EndHasher(self.0.build_hasher())
    }
}

impl Hasher for EndHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0
            .write(bytes.last_chunk::<END>().map_or(bytes, |end| end));
    }

    fn write_usize(&mut self, len: usize) {
        self.0.write_usize(len);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl Tokens {
    /// Room for as many tokens.
    pub(super) fn new(capacity: u64) -> Self {
        Self(
            Cache::builder()
                .max_capacity(capacity)
                .build_with_hasher(ByTheEnd::default()),
        )
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Verified>> {
        self.0.get(token)
    }

    pub(super) fn insert(&self, token: &[u8], verified: Verified) {
        self.0.insert(token.into(), Arc::new(verified));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_all_of_its_bytes() {
        let verified = || Verified {
            identity: Arc::default(),
            issuer: 0,
            generation: 1,
            audiences: Vec::new(),
            not_before: 0,
            expires_at: 1,
        };
        let signature = "s".repeat(END);
        let token = |claims: &str| format!("h.{claims}.{signature}").into_bytes();
        let tokens = Tokens::new(10);
        tokens.insert(&token("mine"), verified());
        tokens.insert(b"short", verified());
        assert!(tokens.get(&token("mine")).is_some());
        assert!(
            tokens.get(&token("another's")).is_none(),
            "the same signature says nothing"
        );
        assert!(tokens.get(b"short").is_some());
        assert!(tokens.get(b"other").is_none());
    }
}
