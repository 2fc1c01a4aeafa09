//! A realm's clients: made, listed, given a new secret.

use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CACHE_CONTROL;
use http::{Method, StatusCode};
use postern_common::fields::{Fields, kind, text};
use postern_common::idempotency::Attempt;
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use postern_contract::Code;
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{MARK, change, list as list_of, mark, of_a_realm, rows_of};
use crate::Auth;
use crate::realms::{BUILT_IN_CLIENTS, Realm, SCOPE, scopes};

/// A realm has at most so many; beyond it none is made.
const MAX_CLIENTS: usize = 200;
/// Asked for at once: ours, Keycloak's own, and some that were made elsewhere.
const ASKED: &str = "1000";
const MAX_REDIRECT_URIS: usize = 20;
/// The attribute that names the request which set the secret.
const SECRET_MARK: &str = "postern_secret_request";

/// How a client may get tokens. Refreshing them belongs to each way with a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Code,
    Credentials,
    Password,
    Refresh,
}

impl Grant {
    const ALL: [(&'static str, Self); 4] = [
        ("authorization_code", Self::Code),
        ("client_credentials", Self::Credentials),
        ("password", Self::Password),
        ("refresh_token", Self::Refresh),
    ];

    fn read(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, grant)| *grant)
            .ok_or(format!("must be one of {names}"))
    }
}

/// A client that is to be made.
#[derive(Clone, Debug)]
struct NewClient {
    id: String,
    name: Option<String>,
    redirect_uris: Vec<String>,
    grants: Vec<Grant>,
    public: bool,
    scopes: Vec<String>,
}

impl NewClient {
    fn read(mut fields: Fields) -> Result<Self, Failure> {
        let id = fields.required("clientId", client_id);
        let name = fields.optional("name", text(1, 200));
        let grants = fields.required("grantTypes", list_of(4, Grant::read));
        let grants = grants.unwrap_or_default();
        let redirect_uris =
            fields.optional("redirectUris", list_of(MAX_REDIRECT_URIS, redirect_uri));
        let redirect_uris = redirect_uris.unwrap_or_default();
        let public = fields.optional("publicClient", boolean).unwrap_or_default();
        let known = scopes();
        let scope = |name: &str| {
            let known = known.contains(name);
            known
                .then(|| name.to_owned())
                .ok_or("is no scope of the API".to_owned())
        };
        let scopes = fields
            .optional("scopes", list_of(known.len(), scope))
            .unwrap_or_default();
        if grants.contains(&Grant::Code) && redirect_uris.is_empty() {
            fields.complain("redirectUris", "is required with authorization_code");
        }
        if public && grants.contains(&Grant::Credentials) {
            fields.complain(
                "grantTypes",
                "client_credentials needs a secret, which a public client has not",
            );
        }
        fields.finish()?;
        let id = id.ok_or_else(|| Failure::internal("a field that was read is missing"))?;
        Ok(Self {
            id,
            name,
            redirect_uris,
            grants,
            public,
            scopes,
        })
    }

    fn representation(&self, secret: &str, mark: Option<&str>) -> Value {
        let has = |grant| self.grants.contains(&grant);
        let scopes: Vec<&str> = self
            .scopes
            .iter()
            .map(String::as_str)
            .chain([SCOPE])
            .collect();
        let mut attributes = Map::new();
        attributes.extend(mark.map(|mark| (MARK.to_owned(), json!(mark))));
        if has(Grant::Code) {
            // RFC 9700, 2.1.1
            attributes.insert("pkce.code.challenge.method".into(), json!("S256"));
        }
        let refreshes = has(Grant::Refresh) || has(Grant::Code) || has(Grant::Password);
        attributes.insert("use.refresh.tokens".into(), json!(refreshes.to_string()));
        let mut client = json!({
            "clientId": self.id,
            "name": self.name,
            "enabled": true,
            "publicClient": self.public,
            "standardFlowEnabled": has(Grant::Code),
            "implicitFlowEnabled": false,
            "directAccessGrantsEnabled": has(Grant::Password),
            "serviceAccountsEnabled": has(Grant::Credentials),
            "redirectUris": self.redirect_uris,
            "defaultClientScopes": scopes,
            "optionalClientScopes": [],
            "attributes": attributes,
        });
        if let (false, Some(client)) = (self.public, client.as_object_mut()) {
            client.insert("secret".into(), json!(secret));
        }
        client
    }
}

