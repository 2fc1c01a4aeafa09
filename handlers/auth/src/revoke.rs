//! `POST /v1/auth/revoke` (RFC 7009): a token, and the session that it belongs to, end.
//!
//! ```text
//! whose? → proven → runners are told, durably → Keycloak ends the session
//! ```
//!
//! An access token proves itself by its signature. A refresh token is signed with a key
//! of Keycloak's own, so Keycloak is asked to log out with it, as its client. What is
//! no good token is answered like one that is: there is nothing left to end.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CACHE_CONTROL;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use postern_common::control_plane::Revoked;
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use serde::Deserialize;
use serde_json::json;

use crate::Auth;
use crate::token::{self, Client, secret};

/// Longer than any token that Keycloak gives is.
const MAX_TOKEN: usize = 16 << 10;
/// Access tokens of a session live at most so long after it ended.
const ACCESS_TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// What a token says of itself, good for finding out whom to ask.
#[derive(Deserialize)]
struct Unproven {
    iss: String,
    #[serde(default)]
    typ: String,
    azp: Option<String>,
    sid: Option<String>,
}

/// `POST /v1/auth/revoke`
pub(crate) async fn revoke(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let (mut fields, basic) = token::fields(&mut call).await?;
    let text = fields.required("token", secret(MAX_TOKEN));
    // RFC 7009, 2.1: a hint, which a token does not need that says what it is.
    fields.optional("tokenTypeHint", secret(64));
    let client = Client::read(&mut fields, basic);
    fields.finish()?;
    let Some(text) = text else {
        return Err(Failure::internal("a field that was read is missing"));
    };
    if let Some(unproven) = unproven(&text)
        && let Some(realm) = app.keycloak.realm_of(&unproven.iss)
        && app.realms.is_ours(realm)
    {
        if matches!(unproven.typ.as_str(), "Refresh" | "Offline") {
            app.end_by_refresh_token(realm, &text, &unproven, client)
                .await?;
        } else {
            app.end_by_access_token(realm, &text, &unproven.iss).await?;
        }
    }
    Ok(Reply::json(StatusCode::OK, &json!({}))?.with_header(CACHE_CONTROL, "no-store"))
}

fn unproven(token: &str) -> Option<Unproven> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

impl Auth {
    async fn end_by_access_token(
        &self,
        realm: &str,
        token: &str,
        issuer: &str,
    ) -> Result<(), Failure> {
        let Some(proven) = self.key_sets.verify(&self.keycloak, realm, token).await? else {
            return Ok(());
        };
        // Committed first: it holds even if Keycloak is away now.
        if let Some(jti) = &proven.jti {
            let until = Timestamp::from_second(proven.exp).unwrap_or(Timestamp::MAX);
            self.control_plane
                .revoke(issuer, Revoked::Token(jti), until)
                .await?;
        }
        let Some(sid) = &proven.sid else {
            return Ok(());
        };
        self.refuse_session(issuer, sid).await?;
        let answer = self
            .keycloak
            .admin(Method::DELETE, &[realm, "sessions", sid], &[], None)
            .await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => Err(answer.unexpected("end a session")),
        }
    }

    async fn end_by_refresh_token(
        &self,
        realm: &str,
        token: &str,
        unproven: &Unproven,
        client: Client,
    ) -> Result<(), Failure> {
        let own = unproven.azp.as_deref().unwrap_or_default();
        let id = client.id.as_deref().unwrap_or(own);
        let mut form = vec![("client_id", id), ("refresh_token", token)];
        form.extend(
            client
                .secret
                .as_deref()
                .map(|secret| ("client_secret", secret)),
        );
        let answer = self.keycloak.form(realm, "logout", &form).await?;
        if answer.status.is_success() {
            if let Some(sid) = &unproven.sid {
                self.refuse_session(&unproven.iss, sid).await?;
            }
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Refused {
            #[serde(default)]
            error: String,
        }
        // RFC 7009, 2.2.1: a client that does not prove itself is told; a token that is no
        // good is not.
        match answer.json::<Refused>()?.error.as_str() {
            "unauthorized_client" | "invalid_client" => Err(Failure::new(
                Code::InvalidCredentials,
                "a confidential client's token is revoked with clientId and clientSecret",
            )),
            _ => Ok(()),
        }
    }

    async fn refuse_session(&self, issuer: &str, sid: &str) -> Result<(), Failure> {
        let until = Timestamp::now()
            .checked_add(ACCESS_TOKEN_LIFE)
            .unwrap_or(Timestamp::MAX);
        self.control_plane
            .revoke(issuer, Revoked::Session(sid), until)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_says_nothing() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"iss":"i","typ":"Refresh","extra":[1]}"#);
        assert!(unproven(&format!("a.{claims}.c")).is_some_and(|u| u.typ == "Refresh"));
        for bad in [
            "",
            "a",
            "a.b",
            "a.b.c",
            "a..c",
            &format!("a.{claims}.c.d"),
            "\u{0}.\u{0}.\u{0}",
        ] {
            assert!(unproven(bad).is_none(), "{bad:?}");
        }
    }
}
