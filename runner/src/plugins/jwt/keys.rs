//! An issuer's key set (RFC 7517): which keys may verify what, and with what.

use std::collections::HashSet;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation, decode};
use serde::Deserialize;
use serde_json::Value;

use super::claims::Claims;
use super::refusal::Refusal;

/// Keys beyond this many are not looked at.
const MAX_KEYS: usize = 100;

/// The keys of one issuer, as of one fetch.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// What the issuer sent of each, to tell a new set from the same.
    sent: Vec<Value>,
    generation: u64,
}

pub(super) struct Key {
    kid: Option<String>,
    decoding: DecodingKey,
    /// Of one family, the key's own: the library refuses mixed ones.
    validation: Validation,
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
        let Set { keys: mut sent } =
            serde_json::from_slice(json).map_err(|error| format!("no key set: {error}"))?;
        sent.truncate(MAX_KEYS);
        let keys: Vec<_> = sent
            .iter()
            .filter_map(|jwk| Key::read(jwk, rules))
            .collect();
        if keys.is_empty() {
            return Err("a key set without a key that can verify tokens".into());
        }
        Ok(Self {
            keys,
            sent,
            generation: 0,
        })
    }

    /// This set in the place of another: of the same generation if nothing changed.
    pub(super) fn after(mut self, before: &Self) -> Self {
        self.generation = before.generation + u64::from(self.sent != before.sent);
        self
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a token's header names.
    pub(super) fn find(&self, header: &Header) -> Result<&Key, Unfit> {
        let fits = |key: &&Key| key.validation.algorithms.contains(&header.alg);
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
            None => Err(Unfit::Unknown),
            Some(_) => named.find(fits).ok_or(Unfit::Refused),
        }
    }

    /// The claims of a token whose signature and times are right.
    pub(super) fn verify(&self, key: &Key, token: &[u8]) -> Result<Claims, Refusal> {
        match decode::<Claims>(token, &key.decoding, &key.validation) {
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

impl Key {
    fn read(jwk: &Value, rules: &Rules<'_>) -> Option<Self> {
        let jwk: Jwk = serde::Deserialize::deserialize(jwk).ok()?;
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
            validation,
        })
    }
}

impl From<Unfit> for Refusal {
    fn from(_: Unfit) -> Self {
        Self::UnknownKey
    }
}
