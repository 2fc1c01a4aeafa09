//! Caches that every request reads.
//!
//! A look-up takes a shared lock and sets a mark on the entry: no clock, no record of the
//! reading that somebody has to work through later.

use std::hash::{BuildHasher, Hash};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter};

/// So many threads rarely meet at one lock. Small caches have fewer parts.
const PARTS: usize = 16;

/// Entries by key, each of the same weight.
pub(super) type Entries<K, V, B> = Cache<K, V, UnitWeighter, B>;

/// Room for as many entries, rounded up to a multiple of [`PARTS`]; beyond them those used
/// least make room.
pub(super) fn with_room<K, V, B>(capacity: u64, hashes: B) -> Entries<K, V, B>
where
    K: Eq + Hash,
    V: Clone,
    B: BuildHasher + Clone,
{
    let options = OptionsBuilder::new()
        .shards(PARTS)
        .estimated_items_capacity(usize::try_from(capacity).unwrap_or(usize::MAX))
        .weight_capacity(capacity)
        .build();
    #[expect(
        clippy::expect_used,
        reason = "it fails only where a capacity is missing"
    )]
    let options = options.expect("both capacities are set");
    Cache::with_options(options, UnitWeighter, hashes, DefaultLifecycle::default())
}
