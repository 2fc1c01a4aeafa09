//! The one client that speaks to Keycloak: few connections, short waits, small answers.
//!
//! | call | as | for |
//! |---|---|---|
//! | [`Keycloak::form`] | nobody | the endpoints of a realm: token, logout |
//! | [`Keycloak::admin`] | our service account | the admin REST |
//!
//! Whatever Keycloak does, a request ends in bounded time and memory: as an [`Answer`],
//! or as 503 `BACKEND_UNAVAILABLE`.

mod key_sets;
mod service_account;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use postern_common::Failure;
use postern_contract::Code;
use reqwest::{RequestBuilder, Response, Url};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Semaphore;

pub(crate) use key_sets::KeySets;
use service_account::ServiceAccount;

/// How Keycloak is reached.
#[derive(Debug)]
pub struct Connection {
    /// Its base URL, as the tokens' `iss` begins: `https://id.example.com`.
    pub url: String,
    /// The realm of our service account (`master`).
    pub realm: String,
    /// The client that has it.
    pub client_id: String,
    /// The client's secret.
    pub secret: SecretString,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// How long a whole exchange may take.
    pub timeout: Duration,
    /// Exchanges at once; beyond it requests are refused.
    pub concurrency: usize,
}

/// Settings that no connection can be made from.
#[derive(Debug, thiserror::Error)]
pub enum KeycloakError {
    /// Not an http or https address.
    #[error("url: {0:?} is no http or https address without query")]
    Url(String),
    /// The HTTP client.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// The largest answer that is read. A page of users is below 300 KB.
const MAX_ANSWER: usize = 4 << 20;
/// A realm takes a second or two to make where nothing else runs.
const MAKE_REALM: Duration = Duration::from_secs(60);
/// After this a client that was refused for lack of Keycloak may ask again.
const RETRY_SECONDS: &str = "2";

pub(crate) struct Keycloak {
    http: reqwest::Client,
    url: Url,
    account: ServiceAccount,
    timeout: Duration,
    slots: Semaphore,
}

/// What Keycloak answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// The last segment of `Location`: the id of what was made.
    pub(crate) made: Option<String>,
}

impl Answer {
    /// The body, which has to be of this form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| {
            tracing::error!(%error, status = %self.status, "Keycloak answers something else than expected");
            unavailable()
        })
    }

    /// Anything but what the caller knows how to read.
    pub(crate) fn unexpected(&self, what: &'static str) -> Failure {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        tracing::error!(status = %self.status, text, what, "Keycloak refuses");
        unavailable()
    }
}

