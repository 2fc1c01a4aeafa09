//! The table of configurations by token, and the form they are kept in.
//!
//! A token is the hash of what it stands for, so that two routes with the same
//! `conf` share one, a restarted process gives the same one again, and a token that
//! the gateway kept from before never runs another route's policy.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{BufMut as _, Bytes};

/// Forgotten configurations whose token is kept from being given to others.
const GRAVES: usize = 65_536;

/// A route's `conf`, in one piece: for each entry the lengths and bytes of name and value.
pub(crate) fn pack<'c>(conf: impl Iterator<Item = (&'c [u8], &'c [u8])>) -> Bytes {
    let mut packed = Vec::new();
    for text in conf.flat_map(|(name, value)| [name, value]) {
        // A frame is shorter than 2²⁴ bytes.
        packed.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
        packed.put_slice(text);
    }
    packed.into()
}

/// The entries of a packed `conf`; `None` if it is none.
pub(crate) fn unpack(mut packed: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut text = || -> Option<&[u8]> {
        let (len, rest) = packed.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        packed = rest;
        Some(text)
    };
    let mut conf = Vec::new();
    while let Some(name) = text() {
        conf.push((name, text()?));
    }
    packed.is_empty().then_some(conf)
}

/// The token a configuration gets if no other has it: the start of its SHA-256, never 0.
pub(crate) fn token_of(packed: &[u8]) -> u32 {
    let digest = digest(&SHA256, packed);
    let start = digest.as_ref().first_chunk().copied().unwrap_or_default();
    u32::from_be_bytes(start).max(1)
}

/// Configurations by token. One process holds it for all workers.
#[derive(Debug)]
pub(crate) struct Tokens {
    slots: HashMap<u32, Slot>,
    /// How many configurations are kept.
    bound: usize,
    kept: usize,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    digest: [u8; 32],
    /// Gone once forgotten; the slot stays a while, so that its token is not given away.
    conf: Option<Bytes>,
    prepared: u64,
}

impl Tokens {
    /// A table that keeps `bound` configurations. Beyond it the one prepared longest
    /// ago is forgotten: the gateway is told so and prepares it again.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            slots: HashMap::new(),
            bound,
            kept: 0,
            clock: 0,
        }
    }

    /// The token of a configuration, the same for the same bytes.
    pub(crate) fn assign(&mut self, conf: &Bytes) -> u32 {
        self.clock += 1;
        let sum = sum(conf);
        let mut token = token_of(conf);
        loop {
            match self.slots.get_mut(&token) {
                Some(slot) if slot.digest == sum => {
                    slot.prepared = self.clock;
                    if slot.conf.replace(conf.clone()).is_none() {
                        self.kept += 1;
                    }
                    break;
                }
                // Taken by another: the next free one. 2³² are never all taken.
                Some(_) => token = token.wrapping_add(1).max(1),
                None => {
                    let conf = Some(conf.clone());
                    self.slots.insert(
                        token,
                        Slot {
                            digest: sum,
                            conf,
                            prepared: self.clock,
                        },
                    );
                    self.kept += 1;
                    break;
                }
            }
        }
        self.forget();
        token
    }

    /// The configuration behind a token.
    pub(crate) fn get(&self, token: u32) -> Option<&Bytes> {
        self.slots.get(&token)?.conf.as_ref()
    }

    /// Keeps the table within its bounds.
    fn forget(&mut self) {
        while self.kept > self.bound {
            let oldest = self.slots.values_mut().filter(|slot| slot.conf.is_some());
            let Some(oldest) = oldest.min_by_key(|slot| slot.prepared) else {
                return;
            };
            oldest.conf = None;
            self.kept -= 1;
        }
        while self.slots.len() > self.bound.saturating_add(GRAVES) {
            let graves = self.slots.iter().filter(|(_, slot)| slot.conf.is_none());
            let Some(token) = graves
                .min_by_key(|(_, slot)| slot.prepared)
                .map(|(t, _)| *t)
            else {
                return;
            };
            self.slots.remove(&token);
        }
    }
}

fn sum(conf: &[u8]) -> [u8; 32] {
    digest(&SHA256, conf)
        .as_ref()
        .try_into()
        .unwrap_or_default()
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is a failed test"
)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Bytes {
        pack([(b"plugin".as_slice(), text.as_bytes())].into_iter())
    }

    /// Two configurations with the same hash: among 2¹⁷ of them there are, for sure enough.
    fn collision() -> (Bytes, Bytes) {
        let mut seen = HashMap::new();
        for number in 0..1_000_000 {
            let conf = conf(&number.to_string());
            if let Some(other) = seen.insert(token_of(&conf), conf.clone()) {
                return (other, conf);
            }
        }
        panic!("no collision in a million hashes of 32 bits");
    }

    #[test]
    fn packing_is_reversible_and_nothing_else_unpacks() {
        let entries = vec![(b"a".as_slice(), b"{}".as_slice()), (b"", b"\xff")];
        let packed = pack(entries.iter().copied());
        assert_eq!(unpack(&packed).unwrap(), entries);
        assert_eq!(unpack(&[]).unwrap(), vec![]);
        for cut in 1..packed.len() {
            let whole = unpack(&packed[..cut]).is_none_or(|conf| conf.len() == 1);
            assert!(whole, "a part of {cut} bytes");
        }
    }

    #[test]
    fn the_same_configuration_has_one_token_and_others_another() {
        let mut tokens = Tokens::new(10);
        let a = tokens.assign(&conf("a"));
        assert_eq!(tokens.assign(&conf("a")), a);
        assert_ne!(tokens.assign(&conf("b")), a);
        assert_eq!(tokens.get(a), Some(&conf("a")));
        assert_eq!(Tokens::new(10).assign(&conf("a")), a, "after a restart");
    }

    #[test]
    fn a_collision_gives_the_second_one_the_next_token() {
        let (a, b) = collision();
        let mut tokens = Tokens::new(10);
        let (first, second) = (tokens.assign(&a), tokens.assign(&b));
        assert_eq!(second, first + 1);
        assert_eq!(
            (tokens.get(first), tokens.get(second)),
            (Some(&a), Some(&b))
        );
        assert_eq!((tokens.assign(&b), tokens.assign(&a)), (second, first));
    }

    #[test]
    fn a_forgotten_token_never_stands_for_another() {
        let (a, b) = collision();
        let mut tokens = Tokens::new(1);
        let first = tokens.assign(&a);
        tokens.assign(&conf("pushes a out"));
        assert_eq!(tokens.get(first), None);
        assert_eq!(tokens.assign(&b), first + 1, "b would have a's token");
        assert_eq!(tokens.assign(&a), first, "a gets its own again");
    }

    #[test]
    fn the_one_prepared_longest_ago_is_forgotten() {
        let mut tokens = Tokens::new(2);
        let [a, b] = ["a", "b"].map(|text| tokens.assign(&conf(text)));
        tokens.assign(&conf("a"));
        let c = tokens.assign(&conf("c"));
        assert!(tokens.get(a).is_some() && tokens.get(c).is_some());
        assert!(tokens.get(b).is_none());
    }
}
