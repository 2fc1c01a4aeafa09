//! `POST /v1/auth/token` and `/refresh`: Keycloak's token endpoint, with one way to be refused.
//!
//! ```text
//! form or JSON → which realm, which grant → limit by name → Keycloak
//!     → its answer in the names of RFC 6749, or 401 at the pace of all refusals
//! ```

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use percent_encoding::percent_decode;
use postern_common::fields::{self, Fields, kind};
use postern_common::{Call, Failure, Reply};
use postern_contract::idempotency::query_pairs;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{Auth, pace};

/// Bytes of a credential. Hashing takes longer the longer it is.
const MAX_CREDENTIAL: usize = 1024;
/// Bytes of a code or a refresh token.
const MAX_TOKEN: usize = 16 << 10;

/// What is exchanged for a token.
enum Grant {
    Password {
        username: String,
        password: String,
    },
    ClientCredentials,
    Code {
        code: String,
        redirect_uri: String,
        verifier: String,
    },
    Refresh {
        token: String,
    },
}

/// The client that asks.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) id: Option<String>,
    pub(crate) secret: Option<String>,
}

impl Client {
    /// From the fields, or from HTTP Basic (RFC 6749, 2.3.1), not from both.
    pub(crate) fn read(fields: &mut Fields, basic: Option<Client>) -> Self {
        let client = Self {
            id: fields.optional("clientId", secret(255)),
            secret: fields.optional("clientSecret", secret(MAX_CREDENTIAL)),
        };
        match basic {
            None => client,
            Some(basic) => {
                if client.secret.is_some() || client.id.is_some_and(|id| basic.id != Some(id)) {
                    fields.complain("clientId", "is given in the header Authorization too");
                }
                basic
            }
        }
    }
}

/// `POST /v1/auth/token`
pub(crate) async fn token(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let began = Instant::now();
    let (mut fields, basic) = self::fields(&mut call).await?;
    const GRANTS: [&str; 4] = [
        "password",
        "client_credentials",
        "authorization_code",
        "refresh_token",
    ];
    let grant = fields.required("grantType", |value| match value.as_str() {
        Some(name) if GRANTS.contains(&name) => Ok(name.to_owned()),
        _ => Err(format!("must be one of {}", GRANTS.join(", "))),
    });
    let client = Client::read(&mut fields, basic);
    let realm = app.realm(&mut fields);
    let scope = fields.optional("scope", secret(1024));
    let grant = match grant.as_deref() {
        Some("password") => {
            let username = fields.required("username", secret(255));
            let password = fields.required("password", secret(MAX_CREDENTIAL));
            username
                .zip(password)
                .map(|(username, password)| Grant::Password { username, password })
        }
        Some("client_credentials") => {
            for (name, given) in [("clientId", &client.id), ("clientSecret", &client.secret)] {
                if given.is_none() {
                    fields.complain(name, "is required");
                }
            }
            Some(Grant::ClientCredentials)
        }
        Some("authorization_code") => {
            let code = fields.required("code", secret(MAX_TOKEN));
            let redirect_uri = fields.required("redirectUri", secret(2048));
            let verifier = fields.required("codeVerifier", verifier);
            match (code, redirect_uri, verifier) {
                (Some(code), Some(redirect_uri), Some(verifier)) => Some(Grant::Code {
                    code,
                    redirect_uri,
                    verifier,
                }),
                _ => None,
            }
        }
        Some(_) => refresh_token(&mut fields),
        None => return Err(fields.finish().err().unwrap_or_else(missing)),
    };
    fields.finish()?;
    let (Some(grant), Some(realm)) = (grant, realm) else {
        return Err(missing());
    };
    app.grant(began, &realm, &grant, client, scope).await
}