impl Keycloak {
    pub(crate) fn new(connection: Connection) -> Result<Self, KeycloakError> {
        let no_url = || KeycloakError::Url(connection.url.clone());
        let url = Url::parse(connection.url.trim_end_matches('/')).map_err(|_| no_url())?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(no_url());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(connection.connect)
            .timeout(connection.timeout)
            .pool_max_idle_per_host(connection.concurrency)
            .pool_idle_timeout(Duration::from_secs(30))
            // Credentials go where the operator said and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            account: ServiceAccount::new(connection.realm, connection.client_id, connection.secret),
            url,
            timeout: connection.timeout,
            slots: Semaphore::new(connection.concurrency),
        })
    }

    /// `iss` of a realm's tokens.
    pub(crate) fn issuer(&self, realm: &str) -> String {
        self.at(&["realms", realm]).to_string()
    }

    /// The realm in an `iss` of ours.
    pub(crate) fn realm_of<'i>(&self, issuer: &'i str) -> Option<&'i str> {
        let realm = issuer
            .strip_prefix(self.url.as_str().trim_end_matches('/'))?
            .strip_prefix("/realms/")?;
        (!realm.is_empty() && !realm.contains(['/', '?', '#', '%'])).then_some(realm)
    }

    /// Posts a form to an endpoint of a realm's OpenID Connect.
    pub(crate) async fn form(
        &self,
        realm: &str,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let url = self.at(&["realms", realm, "protocol", "openid-connect", endpoint]);
        let request = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(encoded(form));
        self.exchange(request).await
    }

    /// The realm's public keys.
    pub(crate) async fn certificates(&self, realm: &str) -> Result<Answer, Failure> {
        let url = self.at(&["realms", realm, "protocol", "openid-connect", "certs"]);
        self.exchange(self.http.get(url)).await
    }

    /// Whether it answers; a realm's public page needs no token and its database little.
    pub(crate) async fn ping(&self) -> Result<(), Failure> {
        let url = self.at(&["realms", self.account.realm()]);
        let answer = self.exchange(self.http.get(url)).await?;
        match answer.status {
            StatusCode::OK => Ok(()),
            _ => Err(answer.unexpected("tell of its realm")),
        }
    }

    /// Asks the admin REST below `/admin/realms`. Segments are encoded one by one.
    pub(crate) async fn admin(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        self.admin_within(self.timeout, method, segments, query, body)
            .await
    }

    /// Makes a realm, for which nobody waits: Keycloak makes its keys and a hundred rows,
    /// and on a busy machine that takes longer than a request may.
    pub(crate) async fn make_realm(&self, body: &Value) -> Result<Answer, Failure> {
        self.admin_within(MAKE_REALM, Method::POST, &[], &[], Some(body))
            .await
    }

    async fn admin_within(
        &self,
        limit: Duration,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let mut url = self.at(&[&["admin", "realms"], segments].concat());
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let ask = async |token: &str| {
            let request = self.http.request(method.clone(), url.clone());
            let request = request.bearer_auth(token).timeout(limit);
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            self.exchange(request).await
        };
        let token = self.account.token(self).await?;
        let answer = ask(&token).await?;
        // Revoked or of a key that is gone; or from before the realm was made.
        if matches!(
            answer.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        ) {
            self.account.forget(&token).await;
            let token = self.account.token(self).await?;
            return ask(&token).await;
        }
        Ok(answer)
    }

    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        // An http address always takes segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let Ok(_slot) = self.slots.try_acquire() else {
            tracing::warn!("more requests at once than Keycloak is asked");
            return Err(unavailable());
        };
        let answered = async {
            let response = request.send().await?;
            let status = response.status();
            let made = made(&response);
            Ok::<_, reqwest::Error>((status, made, bounded(response).await?))
        };
        let (status, made, body) = answered.await.map_err(|error| {
            // Without the address: it may hold what a client sent.
            tracing::warn!(error = %error.without_url(), "Keycloak does not answer");
            unavailable()
        })?;
        let Some(body) = body else {
            tracing::error!(%status, "Keycloak answers more than {MAX_ANSWER} bytes");
            return Err(unavailable());
        };
        if status.is_server_error() {
            tracing::warn!(%status, "Keycloak does not work");
            return Err(unavailable());
        }
        Ok(Answer { status, body, made })
    }
}

fn encoded(form: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let pairs = form
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn made(response: &Response) -> Option<String> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let (_, id) = location.rsplit_once('/')?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// The body; `None`: it is too large.
async fn bounded(mut response: Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

/// Keycloak is away, too slow, or not what it was.
pub(crate) fn unavailable() -> Failure {
    Failure::new(
        Code::BackendUnavailable,
        "the identity provider cannot be reached; retry, with the same Idempotency-Key if there is one",
    )
    .with_header(RETRY_AFTER, RETRY_SECONDS)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn keycloak(url: &str) -> Result<Keycloak, KeycloakError> {
        Keycloak::new(Connection {
            url: url.into(),
            realm: "master".into(),
            client_id: "c".into(),
            secret: "s".to_owned().into(),
            connect: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            concurrency: 1,
        })
    }

    #[test]
    fn no_text_leaves_its_segment() {
        let keycloak = keycloak("http://127.0.0.1:1/id/").unwrap();
        let url = keycloak.at(&["admin", "realms", "a/../b?c#d%2f"]);
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/id/admin/realms/a%2F..%2Fb%3Fc%23d%252f"
        );
        assert!(!keycloak.at(&["realms", ".."]).as_str().contains(".."));
    }

    #[test]
    fn issuers() {
        let keycloak = keycloak("http://127.0.0.1:1").unwrap();
        assert_eq!(keycloak.issuer("a"), "http://127.0.0.1:1/realms/a");
        assert_eq!(keycloak.realm_of("http://127.0.0.1:1/realms/a"), Some("a"));
        for other in [
            "http://127.0.0.1:1/realms/",
            "http://127.0.0.1:1/realms/a/b",
            "http://127.0.0.1:1/realms/a%2fb",
            "http://127.0.0.1:2/realms/a",
            "http://127.0.0.1:1.evil/realms/a",
            "",
        ] {
            assert_eq!(keycloak.realm_of(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "keycloak", "ftp://a", "http://a?b=c"] {
            assert!(keycloak(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_as_such() {
        let keycloak = keycloak("http://127.0.0.1:1").unwrap();
        let failure = keycloak.form("a", "token", &[]).await.err().unwrap();
        assert_eq!(failure.code(), Code::BackendUnavailable);
    }
}
