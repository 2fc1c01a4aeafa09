//! An issuer's keys over time: the set it publishes, the keys that have left it and are
//! in their grace, and how old all of it is.
//!
//! ```text
//! published ── missing in a newer set ──► leaving ── grace over ──► retired
//!     └──── another key under its name, or no newer set for too long ────┘
//! ```
//!
//! A set that a process before has left has no grace: starting anew ends what is gone.
//!
//! Pure: the time is always told, never asked for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::keys::{Key, KeySet, MAX_KEYS};

/// The keys of one issuer.
#[derive(Default)]
pub(super) struct Keyring {
    published: Vec<Arc<Key>>,
    unusable: HashSet<String>,
    /// Keys that are no longer published, with the end of their grace; oldest first.
    leaving: Vec<(Arc<Key>, Instant)>,
    /// When all of this is too old to be relied on; `None`: there is nothing.
    good_until: Option<Instant>,
    /// It is of a process before, and no newer set has come.
    inherited: bool,
}

impl Keyring {
    /// Takes a newer set. A key that was there before stays the same, so that what it
    /// verified stays verified.
    pub(super) fn replace(&mut self, new: KeySet, now: Instant, grace: Duration, keep: Duration) {
        let grace = match std::mem::take(&mut self.inherited) {
            true => Duration::ZERO,
            false => grace,
        };
        let mut before: Vec<_> = self
            .published
            .drain(..)
            .map(|key| (key, now + grace))
            .collect();
        before.splice(0..0, self.leaving.drain(..));
        for key in new.keys {
            let same = before.iter().position(|(old, _)| old.is(&key));
            let key = same.map_or(key, |at| before.remove(at).0);
            self.published.push(key);
        }
        let replaced = |old: &Key| {
            old.kid().is_some() && self.published.iter().any(|new| new.kid() == old.kid())
        };
        let surplus = before.len().saturating_sub(MAX_KEYS);
        for (at, (key, ends)) in before.into_iter().enumerate() {
            if at < surplus || ends <= now || replaced(&key) {
                key.retire();
            } else {
                self.leaving.push((key, ends));
            }
        }
        self.unusable = new.unusable;
        self.good_until = Some(now + keep);
    }

    /// Goes on from the set of a process before, unless a newer one has come already.
    pub(super) fn inherit(&mut self, set: KeySet, until: Instant) {
        if self.good_until.is_none() {
            self.published = set.keys;
            self.unusable = set.unusable;
            self.good_until = Some(until);
            self.inherited = true;
        }
    }

    /// The last set as an issuer would send it, and until when it is good.
    pub(super) fn published(&self) -> Option<(Value, Instant)> {
        let keys = self.published.iter().map(|key| key.sent().clone());
        let unusable = self.unusable.iter().map(|kid| json!({ "kid": kid }));
        let keys: Vec<_> = keys.chain(unusable).collect();
        Some((json!({ "keys": keys }), self.good_until?))
    }

    /// Ends what has ended by now: graces, and everything if it is too old.
    pub(super) fn end(&mut self, now: Instant) {
        if self.good_until.is_some_and(|until| until <= now) {
            return self.clear();
        }
        self.leaving.retain(|(key, ends)| {
            let stays = now < *ends;
            if !stays {
                key.retire();
            }
            stays
        });
    }