/// `POST /v1/auth/refresh`
pub(crate) async fn refresh(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let began = Instant::now();
    let (mut fields, basic) = self::fields(&mut call).await?;
    let client = Client::read(&mut fields, basic);
    let realm = app.realm(&mut fields);
    let grant = refresh_token(&mut fields);
    fields.finish()?;
    let (Some(grant), Some(realm)) = (grant, realm) else {
        return Err(missing());
    };
    app.grant(began, &realm, &grant, client, None).await
}

fn refresh_token(fields: &mut Fields) -> Option<Grant> {
    let token = fields.required("refreshToken", secret(MAX_TOKEN));
    token.map(|token| Grant::Refresh { token })
}

fn missing() -> Failure {
    Failure::internal("a field that was read is missing")
}

impl Auth {
    /// The realm of the tenant that the body names, else the platform's.
    fn realm(&self, fields: &mut Fields) -> Option<String> {
        let mut bad = false;
        let slug = fields.optional("tenant", |value| {
            fields::slug(value).inspect_err(|_| bad = true)
        });
        match slug {
            _ if bad => None,
            Some(slug) => Some(self.realms.of_slug(&slug)),
            None => Some(self.realms.platform().to_owned()),
        }
    }

    async fn grant(
        &self,
        began: Instant,
        realm: &str,
        grant: &Grant,
        client: Client,
        scope: Option<String>,
    ) -> Result<Reply, Failure> {
        let client_id = client.id.as_deref().unwrap_or(self.realms.client());
        let mut form = vec![("client_id", client_id)];
        form.extend(
            client
                .secret
                .as_deref()
                .map(|secret| ("client_secret", secret)),
        );
        form.extend(scope.as_deref().map(|scope| ("scope", scope)));
        match grant {
            Grant::Password { username, password } => {
                self.attempts.take(realm, username)?;
                form.extend([
                    ("grant_type", "password"),
                    ("username", username),
                    ("password", password),
                ]);
            }
            Grant::ClientCredentials => {
                self.attempts.take(realm, &format!("client {client_id}"))?;
                form.push(("grant_type", "client_credentials"));
            }
            Grant::Code {
                code,
                redirect_uri,
                verifier,
            } => form.extend([
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier),
            ]),
            Grant::Refresh { token } => {
                form.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
            }
        }
        let answer = self.keycloak.form(realm, "token", &form).await?;
        if answer.status != StatusCode::OK {
            metrics::counter!("postern_auth_tokens_total", "result" => "refused").increment(1);
            pace::wait(began, self.pace).await;
            return Err(pace::invalid_credentials());
        }
        metrics::counter!("postern_auth_tokens_total", "result" => "given").increment(1);
        let mut tokens: Map<String, Value> = answer.json()?;
        if !tokens.get("access_token").is_some_and(Value::is_string) {
            return Err(answer.unexpected("give a token"));
        }
        tokens.retain(|name, _| ANSWERED.contains(&name.as_str()));
        // RFC 6749, 5.1
        Ok(Reply::json(StatusCode::OK, &tokens)?
            .with_header(CACHE_CONTROL, "no-store")
            .with_header(PRAGMA, "no-cache"))
    }
}

/// RFC 6749, 5.1, OpenID Connect Core, 3.1.3.3, and how long the refresh token lives.
const ANSWERED: [&str; 7] = [
    "access_token",
    "token_type",
    "expires_in",
    "refresh_token",
    "refresh_expires_in",
    "scope",
    "id_token",
];

/// The body's fields in the names of JSON bodies, and the client of HTTP Basic.
pub(crate) async fn fields(call: &mut Call) -> Result<(Fields, Option<Client>), Failure> {
    let basic = basic(call)?;
    let content_type = call
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let form = media_type
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded");
    if !form {
        return Ok((call.json().await?.1, basic));
    }
    let body = call.body().await?;
    let text =
        std::str::from_utf8(&body).map_err(|_| Failure::invalid_field("body", "must be UTF-8"))?;
    Ok((from_form(text)?, basic))
}

