//! `POST /realms/<realm>/mint`: signs what it is told to, for tests.
//!
//! `{"claims": {…}, "key": "rsa", "alg": "RS256", "kid": "rsa"}`, of which only
//! `claims` is needed. Nothing is added to the claims, so a test can leave out
//! or bend each one. The answer is `{"token": "…"}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jsonwebtoken::{Algorithm, Header, encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Issuer, Refusal, keys};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    claims: Map<String, Value>,
    /// Which private key signs: `rsa`, `rsa-any`, `p256`, `p384`, `ed25519`, `foreign`.
    key: Option<String>,
    alg: Option<Algorithm>,
    /// The header's `kid`; the key's own name unless given, none for null.
    #[serde(default, deserialize_with = "given")]
    kid: Option<Option<String>>,
}

/// Tells a field that is null from one that is not there.
fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

pub(super) async fn sign(
    State(issuer): State<Arc<Issuer>>,
    Path(realm): Path<String>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<Response, Refusal> {
    issuer.accounts(&realm)?;
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", why);
    let Json(wish) = wish.map_err(|error| bad(error.body_text()))?;
    let name = wish.key.as_deref().unwrap_or(keys::DEFAULT);
    let key = issuer
        .keys
        .signing(name)
        .ok_or_else(|| bad(format!("no key {name:?}")))?;
    let mut header = Header::new(wish.alg.unwrap_or(Algorithm::RS256));
    header.kid = wish.kid.unwrap_or_else(|| Some(name.to_owned()));
    let token = encode(&header, &wish.claims, key)
        .map_err(|error| bad(format!("{name:?} does not sign so: {error}")))?;
    Ok(Json(json!({ "token": token })).into_response())
}
