//! Revoked tokens, as far as this process has heard.
//!
//! A request does not look a token up here if nothing was revoked since the token was
//! looked up last: it compares one number.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ahash::RandomState;
use postern_directory::Revocation;
use postern_directory::revocation::Tokens;
use tokio::sync::watch;
use tokio::time::timeout;

use super::claims::{self, Claims};
use super::refusal::Refusal;
use super::settings::ClaimNames;

/// Revocations that are kept. Were there more, all tokens would be refused until some
/// of them are over: 48 bytes each, and not one is forgotten before its time.
pub(super) const MAX_REVOCATIONS: usize = 1_000_000;

/// What is known of revoked tokens.
pub(super) struct Revocations {
    known: RwLock<HashMap<Mark, Until, RandomState>>,
    /// How often something was revoked, from 1; 0 while that is not known well enough.
    state: AtomicU64,
    changes: AtomicU64,
    /// Whether all that counts has been heard once.
    heard: watch::Sender<bool>,
    seeds: [RandomState; 2],
}

/// An issuer, a claim and its value: 128 bits of keyed hashes. Two that fell together
/// would refuse a token, never let one in.
type Mark = (u64, u64);

#[derive(Clone, Copy)]
struct Until {
    /// Only tokens issued up to then are meant.
    issued: u64,
    /// When it may be forgotten.
    expires: u64,
}

/// By what a token can be revoked.
pub(super) struct Marks {
    marks: [Option<Mark>; 3],
    issued_at: u64,
    /// The state at which it was looked up last and not found.
    cleared: AtomicU64,
}

impl Revocations {
    /// Nothing is revoked; which is relied on from the start where nobody else tells.
    pub(super) fn new(told_by_others: bool) -> Self {
        Self {
            known: RwLock::default(),
            state: AtomicU64::new(u64::from(!told_by_others)),
            changes: AtomicU64::new(1),
            heard: watch::Sender::new(!told_by_others),
            seeds: [RandomState::new(), RandomState::new()],
        }
    }

    /// By what a token with these claims can be revoked.
    pub(super) fn marks(&self, claims: &Claims, names: &ClaimNames) -> Result<Marks, Refusal> {
        let issuer = claims::text(claims, "iss")?.unwrap_or_default();
        let mark = |name: &str, claim: &str| {
            let value = claims::text(claims, claim)?;
            Ok::<_, Refusal>(value.map(|value| self.mark(&issuer, name, &value)))
        };
        Ok(Marks {
            marks: [
                mark("jti", "jti")?,
                mark("sid", &names.session)?,
                mark("sub", "sub")?,
            ],
            issued_at: claims::seconds(claims, "iat")?,
            cleared: AtomicU64::new(0),
        })
    }

