//! The token endpoint: `password` and `client_credentials` (RFC 6749, 4.3 and 4.4).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, Header, encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::accounts::{Accounts, Client};
use super::{Issuer, Refusal, keys};

/// The form's fields; those of other grants are ignored, as the RFC asks.
#[derive(Deserialize)]
pub(super) struct Grant {
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

pub(super) async fn grant(
    State(issuer): State<Arc<Issuer>>,
    Path(realm): Path<String>,
    headers: HeaderMap,
    form: Result<Form<Grant>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(grant) = form.map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            error.body_text(),
        )
    })?;
    let accounts = issuer.accounts(&realm)?;
    let client = client(&accounts, &headers, &grant)?;
    let (subject, own) = match grant.grant_type.as_str() {
        "password" => {
            let user = accounts
                .users
                .iter()
                .find(|user| {
                    Some(&user.username) == grant.username.as_ref()
                        && Some(&user.password) == grant.password.as_ref()
                })
                .ok_or_else(|| {
                    Refusal::new(
                        StatusCode::UNAUTHORIZED,
                        "invalid_grant",
                        "invalid user credentials",
                    )
                })?;
            (&user.username, &user.claims)
        }
        "client_credentials" if client.secret.is_some() => (&client.client_id, &client.claims),
        "client_credentials" => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "unauthorized_client",
                "a public client has no credentials",
            ));
        }
        other => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                format!("{other:?} is none of password, client_credentials"),
            ));
        }
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(Refusal::internal)?
        .as_secs();
    let mut claims = Map::from_iter([
        ("iss".to_owned(), json!(issuer.issuer(&realm))),
        ("aud".to_owned(), json!(accounts.audience)),
        ("sub".to_owned(), json!(subject)),
        ("azp".to_owned(), json!(client.client_id)),
        ("sid".to_owned(), json!(format!("{subject}-{now}"))),
        ("iat".to_owned(), json!(now)),
        ("nbf".to_owned(), json!(now)),
        (
            "exp".to_owned(),
            json!(now.saturating_add(accounts.token_seconds)),
        ),
    ]);
    claims.extend(own.clone());
    let scope = claims.get("scope").cloned().unwrap_or(Value::Null);
    let token = sign(&issuer, &claims)?;
    let body = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": accounts.token_seconds,
        "scope": scope,
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn sign(issuer: &Issuer, claims: &Map<String, Value>) -> Result<String, Refusal> {
    let key = issuer
        .keys
        .signing(keys::DEFAULT)
        .ok_or_else(|| Refusal::internal("the default key is missing"))?;
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(keys::DEFAULT.to_owned());
    encode(&header, claims, key).map_err(Refusal::internal)
}

/// The client that asks, by HTTP Basic or by form fields.
fn client<'a>(
    accounts: &'a Accounts,
    headers: &HeaderMap,
    grant: &Grant,
) -> Result<&'a Client, Refusal> {
    let (id, secret) = match basic(headers) {
        Some((id, secret)) => (Some(id), Some(secret)),
        None => (grant.client_id.clone(), grant.client_secret.clone()),
    };
    accounts
        .clients
        .iter()
        .find(|client| Some(&client.client_id) == id.as_ref() && client.secret == secret)
        .ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "invalid client or client secret",
            )
        })
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let text = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}
