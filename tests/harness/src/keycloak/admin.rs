//! Keycloak's admin REST, and its token endpoint.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Method};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::realm::{Realm, User};
use crate::http::{Http, Reply, append};
use crate::token::unique;

/// The admin's tokens live for 60 s; a new one is taken well before.
const RENEW_AFTER: Duration = Duration::from_secs(30);

/// Tokens as a token endpoint answers them.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The access token.
    pub access: String,
    /// The refresh token, where the grant gives one.
    pub refresh: Option<String>,
    /// The whole answer.
    pub answer: Value,
}

/// Asks a realm's token endpoint.
pub(super) async fn tokens(http: &Http, issuer: &str, form: &[(&str, &str)]) -> Result<Tokens> {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let body = form
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&");
    let mut headers = HeaderMap::new();
    append(
        &mut headers,
        "content-type",
        b"application/x-www-form-urlencoded",
    )?;
    let url = format!("{issuer}/protocol/openid-connect/token");
    let reply = http
        .send(&Method::POST, &url, &headers, Bytes::from(body))
        .await?
        .expect(200)?;
    let answer = reply.json()?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Tokens {
        access: text("access_token").context("there is no access token")?,
        refresh: text("refresh_token"),
        answer,
    })
}

/// The administrator of a server.
#[derive(Debug)]
pub struct Admin {
    http: Http,
    url: String,
    name: String,
    password: String,
    token: Mutex<(String, Instant)>,
}

impl Admin {
    pub(super) async fn log_in(url: &str, name: &str, password: &str) -> Result<Self> {
        let http = Http::from_address(None);
        let token = admin_token(&http, url, name, password).await?;
        Ok(Self {
            http,
            url: url.to_owned(),
            name: name.to_owned(),
            password: password.to_owned(),
            token: Mutex::new((token, Instant::now())),
        })
    }

    /// Makes a realm with everything in it.
    ///
    /// # Errors
    /// Keycloak refuses: the message shows its answer.
    pub async fn create(&self, realm: &Realm) -> Result<()> {
        self.call(Method::POST, "", Some(realm.representation()))
            .await?
            .expect(201)?;
        Ok(())
    }

    /// Makes a client in `master` whose own account may do everything, as the handlers
    /// need it. Answers with its secret.
    ///
    /// # Errors
    /// Keycloak refuses.
    pub async fn service_account(&self, client: &str) -> Result<String> {
        let secret = unique();
        let whole = json!({
            "clientId": client,
            "secret": secret,
            "serviceAccountsEnabled": true,
            "standardFlowEnabled": false,
        });
        self.call(Method::POST, "/master/clients", Some(whole))
            .await?
            .expect(201)?;
        let found = self
            .call(
                Method::GET,
                &format!("/master/clients?clientId={client}"),
                None,
            )
            .await?
            .text_at("/0/id")?;
        let path = format!("/master/clients/{found}/service-account-user");
        let user = self.call(Method::GET, &path, None).await?.text_at("/id")?;
        let role = self.call(Method::GET, "/master/roles/admin", None).await?;
        let path = format!("/master/users/{user}/role-mappings/realm");
        self.call(Method::POST, &path, Some(json!([role.json()?])))
            .await?
            .expect(204)?;
        Ok(secret)
    }

    /// Makes a user in a realm.
    ///
    /// # Errors
    /// Keycloak refuses.
    pub async fn add_user(&self, realm: &Realm, user: &User) -> Result<()> {
        // The plain endpoint ignores roles; an import of a part does not.
        let part = json!({"ifResourceExists": "FAIL", "users": [user.representation()]});
        let path = format!("/{}/partialImport", realm.name());
        self.call(Method::POST, &path, Some(part))
            .await?
            .expect(200)?;
        Ok(())
    }

