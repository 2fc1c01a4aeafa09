//! An operator revokes: `POST /revocations` at the admin endpoint.
//!
//! ```text
//! {"issuer": "https://…", "sid": "…"}     or "jti", or "sub"; "expiresAt": epoch seconds
//! ```
//!
//! It holds here at once, and everywhere and for good once the directory has it, which
//! the answer says. Without a directory it holds in this worker until that ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use postern_directory::revocation::Tokens;
use postern_directory::{Revocation, RevokeRequest};
use serde::Deserialize;
use tokio::time::timeout;

use super::revocations::Revocations;
use super::seconds;
use crate::plugins::authorize::Address;
use crate::registry::Answer;

/// Unless the operator says for how long: no access token should live longer.
const KEPT_SECONDS: u64 = 24 * 3600;
/// How long the directory may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an operator says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Order {
    issuer: String,
    jti: Option<String>,
    sid: Option<String>,
    sub: Option<String>,
    expires_at: Option<u64>,
}

impl Order {
    fn read(body: &[u8], now: u64) -> Result<Revocation, String> {
        let order: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let tokens = match (order.jti, order.sid, order.sub) {
            (Some(jti), None, None) => Tokens::Jti(jti),
            (None, Some(sid), None) => Tokens::Sid(sid),
            (None, None, Some(sub)) => Tokens::Sub(sub),
            _ => return Err("name one of jti, sid, sub".into()),
        };
        let (Tokens::Jti(value) | Tokens::Sid(value) | Tokens::Sub(value)) = &tokens;
        if order.issuer.is_empty() || value.is_empty() {
            return Err("no token has an empty issuer, jti, sid or sub".into());
        }
        Ok(Revocation {
            issuer: order.issuer,
            tokens: Some(tokens),
            revoked_at: now,
            expires_at: order.expires_at.unwrap_or(now + KEPT_SECONDS),
        })
    }
}

/// Does what an operator says, and tells what came of it.
pub(super) async fn revoke(
    revocations: Arc<Revocations>,
    directory: Option<Address>,
    body: Bytes,
) -> Answer {
    let revocation = match Order::read(&body, seconds()) {
        Ok(revocation) => revocation,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let room = revocations.revoke(std::slice::from_ref(&revocation));
    tracing::info!(issuer = revocation.issuer, tokens = ?revocation.tokens, "revoked by an operator");
    if !room {
        let why = "there is no room for another revocation\n".to_owned();
        return (StatusCode::INSUFFICIENT_STORAGE, why);
    }
    let Some(directory) = directory else {
        let told = "revoked in this worker, until it ends: there is no directory\n".to_owned();
        return (StatusCode::OK, told);
    };
    let request = RevokeRequest {
        revocation: Some(revocation),
    };
    let mut client = directory.client();
    let failed = match timeout(PATIENCE, client.revoke(request)).await {
        Ok(Ok(_)) => return (StatusCode::OK, "revoked everywhere\n".to_owned()),
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => "no answer in time".to_owned(),
    };
    let told = format!("revoked in this worker only, repeat it: the directory: {failed}\n");
    (StatusCode::SERVICE_UNAVAILABLE, told)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_an_issuer_and_one_claim() {
        let read = |body: &str| Order::read(body.as_bytes(), 1000);
        let order = read(r#"{"issuer": "i", "sid": "s"}"#).unwrap();
        assert_eq!(order.tokens, Some(Tokens::Sid("s".into())));
        assert_eq!(
            (order.revoked_at, order.expires_at),
            (1000, 1000 + KEPT_SECONDS)
        );
        let order = read(r#"{"issuer": "i", "sub": "s", "expiresAt": 5}"#).unwrap();
        assert_eq!(order.expires_at, 5);
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"issuer": "i"}"#,
            r#"{"sid": "s"}"#,
            r#"{"issuer": "", "sid": "s"}"#,
            r#"{"issuer": "i", "sid": ""}"#,
            r#"{"issuer": "i", "sid": "s", "jti": "t"}"#,
            r#"{"issuer": "i", "sid": "s", "until": 5}"#,
            r#"{"issuer": "i", "sid": "s", "expiresAt": -5}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