/// A form becomes the object it means: `grant_type` is `grantType`.
fn from_form(text: &str) -> Result<Fields, Failure> {
    let mut object = Map::new();
    for (name, value) in query_pairs(text) {
        let (Ok(name), Ok(value)) = (String::from_utf8(name), String::from_utf8(value)) else {
            return Err(Failure::invalid_field("body", "must be UTF-8"));
        };
        let shown: String = name.chars().take(64).collect();
        if object
            .insert(camel_case(&name), Value::String(value))
            .is_some()
        {
            // RFC 6749, 3.2
            return Err(Failure::invalid_field(&shown, "must be given once"));
        }
    }
    Fields::parse(&serde_json::to_vec(&object).map_err(Failure::internal)?)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// RFC 6749, 2.3.1: id and secret are form-encoded, then put into HTTP Basic.
fn basic(call: &Call) -> Result<Option<Client>, Failure> {
    let Some(value) = call.headers().get(AUTHORIZATION) else {
        return Ok(None);
    };
    let Some(encoded) = value
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix("Basic "))
    else {
        return Ok(None);
    };
    read_basic(encoded).map(Some).ok_or_else(|| {
        Failure::invalid_field("Authorization", "must be Basic with clientId:clientSecret")
    })
}

fn read_basic(encoded: &str) -> Option<Client> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let text = percent_decode(text.as_bytes())
            .decode_utf8()
            .ok()?
            .into_owned();
        (1..=MAX_CREDENTIAL).contains(&text.len()).then_some(text)
    };
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some(Client {
        id: Some(decode(id)?),
        secret: Some(decode(secret)?),
    })
}

/// A text that is passed on as it is: nothing is trimmed off a password.
pub(crate) fn secret(max: usize) -> impl Fn(Value) -> Result<String, String> {
    move |value| match value {
        Value::String(text) if (1..=max).contains(&text.len()) && !text.contains('\0') => Ok(text),
        Value::String(_) => Err(format!("must have 1 to {max} bytes, none of them NUL")),
        other => Err(format!("must be a string, not {}", kind(&other))),
    }
}

/// RFC 7636, 4.1.
fn verifier(value: Value) -> Result<String, String> {
    let good = |text: &String| {
        (43..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    secret(128)(value)
        .ok()
        .filter(good)
        .ok_or_else(|| "must be 43 to 128 characters of A-Z a-z 0-9 - . _ ~ (RFC 7636)".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_form_means_the_same_as_json() {
        let mut fields =
            from_form("grant_type=password&username=a%20b&password=+p%2B&client_id=c").unwrap();
        let mut text = |name| fields.required(name, secret(100)).unwrap();
        assert_eq!(text("grantType"), "password");
        assert_eq!(text("username"), "a b");
        assert_eq!(text("password"), " p+");
        assert_eq!(text("clientId"), "c");
        fields.finish().unwrap();
        assert!(from_form("a=1&a=2").is_err());
        assert!(from_form("client_id=1&clientId=2").is_err());
        assert!(from_form("a=%ff").is_err());
    }

    #[test]
    fn basic_is_form_encoded_first() {
        let client = read_basic(&BASE64_STANDARD.encode("a%3Ab:p+%25")).unwrap();
        assert_eq!(client.id.as_deref(), Some("a:b"));
        assert_eq!(client.secret.as_deref(), Some("p %"));
        for bad in ["", "!", "YWJj"] {
            assert!(read_basic(bad).is_none(), "{bad}");
        }
        assert!(read_basic(&BASE64_STANDARD.encode(":x")).is_none());
    }

    #[test]
    fn verifiers() {
        assert!(verifier(json!("a".repeat(43))).is_ok());
        for bad in [
            json!("a".repeat(42)),
            json!("a".repeat(129)),
            json!("ä".repeat(43)),
            json!(7),
        ] {
            assert!(verifier(bad.clone()).is_err(), "{bad}");
        }
    }
}