    /// Whether a token stands.
    pub(super) fn check(&self, token: &Marks) -> Result<(), Refusal> {
        let state = self.state.load(Ordering::Acquire);
        if state == 0 {
            return Err(Refusal::RevocationUnknown);
        }
        if token.cleared.load(Ordering::Relaxed) == state {
            return Ok(());
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = token
            .marks
            .iter()
            .flatten()
            .filter_map(|mark| known.get(mark));
        if found.any(|until| token.issued_at <= until.issued) {
            return Err(Refusal::Revoked);
        }
        token.cleared.store(state, Ordering::Relaxed);
        Ok(())
    }

    /// At the start, until it is known what is revoked, but no longer than that. Later
    /// nobody waits: when it is lost it is lost for longer.
    pub(super) async fn await_first(&self, wait: Duration) {
        if self.state.load(Ordering::Acquire) == 0 {
            let mut heard = self.heard.subscribe();
            // Beyond the wait the check says that it is not known.
            let _ = timeout(wait, heard.wait_for(|heard| *heard)).await;
        }
    }

    /// Refuses such tokens from now on. `false`: there is no room.
    #[must_use]
    pub(super) fn revoke(&self, revocations: &[Revocation]) -> bool {
        if revocations.is_empty() {
            return true;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut room = true;
        for revocation in revocations {
            let (name, value, issued) = match &revocation.tokens {
                Some(Tokens::Jti(jti)) => ("jti", jti, u64::MAX),
                Some(Tokens::Sid(sid)) => ("sid", sid, u64::MAX),
                Some(Tokens::Sub(sub)) => ("sub", sub, revocation.revoked_at),
                // Of a newer directory: what it means is not known, so nobody is let in.
                None => {
                    room = false;
                    continue;
                }
            };
            let mark = self.mark(&revocation.issuer, name, value);
            if known.len() >= MAX_REVOCATIONS && !known.contains_key(&mark) {
                room = false;
                continue;
            }
            let until = known.entry(mark).or_insert(Until {
                issued: 0,
                expires: 0,
            });
            until.issued = until.issued.max(issued);
            until.expires = until.expires.max(revocation.expires_at);
        }
        metrics::gauge!("postern_revocations").set(known.len() as f64);
        let changes = self.changes.fetch_add(1, Ordering::AcqRel) + 1;
        // Not while it is not relied on.
        let _ = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state != 0).then_some(changes)
            });
        room
    }

    /// Forgets what is over.
    pub(super) fn forget(&self, now: u64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, until| now <= until.expires);
        metrics::gauge!("postern_revocations").set(known.len() as f64);
    }

    /// From now on what is known here is relied on, or not.
    pub(super) fn rely(&self, trusted: bool) {
        // Held, or a revocation in between would not be looked up.
        let _known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let state = if trusted {
            self.changes.load(Ordering::Acquire)
        } else {
            0
        };
        self.state.store(state, Ordering::Release);
        if trusted {
            self.heard.send_replace(true);
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.state.load(Ordering::Acquire) != 0
    }

    fn mark(&self, issuer: &str, name: &str, value: &str) -> Mark {
        let [first, second] = &self.seeds;
        let text = (issuer, name, value);
        (first.hash_one(text), second.hash_one(text))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn revocation(tokens: Tokens, revoked_at: u64, expires_at: u64) -> Revocation {
        Revocation {
            issuer: "i".into(),
            tokens: Some(tokens),
            revoked_at,
            expires_at,
        }
    }

    fn marks(of: &Revocations, claims: &Value) -> Marks {
        of.marks(claims.as_object().unwrap(), &ClaimNames::default())
            .unwrap()
    }

    #[test]
    fn each_claim_revokes_what_it_names_and_nothing_else() {
        let known = Revocations::new(false);
        let token = |iss: &str, jti: &str, sid: &str, sub: &str, iat: u64| {
            marks(
                &known,
                &json!({"iss": iss, "jti": jti, "sid": sid, "sub": sub, "iat": iat}),
            )
        };
        let remembered = token("i", "t1", "s9", "u9", 50);
        assert_eq!(known.check(&remembered), Ok(()));
        assert!(known.revoke(&[
            revocation(Tokens::Jti("t1".into()), 100, 1000),
            revocation(Tokens::Sid("s1".into()), 100, 1000),
            revocation(Tokens::Sub("u1".into()), 100, 1000),
        ]));
        assert_eq!(
            known.check(&remembered),
            Err(Refusal::Revoked),
            "also one looked up before"
        );
        for (token, stands) in [
            (token("i", "t2", "s1", "u2", 500), false),
            (token("i", "t2", "s2", "u1", 100), false),
            (token("i", "t2", "s2", "u1", 101), true),
            (token("i", "s1", "t1", "u2", 0), true),
            (token("other", "t1", "s1", "u1", 0), true),
            (marks(&known, &json!({"iss": "i", "sub": "u1"})), false),
        ] {
            assert_eq!(known.check(&token).is_ok(), stands);
        }
        known.forget(1000);
        assert_eq!(
            known.check(&token("i", "t1", "s", "u", 0)),
            Err(Refusal::Revoked)
        );
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let known = Revocations::new(false);
        assert!(known.revoke(&[revocation(Tokens::Jti("t1".into()), 100, 1000)]));
        assert!(known.revoke(&[revocation(Tokens::Jti("t1".into()), 50, 900)]));
        let token = marks(&known, &json!({"iss": "i", "jti": "t1"}));
        known.forget(1000);
        assert_eq!(
            known.check(&token),
            Err(Refusal::Revoked),
            "the later end counts"
        );
        known.forget(1001);
        assert_eq!(known.check(&token), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_let_in_while_it_is_not_known() {
        let known = Revocations::new(true);
        let token = marks(&known, &json!({"iss": "i", "jti": "t1"}));
        assert_eq!(known.check(&token), Err(Refusal::RevocationUnknown));
        // Heard, but not all of it yet.
        assert!(known.revoke(&[revocation(Tokens::Jti("t2".into()), 1, 2)]));
        known.await_first(Duration::from_secs(2)).await;
        assert_eq!(known.check(&token), Err(Refusal::RevocationUnknown));
        known.rely(true);
        known.await_first(Duration::from_secs(2)).await;
        assert_eq!(known.check(&token), Ok(()));
        known.rely(false);
        let before = tokio::time::Instant::now();
        known.await_first(Duration::from_secs(2)).await;
        assert_eq!(before.elapsed(), Duration::ZERO, "only at the start");
        assert_eq!(known.check(&token), Err(Refusal::RevocationUnknown));
    }
}
