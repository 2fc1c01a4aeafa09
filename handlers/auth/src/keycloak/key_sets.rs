//! The realms' public keys, to tell a token of ours from a text that looks like one.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use moka::sync::Cache;
use postern_common::Failure;
use serde::Deserialize;

use super::Keycloak;

/// What is asked of a token that is to be revoked.
#[derive(Debug, Deserialize)]
pub(crate) struct Verified {
    pub(crate) jti: Option<String>,
    pub(crate) sid: Option<String>,
    pub(crate) exp: i64,
}

/// Key sets by realm.
pub(crate) struct KeySets {
    sets: Cache<String, Arc<JwkSet>>,
    /// Realms of which a set that was just fetched lacked a key. Anybody can name keys that
    /// are none: one that was made since is found a little later.
    just_fetched: Cache<String, ()>,
}

const KEPT: Duration = Duration::from_secs(30);
const FETCHED: Duration = Duration::from_secs(2);
const REALMS: u64 = 1_000;

impl Default for KeySets {
    fn default() -> Self {
        let cache = Cache::builder().max_capacity(REALMS).time_to_live(KEPT);
        let fetched = Cache::builder().max_capacity(REALMS).time_to_live(FETCHED);
        Self {
            sets: cache.build(),
            just_fetched: fetched.build(),
        }
    }
}

impl KeySets {
    /// The claims of a token that this realm signed and that has not expired.
    pub(crate) async fn verify(
        &self,
        keycloak: &Keycloak,
        realm: &str,
        token: &str,
    ) -> Result<Option<Verified>, Failure> {
        let Ok(header) = decode_header(token) else {
            return Ok(None);
        };
        let Some(kid) = header.kid.as_deref().filter(|_| asymmetric(header.alg)) else {
            return Ok(None);
        };
        let set = match self.sets.get(realm) {
            Some(set) if set.find(kid).is_some() => set,
            _ if self.just_fetched.contains_key(realm) => return Ok(None),
            _ => {
                let answer = keycloak.certificates(realm).await?;
                if answer.status != StatusCode::OK {
                    return Ok(None);
                }
                let set: Arc<JwkSet> = Arc::new(answer.json()?);
                self.sets.insert(realm.to_owned(), Arc::clone(&set));
                if set.find(kid).is_none() {
                    self.just_fetched.insert(realm.to_owned(), ());
                }
                set
            }
        };
        let signs = |jwk: &&Jwk| jwk.common.public_key_use != Some(PublicKeyUse::Encryption);
        let Some(key) = set
            .find(kid)
            .filter(signs)
            .and_then(|jwk| DecodingKey::from_jwk(jwk).ok())
        else {
            return Ok(None);
        };
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[keycloak.issuer(realm)]);
        // Whoever a token is for, whoever holds it may give it up.
        validation.validate_aud = false;
        Ok(decode(token, &key, &validation)
            .ok()
            .map(|token| token.claims))
    }
}

/// Refresh tokens are signed with a key that only Keycloak knows.
fn asymmetric(algorithm: Algorithm) -> bool {
    !matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}