/// A client as Keycloak tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    id: String,
    client_id: String,
    name: Option<String>,
    #[serde(default)]
    public_client: bool,
    #[serde(default)]
    standard_flow_enabled: bool,
    #[serde(default)]
    direct_access_grants_enabled: bool,
    #[serde(default)]
    service_accounts_enabled: bool,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    default_client_scopes: Vec<String>,
    #[serde(default)]
    attributes: Map<String, Value>,
    secret: Option<String>,
}

impl Found {
    fn bears(&self, attribute: &str, mark: Option<&str>) -> bool {
        mark.is_some() && self.attributes.get(attribute).and_then(Value::as_str) == mark
    }

    fn view(&self) -> Value {
        let refreshes = self
            .attributes
            .get("use.refresh.tokens")
            .and_then(Value::as_str)
            != Some("false");
        let grants: Vec<_> = [
            (self.standard_flow_enabled, "authorization_code"),
            (self.service_accounts_enabled, "client_credentials"),
            (self.direct_access_grants_enabled, "password"),
            (refreshes, "refresh_token"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect();
        let known = scopes();
        let scopes: Vec<_> = self
            .default_client_scopes
            .iter()
            .filter(|name| known.contains(name.as_str()))
            .collect();
        json!({
            "clientId": self.client_id,
            "name": self.name,
            "publicClient": self.public_client,
            "grantTypes": grants,
            "redirectUris": self.redirect_uris,
            "scopes": scopes,
        })
    }
}

/// `POST /v1/iam/realms/:realmId/clients`
pub(crate) async fn create(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let (body, fields) = call.json().await?;
    let realm = app.realm_in_path(&call).await?;
    let new = NewClient::read(fields)?;
    let keyed = call.keyed(&body)?;
    let mark = mark(keyed.as_ref());
    let changes = json!({
        "realm": realm.name, "clientId": new.id, "publicClient": new.public,
        "redirectUris": new.redirect_uris, "scopes": new.scopes,
    });
    let (own, of) = (Arc::clone(&app), realm.clone());
    change(&app, &call, keyed, &realm, changes, move |attempt| {
        let (app, realm, new, mark) = (Arc::clone(&own), of.clone(), new.clone(), mark.clone());
        async move {
            app.create_client(&realm, &new, mark.as_deref(), attempt)
                .await
        }
    })
    .await
}

/// `GET /v1/iam/realms/:realmId/clients`
pub(crate) async fn list(app: Arc<Auth>, call: Call) -> Result<Reply, Failure> {
    let realm = app.realm_in_path(&call).await?;
    let mut query = call.query()?;
    let list = format!("clients {}", realm.name);
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let rows = rows_of(app.clients(&realm).await?, &page, |client| {
        &client.client_id
    });
    let rows = rows.iter().map(Found::view).collect();
    page.answer(rows, &app.cursors, &list, |client: &Value| {
        client
            .get("clientId")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    })
}

/// `POST /v1/iam/realms/:realmId/clients/:clientId/secret`
pub(crate) async fn secret(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let body = call.body().await?;
    if !body.is_empty() {
        Fields::parse(&body)?.finish()?;
    }
    let realm = app.realm_in_path(&call).await?;
    let keyed = call.keyed(&body)?;
    let mark = mark(keyed.as_ref());
    let id = call.param("clientId").to_owned();
    let changes = json!({"realm": realm.name, "clientId": id, "secret": "renewed"});
    let (own, of) = (Arc::clone(&app), realm.clone());
    change(&app, &call, keyed, &realm, changes, move |_| {
        let (app, realm, id, mark) = (Arc::clone(&own), of.clone(), id.clone(), mark.clone());
        async move { app.renew_secret(&realm, &id, mark.as_deref()).await }
    })
    .await
}

impl Auth {
    async fn create_client(
        &self,
        realm: &Realm,
        new: &NewClient,
        mark: Option<&str>,
        attempt: Attempt,
    ) -> Result<Reply, Failure> {
        if attempt == Attempt::Again
            && let Some(found) = self.client(realm, &new.id).await?
            && found.bears(MARK, mark)
        {
            return self.made(realm, &found).await;
        }
        if self.clients(realm).await?.len() >= MAX_CLIENTS {
            let message = format!("the realm has {MAX_CLIENTS} clients, and there can be no more");
            return Err(Failure::new(Code::QuotaExceeded, message));
        }
        let whole = new.representation(&new_secret()?, mark);
        let path = [realm.name.as_str(), "clients"];
        let answer = of_a_realm(
            self.keycloak
                .admin(Method::POST, &path, &[], Some(&whole))
                .await?,
        )?;
        match answer.status {
            StatusCode::CREATED => {
                let found = self.client(realm, &new.id).await?;
                let found = found.ok_or_else(|| answer.unexpected("find a client that it made"))?;
                self.made(realm, &found).await
            }
            StatusCode::CONFLICT => Err(Failure::new(
                Code::DuplicateKey,
                format!("the realm has a client {}", new.id),
            )),
            _ => Err(answer.unexpected("make a client")),
        }
    }

    /// 201 with the secret, here and nowhere else.
    async fn made(&self, realm: &Realm, client: &Found) -> Result<Reply, Failure> {
        let mut view = client.view();
        if let Some(view) = view.as_object_mut() {
            if let (false, Some(secret)) = (client.public_client, &client.secret) {
                view.insert("clientSecret".into(), json!(secret));
            }
            if client.service_accounts_enabled {
                let id = self.service_account(realm, &client.id).await?;
                view.insert("serviceAccountUserId".into(), json!(id));
            }
        }
        Ok(Reply::json(StatusCode::CREATED, &view)?.with_header(CACHE_CONTROL, "no-store"))
    }

    /// The user whose roles are those of a client's own tokens.
    async fn service_account(&self, realm: &Realm, id: &str) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct User {
            id: String,
        }
        let path = [realm.name.as_str(), "clients", id, "service-account-user"];
        let answer = self.keycloak.admin(Method::GET, &path, &[], None).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.json::<User>()?.id),
            _ => Err(answer.unexpected("find a client's own user")),
        }
    }

    /// Secret and mark are set in one change, so a retry sees whether it was made.
    async fn renew_secret(
        &self,
        realm: &Realm,
        id: &str,
        mark: Option<&str>,
    ) -> Result<Reply, Failure> {
        let not_found = || {
            let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
            Failure::new(
                Code::ClientNotFound,
                format!("the realm has no client {shown}"),
            )
        };
        if self.is_keycloaks(id) {
            return Err(not_found());
        }
        let found = self.client(realm, id).await?.ok_or_else(not_found)?;
        if found.public_client {
            return Err(Failure::new(
                Code::ConstraintViolation,
                format!("{id} is a public client and has no secret"),
            ));
        }
        let secret = match &found.secret {
            Some(secret) if found.bears(SECRET_MARK, mark) => secret.clone(),
            _ => {
                let secret = new_secret()?;
                let mut changed = json!({"clientId": found.client_id, "secret": secret, "attributes": found.attributes});
                if let (Some(mark), Some(attributes)) = (
                    mark,
                    changed.get_mut("attributes").and_then(Value::as_object_mut),
                ) {
                    attributes.insert(SECRET_MARK.into(), json!(mark));
                }
                let path = [realm.name.as_str(), "clients", &found.id];
                let answer = self
                    .keycloak
                    .admin(Method::PUT, &path, &[], Some(&changed))
                    .await?;
                if answer.status != StatusCode::NO_CONTENT {
                    return Err(answer.unexpected("change a client's secret"));
                }
                secret
            }
        };
        let view = json!({"clientId": found.client_id, "clientSecret": secret});
        Ok(Reply::json(StatusCode::OK, &view)?.with_header(CACHE_CONTROL, "no-store"))
    }

    fn is_keycloaks(&self, id: &str) -> bool {
        BUILT_IN_CLIENTS.contains(&id) || id == self.realms.client()
    }

    async fn client(&self, realm: &Realm, id: &str) -> Result<Option<Found>, Failure> {
        let path = [realm.name.as_str(), "clients"];
        let query = [("clientId", id), ("search", "false"), ("max", "1")];
        let answer = of_a_realm(
            self.keycloak
                .admin(Method::GET, &path, &query, None)
                .await?,
        )?;
        match answer.status {
            StatusCode::OK => {
                let found: Vec<Found> = answer.json()?;
                Ok(found.into_iter().find(|client| client.client_id == id))
            }
            _ => Err(answer.unexpected("look for a client")),
        }
    }

    /// Those of the tenant: neither Keycloak's own nor the API's log-in.
    async fn clients(&self, realm: &Realm) -> Result<Vec<Found>, Failure> {
        let path = [realm.name.as_str(), "clients"];
        let query = [("first", "0"), ("max", ASKED)];
        let answer = of_a_realm(
            self.keycloak
                .admin(Method::GET, &path, &query, None)
                .await?,
        )?;
        match answer.status {
            StatusCode::OK => {
                let mut clients: Vec<Found> = answer.json()?;
                clients.retain(|client| !self.is_keycloaks(&client.client_id));
                Ok(clients)
            }
            _ => Err(answer.unexpected("list clients")),
        }
    }
}

