//! Whether a token still counts, by its issuer's word (RFC 7662).
//!
//! Asked after everything else has been checked, once a token for all who wait, and only
//! so many at once; an answer is used for `cacheSeconds`. Without one the token is not
//! taken: who configures this wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::cache::Verified;
use super::fetch::{Http, chain, read};
use super::issuer::Issuer;
use super::refusal::Refusal;
use super::seconds;
use super::settings::{IntrospectionSettings, JwtSettings};

/// Questions at once, of all issuers; further ones wait their turn.
const MAX_QUESTIONS: usize = 64;
/// A longer answer is none.
const MAX_ANSWER: usize = 64 << 10;

/// What an issuer said of a token.
#[derive(Default)]
pub(super) struct Standing {
    /// Until when the answer is used, seconds since 1970.
    until: AtomicU64,
    active: AtomicBool,
    /// Held by whoever asks.
    asking: Mutex<()>,
}

impl Standing {
    /// For issuers that are not asked.
    pub(super) fn unasked() -> Self {
        Self {
            until: AtomicU64::new(u64::MAX),
            active: AtomicBool::new(true),
            asking: Mutex::default(),
        }
    }

    /// Whether the token counts, by an answer that may still be used.
    pub(super) fn check(&self, now: u64) -> Result<(), Refusal> {
        match self.answer(now) {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::Revoked),
            None => Err(Refusal::RevocationUnknown),
        }
    }

    fn answer(&self, now: u64) -> Option<bool> {
        let usable = now < self.until.load(Ordering::Acquire);
        usable.then(|| self.active.load(Ordering::Acquire))
    }

    fn answered(&self, active: bool, until: u64) {
        self.active.store(active, Ordering::Release);
        self.until.store(until, Ordering::Release);
    }
}

/// Asks issuers.
pub(super) struct Introspection {
    http: Http,
    /// By the issuer as the settings name it.
    secrets: Vec<(String, SecretString)>,
    room: Semaphore,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("it answered with more than 64 KiB")]
    TooLong,
    #[error("it answered with no introspection: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it did not answer in time")]
    Time,
}

impl Introspection {
    /// Reads the secrets.
    pub(super) fn new(settings: &JwtSettings, http: Http) -> anyhow::Result<Self> {
        let mut secrets = Vec::new();
        for (at, issuer) in settings.issuers.iter().enumerate() {
            let Some(introspection) = &issuer.introspection else {
                continue;
            };
            let file = &introspection.client_secret_file;
            let secret = std::fs::read_to_string(file).with_context(|| {
                format!(
                    "plugins.jwt.issuers[{at}].introspection.clientSecretFile: cannot read {}",
                    file.display()
                )
            })?;
            secrets.push((issuer.issuer.clone(), secret.trim().to_owned().into()));
        }
        Ok(Self {
            http,
            secrets,
            room: Semaphore::new(MAX_QUESTIONS),
        })
    }

    /// Has a token's standing known, if its issuer is asked at all and answers.
    pub(super) async fn inquire(&self, token: &[u8], verified: &Verified) {
        let Some(settings) = &verified.issuer.settings.introspection else {
            return;
        };
        if verified.standing.answer(seconds()).is_some() {
            return;
        }
        let wait = Duration::from_millis(settings.timeout_ms);
        let asked = timeout(wait, async {
            let _turn = verified.standing.asking.lock().await;
            if verified.standing.answer(seconds()).is_some() {
                return Ok(());
            }
            let _room = self.room.acquire().await;
            let active = self.ask(settings, &verified.issuer, token).await?;
            verified
                .standing
                .answered(active, seconds() + settings.cache_seconds);
            Ok(())
        });
        if let Err(error) = asked.await.unwrap_or(Err(AskError::Time)) {
            metrics::counter!("postern_introspection_failures_total").increment(1);
            tracing::warn!(
                issuer = verified.issuer.name(),
                %error,
                "whether a token still counts is not known"
            );
        }
    }

    async fn ask(
        &self,
        settings: &IntrospectionSettings,
        issuer: &Arc<Issuer>,
        token: &[u8],
    ) -> Result<bool, AskError> {
        #[derive(Deserialize)]
        struct Standing {
            active: bool,
        }
        let name = &issuer.settings.issuer;
        let secret = self.secrets.iter().find(|(of, _)| of == name);
        let secret = secret.map_or("", |(_, secret)| secret.expose_secret());
        // A JWT needs no escapes in a form.
        let token = String::from_utf8_lossy(token);
        let answer = self
            .http
            .client()
            .await?
            .post(issuer.address(&settings.uri))
            .basic_auth(form(&settings.client_id), Some(form(secret)))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(format!("token={token}&token_type_hint=access_token"))
            .send()
            .await?;
        if answer.status() != StatusCode::OK {
            return Err(AskError::Status(answer.status()));
        }
        let body = read(answer, MAX_ANSWER).await?.ok_or(AskError::TooLong)?;
        let Standing { active } = serde_json::from_slice(&body)?;
        Ok(active)
    }
}

/// RFC 6749, 2.3.1: name and secret are written as in a form before they are encoded.
fn form(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_used_for_its_time() {
        let standing = Standing::default();
        assert_eq!(standing.check(10), Err(Refusal::RevocationUnknown));
        standing.answered(true, 40);
        assert_eq!(standing.check(39), Ok(()));
        assert_eq!(standing.check(40), Err(Refusal::RevocationUnknown));
        standing.answered(false, 70);
        assert_eq!(standing.check(69), Err(Refusal::Revoked));
        assert_eq!(Standing::unasked().check(u64::MAX - 1), Ok(()));
    }
}
