//! The realms' public keys, to tell a token of ours from a text that looks like one.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use moka::future;
use moka::sync::Cache;
use postern_common::Failure;
use postern_contract::Code;
use serde::Deserialize;

use super::{Keycloak, RETRY_SECONDS, unavailable};

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
    /// Sets that just came and lacked a key. Anybody can name keys that are none: until
    /// these are over, nobody knows of a key whether it was made since.
    lacking: future::Cache<String, Arc<JwkSet>>,
}

const KEPT: Duration = Duration::from_secs(30);
const LACKING: Duration = Duration::from_secs(2);
const REALMS: u64 = 1_000;

impl Default for KeySets {
    fn default() -> Self {
        let kept = Cache::builder().max_capacity(REALMS).time_to_live(KEPT);
        let lacking = future::Cache::builder()
            .max_capacity(REALMS)
            .time_to_live(LACKING);
        Self {
            sets: kept.build(),
            lacking: lacking.build(),
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
        let set = match self.sets.get(realm).filter(|set| set.find(kid).is_some()) {
            Some(set) => set,
            None => self.fetched(keycloak, realm, kid).await?,
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

    /// The set as it is now: one fetch a realm for all who wait, one every [`LACKING`] as
    /// long as they bring nothing. What a fetch lacks that began before somebody came may
    /// have been made since, so only its own asker is told that there is no such key.
    async fn fetched(
        &self,
        keycloak: &Keycloak,
        realm: &str,
        kid: &str,
    ) -> Result<Arc<JwkSet>, Failure> {
        let entry = self.lacking.entry_by_ref(realm);
        let fetch = fetch(keycloak, realm);
        // Whatever it was is told where it came up.
        let entry = entry.or_try_insert_with(fetch).await;
        let entry = entry.map_err(|_| unavailable())?;
        let (own, set) = (entry.is_fresh(), entry.into_value());
        if own {
            self.sets.insert(realm.to_owned(), Arc::clone(&set));
        }
        if set.find(kid).is_some() {
            self.lacking.invalidate(realm).await;
            return Ok(set);
        }
        match own {
            true => Ok(set),
            false => Err(Failure::new(
                Code::BackendUnavailable,
                "whether the realm has signed this token cannot be told yet; retry",
            )
            .with_header(RETRY_AFTER, RETRY_SECONDS)),
        }
    }
}

/// A realm that is not there has no keys.
async fn fetch(keycloak: &Keycloak, realm: &str) -> Result<Arc<JwkSet>, Failure> {
    let answer = keycloak.certificates(realm).await?;
    match answer.status {
        StatusCode::OK => Ok(Arc::new(answer.json()?)),
        StatusCode::NOT_FOUND => Ok(Arc::new(JwkSet { keys: Vec::new() })),
        _ => Err(answer.unexpected("tell a realm's keys")),
    }
}

/// Refresh tokens are signed with a key that only Keycloak knows.
fn asymmetric(algorithm: Algorithm) -> bool {
    !matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}
