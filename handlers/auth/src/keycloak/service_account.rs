//! Our own account: its token, renewed by one request at a time before it expires.

use std::time::{Duration, Instant};

use postern_common::Failure;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Keycloak, unavailable};

/// A token is renewed so long before it expires.
const MARGIN: Duration = Duration::from_secs(10);

pub(super) struct ServiceAccount {
    realm: String,
    client_id: String,
    secret: SecretString,
    token: Mutex<Option<Token>>,
}

struct Token {
    text: SecretString,
    renew_at: Instant,
}

impl ServiceAccount {
    pub(super) fn new(realm: String, client_id: String, secret: SecretString) -> Self {
        Self {
            realm,
            client_id,
            secret,
            token: Mutex::new(None),
        }
    }

    /// The realm that the account is in.
    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    /// A token that is good for the next seconds.
    pub(super) async fn token(&self, keycloak: &Keycloak) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
            expires_in: u64,
        }
        let mut held = self.token.lock().await;
        if let Some(token) = held
            .as_ref()
            .filter(|token| Instant::now() < token.renew_at)
        {
            return Ok(token.text.expose_secret().to_owned());
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.secret.expose_secret()),
        ];
        let answer = keycloak.form(&self.realm, "token", &form).await?;
        if !answer.status.is_success() {
            tracing::error!(
                realm = self.realm,
                client = self.client_id,
                "Keycloak refuses our own credentials (auth.keycloak.clientId, .secretFile)"
            );
            return Err(unavailable());
        }
        let answer: Answer = answer.json()?;
        let life = Duration::from_secs(answer.expires_in.min(3600));
        *held = Some(Token {
            text: answer.access_token.clone().into(),
            renew_at: Instant::now() + life.saturating_sub(MARGIN),
        });
        Ok(answer.access_token)
    }

    /// This token is good no more.
    pub(super) async fn forget(&self, token: &str) {
        let mut held = self.token.lock().await;
        held.take_if(|held| held.text.expose_secret() == token);
    }
}