    /// When [`Keyring::end`] has something to do next.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let leaving = self.leaving.iter().map(|(_, ends)| *ends);
        leaving.chain(self.good_until).min()
    }

    /// Retires every key.
    pub(super) fn clear(&mut self) {
        let leaving = self.leaving.drain(..).map(|(key, _)| key);
        self.published
            .drain(..)
            .chain(leaving)
            .for_each(|key| key.retire());
        self.unusable.clear();
        self.good_until = None;
        self.inherited = false;
    }

    /// What may verify now.
    pub(super) fn set(&self) -> KeySet {
        let leaving = self.leaving.iter().map(|(key, _)| Arc::clone(key));
        KeySet {
            keys: self.published.iter().cloned().chain(leaving).collect(),
            unusable: self.unusable.clone(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use jsonwebtoken::Algorithm;

    use super::*;
    use crate::plugins::jwt::keys::Rules;

    const GRACE: Duration = Duration::from_secs(60);
    const KEEP: Duration = Duration::from_secs(3600);

    /// An Ed25519 key is any 32 bytes until something is verified with it.
    fn key(kid: &str, x: char) -> Value {
        let x = x.to_string().repeat(42) + "A";
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
    }

    fn set(keys: &[Value]) -> KeySet {
        let rules = Rules {
            issuer: "https://a.example",
            algorithms: &[Algorithm::EdDSA],
            leeway: 30,
        };
        KeySet::read(json!({"keys": keys}).to_string().as_bytes(), &rules).unwrap()
    }

    fn names(ring: &Keyring) -> Vec<String> {
        let set = ring.set();
        set.keys
            .iter()
            .filter_map(|key| key.kid().map(str::to_owned))
            .collect()
    }

    fn named(ring: &Keyring, kid: &str) -> Arc<Key> {
        ring.set()
            .keys
            .into_iter()
            .find(|key| key.kid() == Some(kid))
            .unwrap()
    }

    #[test]
    fn a_key_that_left_is_good_until_its_grace_is_over() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut ring = Keyring::default();
        assert_eq!(ring.next_end(), None);
        ring.replace(set(&[key("old", 'A')]), start, GRACE, KEEP);
        let old = named(&ring, "old");
        assert_eq!(ring.next_end(), Some(start + KEEP));
        ring.replace(
            set(&[key("old", 'A'), key("new", 'B')]),
            after(10),
            GRACE,
            KEEP,
        );
        assert!(
            Arc::ptr_eq(&old, &named(&ring, "old")),
            "the same key, not another"
        );
        ring.replace(set(&[key("new", 'B')]), after(20), GRACE, KEEP);
        // A second set without it does not begin its grace again.
        ring.replace(set(&[key("new", 'B')]), after(50), GRACE, KEEP);
        assert_eq!(names(&ring), ["new", "old"]);
        assert_eq!(ring.next_end(), Some(after(80)));
        ring.end(after(79));
        assert!(old.is_accepted());
        ring.end(after(80));
        assert!(!old.is_accepted());
        assert_eq!(names(&ring), ["new"]);
        assert!(named(&ring, "new").is_accepted());
    }

    #[test]
    fn a_key_that_comes_back_in_its_grace_stays() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        ring.replace(set(&[key("a", 'A'), key("b", 'B')]), start, GRACE, KEEP);
        let a = named(&ring, "a");
        ring.replace(set(&[key("b", 'B')]), start, GRACE, KEEP);
        ring.replace(set(&[key("a", 'A'), key("b", 'B')]), start, GRACE, KEEP);
        ring.end(start + GRACE);
        assert!(a.is_accepted());
        assert_eq!(names(&ring), ["a", "b"]);
    }

    #[test]
    fn another_key_under_its_name_or_no_grace_retires_it_at_once() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        ring.replace(set(&[key("a", 'A')]), start, GRACE, KEEP);
        let first = named(&ring, "a");
        ring.replace(set(&[key("a", 'B')]), start, GRACE, KEEP);
        assert!(!first.is_accepted());
        let second = named(&ring, "a");
        ring.replace(set(&[key("c", 'C')]), start, Duration::ZERO, KEEP);
        assert!(!second.is_accepted());
        assert_eq!(names(&ring), ["c"]);
    }

    #[test]
    fn without_a_newer_set_everything_ends() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        ring.replace(set(&[key("a", 'A'), key("b", 'B')]), start, GRACE, KEEP);
        ring.replace(set(&[key("b", 'B')]), start, KEEP * 2, KEEP);
        let (a, b) = (named(&ring, "a"), named(&ring, "b"));
        ring.end(start + KEEP - Duration::from_millis(1));
        assert!(a.is_accepted() && b.is_accepted());
        ring.end(start + KEEP);
        assert!(!a.is_accepted() && !b.is_accepted(), "in its grace or not");
        assert!(ring.set().is_empty());
        assert_eq!(ring.next_end(), None);
    }

    #[test]
    fn an_inherited_set_is_good_until_the_first_of_ones_own() {
        let start = Instant::now();
        let mut before = Keyring::default();
        assert!(before.published().is_none());
        before.replace(
            set(&[key("a", 'A'), key("b", 'B'), json!({"kid": "no"})]),
            start,
            GRACE,
            KEEP,
        );
        let (left, until) = before.published().unwrap();
        let left = || set(left.get("keys").and_then(Value::as_array).unwrap());
        let mut heir = Keyring::default();
        heir.inherit(left(), until);
        assert_eq!(names(&heir), ["a", "b"]);
        assert!(heir.set().unusable.contains("no"));
        assert_eq!(heir.next_end(), Some(start + KEEP), "it grows no younger");
        let (a, b) = (named(&heir, "a"), named(&heir, "b"));
        heir.replace(set(&[key("b", 'B'), key("c", 'C')]), start, GRACE, KEEP);
        assert!(!a.is_accepted(), "without a grace");
        assert!(b.is_accepted());
        heir.replace(set(&[key("c", 'C')]), start, GRACE, KEEP);
        assert!(b.is_accepted(), "its grace is as ever");
        heir.inherit(left(), until);
        assert_eq!(names(&heir), ["c", "b"], "what was fetched is newer");
    }

    #[test]
    fn keys_that_leave_are_bounded() {
        let start = Instant::now();
        let mut ring = Keyring::default();
        for round in 0..5 {
            let many: Vec<_> = (0..MAX_KEYS)
                .map(|n| key(&format!("{round}-{n}"), 'A'))
                .collect();
            ring.replace(set(&many), start, GRACE, KEEP);
        }
        assert_eq!(ring.set().keys.len(), 2 * MAX_KEYS);
    }
}
