//! Tokens that were verified, so that a signature is checked once a token.

use std::sync::Arc;

use ahash::RandomState;
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
/// verified, byte for byte. A hash under seeds that nobody knows finds it.
pub(super) struct Tokens(Cache<Box<[u8]>, Arc<Verified>, RandomState>);

impl Tokens {
    /// Room for as many tokens.
    pub(super) fn new(capacity: u64) -> Self {
        Self(Cache::builder().max_capacity(capacity).build_with_hasher(RandomState::new()))
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Verified>> {
        self.0.get(token)
    }

    pub(super) fn insert(&self, token: &[u8], verified: Verified) {
        self.0.insert(token.into(), Arc::new(verified));
    }
}
