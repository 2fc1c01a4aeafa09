//! Tokens that were verified, so that a signature is checked once a token.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ahash::{AHasher, RandomState};

use super::introspection::Standing;
use super::issuer::Issuer;
use super::keys::Key;
use super::revocations::Marks;
use crate::Caller;
use crate::plugins::cache::{Entries, with_room};

/// What stays true of a verified token for as long as its key is accepted.
pub(super) struct Verified {
    pub(super) identity: Caller,
    pub(super) issuer: Arc<Issuer>,
    /// The key that it was verified with.
    pub(super) key: Arc<Key>,
    /// `aud`, all of it: routes may ask for different ones.
    pub(super) audiences: Vec<String>,
    /// `nbf` or `iat`, whichever is later, seconds since 1970; 0: none.
    pub(super) not_before: u64,
    /// `exp`, seconds since 1970.
    pub(super) expires_at: u64,
    /// By what it can be revoked.
    pub(super) marks: Marks,
    /// What its issuer said when it was asked.
    pub(super) standing: Standing,
}

/// The verified tokens of this process, by their bytes: a hit is equal to what was
/// verified, byte for byte. A hash of its end under seeds that nobody knows finds it.
pub(super) struct Tokens(ByBytes<Arc<Verified>>);

type ByBytes<V> = Entries<Box<[u8]>, V, ByTheEnd>;

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
        Self(with_room(capacity, ByTheEnd::default()))
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<Arc<Verified>> {
        self.0.get(token)
    }

    pub(super) fn insert(&self, token: &[u8], verified: Arc<Verified>) {
        self.0.insert(token.into(), verified);
    }

    pub(super) fn remove(&self, token: &[u8]) {
        self.0.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_finds_it_and_all_of_it_must_be_equal() {
        let signature = "s".repeat(END);
        let token = |claims: &str| format!("h.{claims}.{signature}").into_bytes();
        let hashes = ByTheEnd::default();
        assert_eq!(
            hashes.hash_one(&*token("mine")),
            hashes.hash_one(&*token("hers"))
        );
        assert_ne!(
            hashes.hash_one(&b"short"[..]),
            hashes.hash_one(&b"other"[..])
        );
        let cache: ByBytes<u8> = with_room(10, hashes);
        cache.insert(token("mine").into(), 1);
        cache.insert(b"short"[..].into(), 2);
        assert_eq!(cache.get(&token("mine")[..]), Some(1));
        assert_eq!(
            cache.get(&token("hers")[..]),
            None,
            "the same signature says nothing"
        );
        assert_eq!(cache.get(&b"short"[..]), Some(2));
        assert_eq!(cache.get(&b"other"[..]), None);
    }
}
