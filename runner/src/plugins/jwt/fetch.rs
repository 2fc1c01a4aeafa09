//! Key sets over HTTP, beside the requests: at the start, before a set grows old, and when
//! a token names a key that is not known. Whatever goes wrong, the last good set stays.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, redirect};
use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::issuer::Issuer;

/// A longer document is no key set.
const MAX_DOCUMENT: usize = 256 << 10;
/// After a failure the next try comes after this, doubled each time up to `refreshSeconds`.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// Why there is no new key set. The last good one is used on.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{uri} answered {status}")]
    Status { uri: String, status: u16 },
    #[error("{0} answered with more than 256 KiB")]
    TooLong(String),
    #[error("{0} is no OpenID configuration: {1}")]
    Discovery(String, serde_json::Error),
    #[error("the OpenID configuration is of the issuer {0:?}")]
    OtherIssuer(String),
    #[error("{0}: {1}")]
    Keys(String, String),
}

/// Fetches an issuer's keys for as long as the process lives.
pub(super) async fn keep_fetching(issuer: Arc<Issuer>, stop: CancellationToken) {
    let work = async {
        let client = client(&issuer).await;
        let mut failures = 0_u32;
        loop {
            issuer.fetch_begins();
            let outcome = match &client {
                Ok(client) => fetch(client, &issuer).await.map_err(|error| chain(&error)),
                Err(error) => Err(error.clone()),
            };
            match &outcome {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    metrics::counter!("postern_jwks_failures_total").increment(1);
                    tracing::warn!(
                        issuer = issuer.name(),
                        error,
                        failures,
                        "no new keys; the last good ones stay"
                    );
                }
            }
            issuer.fetch_ended();
            tokio::select! {
                () = sleep(pause(&issuer, failures)) => {}
                () = issuer.wanted() => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn pause(issuer: &Issuer, failures: u32) -> Duration {
    let refresh = issuer.fetch.refresh();
    match failures.checked_sub(1) {
        None => refresh,
        Some(doublings) => FIRST_RETRY
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(refresh),
    }
}

/// Reading the system's certificates takes milliseconds: not on a thread that answers calls.
async fn client(issuer: &Issuer) -> Result<Client, String> {
    let timeout = issuer.fetch.timeout();
    let build = move || {
        // Redirects would let an issuer send us anywhere.
        let client = Client::builder()
            .no_proxy()
            .timeout(timeout)
            .redirect(redirect::Policy::none());
        client
            .user_agent("postern-runner")
            .build()
            .map_err(|error| chain(&error))
    };
    tokio::task::spawn_blocking(build)
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
}

async fn fetch(client: &Client, issuer: &Issuer) -> Result<(), FetchError> {
    let uri = match issuer.jwks_uri() {
        Some(uri) => uri.to_owned(),
        None => discover(client, issuer.name()).await?,
    };
    let json = get(client, &uri).await?;
    issuer
        .replace_keys(&json)
        .map_err(|why| FetchError::Keys(uri, why))
}

/// `OpenID` Connect Discovery 1.0, 4: the document must be of the issuer it was asked of.
async fn discover(client: &Client, name: &str) -> Result<String, FetchError> {
    #[derive(Deserialize)]
    struct Configuration {
        issuer: String,
        jwks_uri: String,
    }
    let uri = format!(
        "{}/.well-known/openid-configuration",
        name.trim_end_matches('/')
    );
    let json = get(client, &uri).await?;
    let found: Configuration =
        serde_json::from_slice(&json).map_err(|error| FetchError::Discovery(uri, error))?;
    if found.issuer == name {
        Ok(found.jwks_uri)
    } else {
        Err(FetchError::OtherIssuer(found.issuer))
    }
}

async fn get(client: &Client, uri: &str) -> Result<Vec<u8>, FetchError> {
    let answer = client
        .get(uri)
        .header("accept", "application/json")
        .send()
        .await?;
    if answer.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status {
            uri: uri.to_owned(),
            status: answer.status().as_u16(),
        });
    }
    read(answer)
        .await?
        .ok_or_else(|| FetchError::TooLong(uri.to_owned()))
}

/// The body, unless it is longer than [`MAX_DOCUMENT`].
async fn read(mut answer: Response) -> Result<Option<Vec<u8>>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// An error with its causes: reqwest's own text names only the address.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
