//! An issuer's key set (RFC 7517): which keys may verify what, and with what.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation, decode};
use serde::Deserialize;
use serde_json::Value;

use super::claims::Claims;
use super::refusal::Refusal;

/// Keys beyond this many are not looked at.
pub(super) const MAX_KEYS: usize = 100;

/// The keys of one issuer at one time.
#[derive(Default)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Arc<Key>>,
    /// Names of keys that are published and verify nothing here: for encryption, of
    /// another kind. To ask the issuer about them again would bring nothing.
    pub(super) unusable: HashSet<String>,
}

/// One public key.
pub(super) struct Key {
    kid: Option<String>,
    /// What the issuer sent, to tell a new key from the same.
    sent: Value,
    decoding: DecodingKey,
    /// Of one family, the key's own: the library refuses mixed ones.
    validation: Validation,
    accepted: AtomicBool,
}

/// Why a set has no key for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No key of that name: the issuer may have a new one.
    Unknown,
    /// The key is there and not for that algorithm; or the token names none and several fit.
    Refused,
}

/// What every key of an issuer checks.
pub(super) struct Rules<'r> {
    pub(super) issuer: &'r str,
    pub(super) algorithms: &'r [Algorithm],
    pub(super) leeway: u64,
}

impl KeySet {
    /// Reads what an issuer sent. A key that is unusable here (another use, another
    /// curve, a symmetric one, a malformed one) is passed over.
    pub(super) fn read(json: &[u8], rules: &Rules<'_>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys: sent } =
            serde_json::from_slice(json).map_err(|error| format!("no key set: {error}"))?;
        let mut set = Self::default();
        for jwk in sent.into_iter().take(MAX_KEYS) {
            let kid = jwk.get("kid").and_then(Value::as_str).map(str::to_owned);
            match (Key::read(jwk, rules), kid) {
                (Some(key), _) => set.keys.push(Arc::new(key)),
                (None, Some(kid)) => drop(set.unusable.insert(kid)),
                (None, None) => {}
            }
        }
        if set.keys.is_empty() {
            return Err("a key set without a key that can verify tokens".into());
        }
        Ok(set)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a token's header names.
    pub(super) fn find(&self, header: &Header) -> Result<&Arc<Key>, Unfit> {
        let fits = |key: &&Arc<Key>| key.validation.algorithms.contains(&header.alg);
        let Some(kid) = &header.kid else {
            // A set of one needs no names.
            let mut fitting = self.keys.iter().filter(fits);
            return match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                (None, _) if self.is_empty() => Err(Unfit::Unknown),
                _ => Err(Unfit::Refused),
            };
        };
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.kid.as_ref() == Some(kid))
            .peekable();
        match named.peek() {
            Some(_) => named.find(fits).ok_or(Unfit::Refused),
            None if self.unusable.contains(kid) => Err(Unfit::Refused),
            None => Err(Unfit::Unknown),
        }
    }
}

impl Key {
    fn read(sent: Value, rules: &Rules<'_>) -> Option<Self> {
        let jwk: Jwk = Deserialize::deserialize(&sent).ok()?;
        let signs = jwk
            .common
            .public_key_use
            .as_ref()
            .is_none_or(|of| *of == PublicKeyUse::Signature);
        let operations = jwk.common.key_operations.as_ref();
        let verifies = operations.is_none_or(|list| list.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let possible: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms(),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                &[Algorithm::EdDSA]
            }
            _ => return None,
        };
        let named = jwk.common.key_algorithm;
        let allowed = |algorithm: &Algorithm| {
            rules.algorithms.contains(algorithm)
                && named.is_none_or(|only| only == (*algorithm).into())
        };
        let algorithms: Vec<_> = possible.iter().copied().filter(allowed).collect();
        let mut validation = Validation::new(*algorithms.first()?);
        validation.algorithms = algorithms;
        validation.leeway = rules.leeway;
        validation.validate_nbf = true;
        // Which audience is right is a question of the route: `Jwt::fits`.
        validation.validate_aud = false;
        validation.set_issuer(&[rules.issuer]);
        validation.required_spec_claims =
            HashSet::from(["exp", "iss", "aud", "sub"].map(String::from));
        Some(Self {
            decoding: DecodingKey::from_jwk(&jwk).ok()?,
            kid: jwk.common.key_id,
            sent,
            validation,
            accepted: AtomicBool::new(true),
        })
    }

    /// Whether two are the same, as the issuer sent them.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.sent == other.sent
    }

    /// What the issuer sent.
    pub(super) fn sent(&self) -> &Value {
        &self.sent
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether what it verified still counts. Read by every request.
    pub(super) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Acquire)
    }

    /// From now on it verifies nothing, nor counts what it verified.
    pub(super) fn retire(&self) {
        self.accepted.store(false, Ordering::Release);
    }

    /// The claims of a token whose signature and times are right.
    pub(super) fn verify(&self, token: &[u8]) -> Result<Claims, Refusal> {
        match decode::<Claims>(token, &self.decoding, &self.validation) {
            Ok(token) => Ok(token.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => Refusal::Expired,
                ErrorKind::ImmatureSignature => Refusal::NotYet,
                ErrorKind::InvalidSignature => Refusal::Signature,
                ErrorKind::InvalidIssuer => Refusal::UntrustedIssuer,
                ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
                    Refusal::Claim(name.clone())
                }
                _ => Refusal::Malformed("it cannot be read"),
            }),
        }
    }
}

impl From<Unfit> for Refusal {
    fn from(_: Unfit) -> Self {
        Self::UnknownKey
    }
}
