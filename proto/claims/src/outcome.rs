//! What is kept of an answer, and how it is sealed at rest: it may hold a
//! secret that is shown once.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use postern_contract::key_file::{self, KeyFileError};
use prost::Message as _;

/// A body above this is not kept: the replay has its status and headers, and
/// `X-Idempotency-Body: omitted`.
pub const BODY_LIMIT: usize = 1 << 20;

/// The kept part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status.
    pub status: u16,
    /// Content-Type, Location, ETag and what the family lists; lower-case names.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Body,
}

/// A kept body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Byte for byte.
    Whole(Vec<u8>),
    /// Larger than [`BODY_LIMIT`].
    Omitted,
}

/// Why a sealed outcome cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    /// No key of its kid.
    #[error("the outcome is sealed with a key that is not in the key file")]
    UnknownKey,
    /// Not what was sealed, or sealed for another scope.
    #[error("the outcome is damaged")]
    Damaged,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<WireHeader>,
    /// Absent: omitted.
    #[prost(bytes = "vec", optional, tag = "3")]
    body: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireHeader {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Outcome {
    /// An outcome whose body is omitted when it is above [`BODY_LIMIT`].
    #[must_use]
    pub fn new(status: u16, headers: Vec<(String, Vec<u8>)>, body: Vec<u8>) -> Self {
        let body = if body.len() > BODY_LIMIT {
            Body::Omitted
        } else {
            Body::Whole(body)
        };
        Self {
            status,
            headers,
            body,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| WireHeader {
                name: name.clone(),
                value: value.clone(),
            })
            .collect();
        let body = match &self.body {
            Body::Whole(bytes) => Some(bytes.clone()),
            Body::Omitted => None,
        };
        Wire {
            status: self.status.into(),
            headers,
            body,
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let wire = Wire::decode(bytes).ok()?;
        Some(Self {
            status: u16::try_from(wire.status).ok()?,
            headers: wire
                .headers
                .into_iter()
                .map(|h| (h.name, h.value))
                .collect(),
            body: wire.body.map_or(Body::Omitted, Body::Whole),
        })
    }
}

/// The keys that seal outcomes: AES-256-GCM-SIV, bound to the scope. The first
/// of the file seals, any opens.
pub struct OutcomeKeys(Vec<(String, RandomizedNonceKey)>);

impl OutcomeKeys {
    /// Reads a key file (see [`key_file`]).
    ///
    /// # Errors
    /// When a line is not `<kid> <base64 of 32 bytes>`, a kid stands twice, or no key is there.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let keys = key_file::parse(text)?.into_iter().map(|(kid, secret)| {
            #[expect(clippy::expect_used, reason = "the key's length is its type's")]
            let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, secret.as_slice())
                .expect("a key of 32 bytes");
            (kid, key)
        });
        Ok(Self(keys.collect()))
    }

    /// Seals an outcome for a scope: one byte for the kid's length, the kid, the nonce, the
    /// sealed message and its tag.
    ///
    /// # Errors
    /// [`OutcomeError::Damaged`] when the cipher refuses, which it does for no input of this size.
    pub fn seal(&self, scope: &[u8; 32], outcome: &Outcome) -> Result<Vec<u8>, OutcomeError> {
        let (kid, key) = self.0.first().ok_or(OutcomeError::UnknownKey)?;
        let mut message = outcome.encode();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(scope), &mut message)
            .map_err(|_| OutcomeError::Damaged)?;
        let mut sealed = Vec::with_capacity(1 + kid.len() + NONCE_LEN + message.len());
        sealed.push(u8::try_from(kid.len()).map_err(|_| OutcomeError::Damaged)?);
        sealed.extend_from_slice(kid.as_bytes());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut message);
        Ok(sealed)
    }

    /// Opens what [`OutcomeKeys::seal`] gave for the same scope.
    ///
    /// # Errors
    /// When the key is gone from the file, or the bytes are not what was sealed.
    pub fn open(&self, scope: &[u8; 32], sealed: &[u8]) -> Result<Outcome, OutcomeError> {
        let damaged = OutcomeError::Damaged;
        let (length, rest) = sealed.split_first().ok_or(damaged)?;
        let (kid, rest) = rest.split_at_checked(usize::from(*length)).ok_or(damaged)?;
        let (nonce, message) = rest.split_at_checked(NONCE_LEN).ok_or(damaged)?;
        let (_, key) = self
            .0
            .iter()
            .find(|(known, _)| known.as_bytes() == kid)
            .ok_or(OutcomeError::UnknownKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged)?;
        let mut message = message.to_vec();
        let plain = key
            .open_in_place(nonce, Aad::from(scope), &mut message)
            .map_err(|_| damaged)?;
        Outcome::decode(plain).ok_or(damaged)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "k2 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn outcome() -> Outcome {
        Outcome::new(
            201,
            vec![("location".into(), b"/v1/tenants/x".to_vec())],
            b"{\"id\":1}".to_vec(),
        )
    }

    #[test]
    fn rotation() {
        let old = OutcomeKeys::parse(OLD).unwrap();
        let both = OutcomeKeys::parse(&format!("{NEW}\n{OLD}")).unwrap();
        let sealed = old.seal(&[7; 32], &outcome()).unwrap();
        assert_eq!(both.open(&[7; 32], &sealed).unwrap(), outcome());
        assert_eq!(
            old.open(&[7; 32], &both.seal(&[7; 32], &outcome()).unwrap()),
            Err(OutcomeError::UnknownKey)
        );
    }

    #[test]
    fn bound_to_its_scope() {
        let keys = OutcomeKeys::parse(OLD).unwrap();
        let sealed = keys.seal(&[7; 32], &outcome()).unwrap();
        assert_eq!(keys.open(&[8; 32], &sealed), Err(OutcomeError::Damaged));
    }

    #[test]
    fn a_large_body_is_omitted() {
        let keys = OutcomeKeys::parse(OLD).unwrap();
        let large = Outcome::new(200, Vec::new(), vec![b'x'; BODY_LIMIT + 1]);
        assert_eq!(large.body, Body::Omitted);
        let sealed = keys.seal(&[7; 32], &large).unwrap();
        assert!(sealed.len() < 100);
        assert_eq!(keys.open(&[7; 32], &sealed).unwrap().body, Body::Omitted);
    }

    proptest! {
        #[test]
        fn damage_is_seen(at in 0_usize..1000, flip in 1_u8..) {
            let keys = OutcomeKeys::parse(OLD).unwrap();
            let mut sealed = keys.seal(&[7; 32], &outcome()).unwrap();
            let at = at % sealed.len();
            *sealed.get_mut(at).unwrap() ^= flip;
            prop_assert!(keys.open(&[7; 32], &sealed).is_err());
        }

        #[test]
        fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(OutcomeKeys::parse(OLD).unwrap().open(&[7; 32], &bytes).is_err());
        }
    }
}