    /// Gives the realm a new signing key of `algorithm` (`RS256`, `ES256`, …), with
    /// which it signs from now on; the old ones still stand in its key set. Answers
    /// with the new key's `kid`.
    ///
    /// # Errors
    /// Keycloak refuses.
    pub async fn rotate_keys(&self, realm: &str, algorithm: &str) -> Result<String> {
        let before = self.signing_keys(realm).await?;
        let (provider, config) = match algorithm.get(..2) {
            Some("ES") => (
                "ecdsa-generated",
                json!({"ecdsaEllipticCurveKey": [match algorithm {
                    "ES384" => "P-384",
                    _ => "P-256",
                }]}),
            ),
            Some("Ed") => ("eddsa-generated", json!({})),
            _ => ("rsa-generated", json!({"algorithm": [algorithm]})),
        };
        let mut config = config;
        // Above every other: each new key is preferred to the one before.
        if let Some(config) = config.as_object_mut() {
            let priority = json!([(200 + before.len()).to_string()]);
            config.insert("priority".to_owned(), priority);
        }
        let name = format!("rotated-{}", before.len());
        let component = json!({
            "name": name,
            "providerId": provider,
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": config,
        });
        self.call(
            Method::POST,
            &format!("/{realm}/components"),
            Some(component),
        )
        .await?
        .expect(201)?;
        let after = self.signing_keys(realm).await?;
        after
            .into_iter()
            .find(|kid| !before.contains(kid))
            .context("the realm has no new key")
    }

    /// Takes a key out of the realm's key set: nothing it signed is good any more.
    ///
    /// # Errors
    /// There is no such key, or Keycloak refuses.
    pub async fn remove_key(&self, realm: &str, kid: &str) -> Result<()> {
        let keys = self.keys(realm).await?;
        let provider = keys
            .iter()
            .find(|key| key.get("kid").and_then(Value::as_str) == Some(kid))
            .and_then(|key| key.get("providerId")?.as_str())
            .with_context(|| format!("the realm {realm} has no key {kid}"))?;
        let path = format!("/{realm}/components/{provider}");
        self.call(Method::DELETE, &path, None).await?.expect(204)?;
        Ok(())
    }

    /// The `kid`s of the keys that sign tokens.
    async fn signing_keys(&self, realm: &str) -> Result<Vec<String>> {
        let keys = self.keys(realm).await?;
        let text = |key: &Value, name: &str| key.get(name)?.as_str().map(str::to_owned);
        Ok(keys
            .iter()
            .filter(|key| text(key, "use").as_deref() == Some("SIG"))
            .filter_map(|key| text(key, "kid"))
            .collect())
    }

    async fn keys(&self, realm: &str) -> Result<Vec<Value>> {
        let reply = self
            .call(Method::GET, &format!("/{realm}/keys"), None)
            .await?
            .expect(200)?;
        let keys = reply.at("/keys")?;
        keys.as_array().cloned().context("keys is no list")
    }

    /// Asks `/admin/realms<path>`.
    ///
    /// # Errors
    /// Keycloak does not answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", self.token().await?);
        append(&mut headers, "authorization", bearer.as_bytes())?;
        let body = match body {
            None => Bytes::new(),
            Some(body) => {
                append(&mut headers, "content-type", b"application/json")?;
                Bytes::from(body.to_string())
            }
        };
        let url = format!("{}/admin/realms{path}", self.url);
        self.http.send(&method, &url, &headers, body).await
    }

    async fn token(&self) -> Result<String> {
        let (token, taken) = self.held();
        if taken.elapsed() < RENEW_AFTER {
            return Ok(token);
        }
        let token = admin_token(&self.http, &self.url, &self.name, &self.password).await?;
        *self.token.lock().unwrap_or_else(|e| e.into_inner()) = (token.clone(), Instant::now());
        Ok(token)
    }

    fn held(&self) -> (String, Instant) {
        self.token.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

async fn admin_token(http: &Http, url: &str, name: &str, password: &str) -> Result<String> {
    let form = [
        ("grant_type", "password"),
        ("client_id", "admin-cli"),
        ("username", name),
        ("password", password),
    ];
    let issuer = format!("{url}/realms/master");
    Ok(tokens(http, &issuer, &form).await?.access)
}