/// 256 bits.
fn new_secret() -> Result<String, Failure> {
    let bytes: [u8; 32] = rand::generate(&rand::SystemRandom::new())
        .map_err(|_| Failure::internal("there is no randomness"))?
        .expose();
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn boolean(value: Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("must be true or false, not {}", kind(&value)))
}

fn client_id(value: Value) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    match value {
        Value::String(id)
            if (1..=128).contains(&id.len())
                && id.bytes().all(plain)
                && id.starts_with(|c: char| c.is_ascii_alphanumeric()) =>
        {
            Ok(id)
        }
        _ => Err(
            "must be 1 to 128 characters of A-Z a-z 0-9 - _ . and start with a letter or digit"
                .into(),
        ),
    }
}

/// Where a code may be sent: one place, encrypted, or on the user's own machine (RFC 9700,
/// 2.1 and 4.1.3; RFC 8252, 7.3).
fn redirect_uri(text: &str) -> Result<String, String> {
    let refuse = |why: &str| {
        Err(format!(
            "must be an address of https, or of http on loopback, {why}"
        ))
    };
    if text.len() > 2048
        || text.contains(|c: char| c.is_control() || c.is_whitespace() || "*\\%".contains(c))
    {
        return refuse("of at most 2048 characters, without *, %, \\ and spaces");
    }
    let Ok(url) = Url::parse(text) else {
        return refuse("whole");
    };
    let host = url.host_str().unwrap_or_default();
    let loopback = matches!(host, "127.0.0.1" | "[::1]" | "localhost");
    if !(url.scheme() == "https" || url.scheme() == "http" && loopback) {
        return refuse("not of another kind");
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return refuse("without a fragment and without a user");
    }
    // What the parser had to mend (`https:host`, `/../`, letters of a host) is read by
    // others in another way.
    if url.as_str() != text && url.as_str() != format!("{text}/") {
        return refuse("in its normal form");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sent_to_one_safe_place() {
        for good in [
            "https://app.example.com",
            "https://app.example.com/callback?x=1",
            "http://127.0.0.1:8080/cb",
            "http://localhost/cb",
            "http://[::1]:1/",
        ] {
            assert!(
                redirect_uri(good).is_ok(),
                "{good}: {:?}",
                redirect_uri(good)
            );
        }
        for bad in [
            "*",
            "https://*.example.com/",
            "https://app.example.com/*",
            "http://app.example.com/",
            "http://127.0.0.1.evil.com/",
            "http://localhost@evil.com/",
            "https://user:pw@app.example.com/",
            "https://app.example.com/#x",
            "https://app.example.com/a/../b",
            "https:app.example.com",
            "https://APP.example.com/",
            "https://app.example.com/%2e%2e/",
            "https://app.example.com\\@evil.com/",
            "javascript:alert(1)",
            "data:text/html,x",
            "/callback",
            "",
            "https://",
            "https://a b/",
            "+",
        ] {
            assert!(redirect_uri(bad).is_err(), "{bad}");
        }
    }

    fn read(body: Value) -> Result<NewClient, Failure> {
        NewClient::read(Fields::parse(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn clients() {
        let good =
            json!({"clientId": "a", "grantTypes": ["client_credentials"], "scopes": ["iam:read"]});
        let client = read(good).unwrap();
        let whole = client.representation("s", Some("m"));
        assert_eq!(whole["secret"], "s");
        assert_eq!(whole["attributes"][MARK], "m");
        assert_eq!(whole["defaultClientScopes"], json!(["iam:read", SCOPE]));
        for (bad, field) in [
            (json!({"grantTypes": []}), "clientId"),
            (json!({"clientId": "../x", "grantTypes": []}), "clientId"),
            (
                json!({"clientId": "a", "grantTypes": ["implicit"]}),
                "grantTypes",
            ),
            (
                json!({"clientId": "a", "grantTypes": ["authorization_code"]}),
                "redirectUris",
            ),
            (
                json!({"clientId": "a", "grantTypes": [], "redirectUris": ["*"]}),
                "redirectUris",
            ),
            (
                json!({"clientId": "a", "grantTypes": ["client_credentials"], "publicClient": true}),
                "grantTypes",
            ),
            (
                json!({"clientId": "a", "grantTypes": [], "scopes": ["admin"]}),
                "scopes",
            ),
            (
                json!({"clientId": "a", "grantTypes": [], "secret": "x"}),
                "secret",
            ),
        ] {
            let failure = read(bad.clone()).unwrap_err();
            let verdict = failure.verdict();
            assert!(
                verdict.details.iter().any(|detail| detail.field == field),
                "{bad}: {verdict:?}"
            );
        }
    }
}
