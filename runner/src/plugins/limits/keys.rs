//! What a bucket is called.
//!
//! The buckets of one process are named by a keyed hash whose seeds no client knows, so
//! that nobody can aim at another's; those in Redis, which all runners share, by SHA-256.
//! Either way a name says nothing about whom it stands for, and a part of it may be shown
//! (`pk` of `RateLimit-Policy`).

use std::hash::Hash;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use rand::RngExt as _;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::gcra::Limit;
use crate::{Caller, Identity};

/// Names a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Buckets of one owner share it, and so a slot of a Redis cluster. 0 in one process.
    pub(crate) owner: u64,
    pub(crate) bucket: [u64; 2],
}

/// How keys are made.
pub(crate) enum Naming {
    /// For this process and those that take its buckets over.
    Own(OnceLock<[u64; 2]>),
    /// For all runners of a deployment.
    Shared,
}

impl Naming {
    /// The seeds of this process's names: drawn when first needed.
    pub(crate) fn seeds(&self) -> Option<[u64; 2]> {
        match self {
            Self::Own(seeds) => Some(*seeds.get_or_init(|| rand::rng().random())),
            Self::Shared => None,
        }
    }

    /// Names buckets as the process before did; too late once one has been named.
    pub(crate) fn adopt(&self, before: [u64; 2]) {
        if let Self::Own(seeds) = self {
            let _ = seeds.set(before);
        }
    }

    /// The key of a policy's bucket for an owner and what else tells it from others; no
    /// two lists of pieces give the same.
    pub(crate) fn key(&self, policy: &str, limit: Limit, owner: &[&[u8]], rest: &[&[u8]]) -> Key {
        match self.seeds() {
            Some(seeds) => own_key(seeds, (policy, limit, owner, rest)),
            None => shared_key(policy, limit, owner, rest),
        }
    }

    /// The key of a caller's bucket. In this process it is made of what the caller is
    /// called for all its requests: no text is gone over again.
    pub(crate) fn key_of_caller(&self, policy: &str, limit: Limit, who: &Caller) -> Key {
        match self.seeds() {
            Some(seeds) => {
                let hash = |who: &Identity| own_hash(seeds, (owner(who), &who.subject));
                own_key(seeds, (policy, limit, who.name(seeds, hash)))
            }
            None => shared_key(policy, limit, &owner(who), &[who.subject.as_bytes()]),
        }
    }
}

/// Whose buckets a caller's are: its tenant's.
pub(crate) fn owner(who: &Identity) -> [&[u8]; 2] {
    let tenant = who.tenant.as_deref().unwrap_or_default();
    [&who.issuer, tenant].map(str::as_bytes)
}

fn own_key(seeds: [u64; 2], of: impl Hash) -> Key {
    Key {
        owner: 0,
        bucket: own_hash(seeds, of),
    }
}

fn own_hash([first, second]: [u64; 2], of: impl Hash) -> [u64; 2] {
    let mut hasher = SipHasher13::new_with_keys(first, second);
    of.hash(&mut hasher);
    let hash = hasher.finish128();
    [hash.h1, hash.h2]
}

fn shared_key(policy: &str, limit: Limit, owner: &[&[u8]], rest: &[&[u8]]) -> Key {
    let of_owner = digest_of(&[], owner);
    let limit = [limit.rate.to_be_bytes(), limit.burst.to_be_bytes()].concat();
    let of_bucket = digest_of(&[policy.as_bytes(), &limit, of_owner.as_ref()], rest);
    Key {
        owner: word(&of_owner, 0),
        bucket: [word(&of_bucket, 0), word(&of_bucket, 1)],
    }
}

impl Key {
    /// What a client may see of it: enough to tell its partitions apart.
    pub(crate) fn partition(self) -> [u8; 8] {
        let [first, _] = self.bucket;
        first.to_be_bytes()
    }
}

/// The lengths tell where a piece ends.
fn digest_of(first: &[&[u8]], rest: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in first.iter().chain(rest) {
        context.update(&(piece.len() as u64).to_be_bytes());
        context.update(piece);
    }
    context.finish()
}

fn word(digest: &digest::Digest, index: usize) -> u64 {
    let (words, _) = digest.as_ref().as_chunks::<8>();
    words.get(index).copied().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { rate: 60, burst: 2 };

    fn own() -> Naming {
        Naming::Own(OnceLock::new())
    }

    #[test]
    fn pieces_do_not_run_together() {
        for naming in [own(), Naming::Shared] {
            let key = |owner: &[&[u8]], rest: &[&[u8]]| naming.key("p", LIMIT, owner, rest);
            let all = [
                key(&[b"ab", b"c"], &[]),
                key(&[b"a", b"bc"], &[]),
                key(&[b"ab"], &[b"c"]),
                key(&[], &[b"ab", b"c"]),
                naming.key("q", LIMIT, &[b"ab", b"c"], &[]),
                naming.key("p", Limit { rate: 2, burst: 60 }, &[b"ab", b"c"], &[]),
            ];
            for (index, key) in all.iter().enumerate() {
                assert_eq!(all.iter().position(|other| other == key), Some(index));
            }
        }
    }

    #[test]
    fn who_takes_over_names_alike_and_others_do_not() {
        let (before, after, other) = (own(), own(), own());
        let key = |naming: &Naming| naming.key("p", LIMIT, &[b"a"], &[]);
        after.adopt(before.seeds().unwrap_or_default());
        assert_eq!(key(&before), key(&after));
        assert_ne!(key(&before), key(&other));
        assert_eq!(key(&Naming::Shared), key(&Naming::Shared));
    }

    #[test]
    fn an_owners_buckets_share_a_slot() {
        let of = |owner: &[u8], rest: &[u8]| Naming::Shared.key("p", LIMIT, &[owner], &[rest]);
        assert_eq!(of(b"acme", b"x").owner, of(b"acme", b"y").owner);
        assert_ne!(of(b"acme", b"x").bucket, of(b"acme", b"y").bucket);
        assert_ne!(of(b"acme", b"x").owner, of(b"other", b"x").owner);
    }
}
