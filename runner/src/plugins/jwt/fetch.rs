//! Key sets over HTTP, beside the requests: at the start, before a set grows old, and when
//! a token names a key that is not known. Whatever goes wrong, the last good set stays,
//! for `keepSeconds`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::issuer::{Issuer, Outcome};
use super::keys::KeySet;

/// A longer document is no key set.
const MAX_DOCUMENT: usize = 256 << 10;
/// After a failure the next try comes after this, doubled each time up to
/// [`LAST_RETRY`] or `refreshSeconds`.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long an issuer's configuration document is used; when keys cannot be fetched it
/// is read again at once.
const DISCOVERY: Duration = Duration::from_secs(3600);

/// Why there is no new key set. The last good one is used on.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{}", chain(.0))]
    Http(#[from] reqwest::Error),
    #[error("{uri} answered {status}")]
    Status { uri: String, status: StatusCode },
    #[error("{0} answered with more than 256 KiB")]
    TooLong(String),
    #[error("{0} is no OpenID configuration: {1}")]
    Discovery(String, serde_json::Error),
    #[error("the OpenID configuration is of the issuer {0:?}")]
    OtherIssuer(String),
    #[error("the OpenID configuration names {0:?} for keys, which is less safe than the issuer")]
    Unsafe(String),
    #[error("{0}: {1}")]
    Keys(String, String),
    #[error("reading it panicked")]
    Panic,
}

/// The one HTTP client of all fetches, made when it is first needed.
#[derive(Clone, Default)]
pub(super) struct Http(Arc<OnceCell<Client>>);

impl Http {
    /// Reading the system's certificates takes milliseconds: not on a thread that
    /// answers calls.
    pub(super) async fn client(&self) -> Result<&Client, reqwest::Error> {
        let build = || {
            // Redirects would let an issuer send us anywhere.
            let client = Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .pool_max_idle_per_host(2);
            client.user_agent("postern-runner").build()
        };
        let built = async || match tokio::task::spawn_blocking(build).await {
            Ok(built) => built,
            Err(_) => build(),
        };
        self.0.get_or_try_init(built).await
    }
}

/// Where an issuer's keys are, as its configuration document said.
struct Found {
    uri: String,
    at: Instant,
}

/// A key set with how long it may be used.
struct Fetched {
    set: KeySet,
    max_age: Option<u64>,
    found: Option<Found>,
}

/// Fetches an issuer's keys until it is retired. An issuer of a template that does not
/// exist is given up.
pub(super) async fn keep_fetching(issuer: Arc<Issuer>, http: Http) {
    let work = async {
        let mut found = None;
        let mut failures = 0_u32;
        if issuer.has_keys() {
            issuer.meanwhile(first(&issuer)).await;
        }
        loop {
            let number = issuer.fetch_begins();
            // A task of its own: what an issuer sends may not end the fetching of it.
            let task = tokio::spawn(fetch(http.clone(), Arc::clone(&issuer), found.take()));
            let task = AbortOnDropHandle::new(task);
            let fetched = issuer.meanwhile(task).await;
            let (how, pause) = match fetched.unwrap_or(Err(FetchError::Panic)) {
                Ok(fetched) => {
                    failures = 0;
                    issuer.take(fetched.set);
                    found = fetched.found;
                    (
                        Outcome::Keys,
                        before_the_end(issuer.fetch.life(fetched.max_age)),
                    )
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    report(&issuer, &error, failures);
                    (outcome(&error), retry(&issuer, failures))
                }
            };
            issuer.fetch_ended(number, how);
            if issuer.is_nobody() {
                return;
            }
            issuer.meanwhile(rest(&issuer, pause)).await;
        }
    };
    tokio::select! {
        biased;
        () = issuer.retired().cancelled() => {}
        () = work => {}
    }
}

/// Until inherited keys are used, or grow old.
async fn first(issuer: &Issuer) {
    let due = before_the_end(issuer.fetch.refresh());
    let _ = timeout(due, issuer.wanted()).await;
}

/// Until the next fetch is due, or somebody wants one and the last is long enough ago.
async fn rest(issuer: &Issuer, pause: Duration) {
    let now = Instant::now();
    tokio::select! {
        () = sleep_until(now + pause) => {}
        () = issuer.wanted() => sleep_until(now + issuer.fetch.unknown_key()).await,
    }
}

/// Well before a set's life is over, and not at the same time as all other runners.
fn before_the_end(life: Duration) -> Duration {
    life.mul_f64(rand::random_range(0.7..0.8))
}

fn retry(issuer: &Issuer, failures: u32) -> Duration {
    let doublings = 1_u32.checked_shl(failures.saturating_sub(1));
    FIRST_RETRY
        .saturating_mul(doublings.unwrap_or(u32::MAX))
        .min(LAST_RETRY)
        .min(issuer.fetch.refresh())
}

fn outcome(error: &FetchError) -> Outcome {
    match error {
        FetchError::Status { status, .. } if *status == StatusCode::NOT_FOUND => Outcome::NoIssuer,
        _ => Outcome::Failure,
    }
}

fn report(issuer: &Issuer, error: &FetchError, failures: u32) {
    metrics::counter!("postern_jwks_failures_total").increment(1);
    // Whoever sends tokens can invent issuers of a template: that is no event.
    if issuer.slug().is_none() || issuer.has_keys() {
        tracing::warn!(
            issuer = issuer.name(),
            %error,
            failures,
            "no new keys; the last good ones stay"
        );
    }
}

async fn fetch(
    http: Http,
    issuer: Arc<Issuer>,
    found: Option<Found>,
) -> Result<Fetched, FetchError> {
    let _turn = issuer.turn().await;
    metrics::counter!("postern_jwks_fetches_total").increment(1);
    let client = http.client().await?;
    let timeout = issuer.fetch.timeout();
    let found = match (&issuer.settings.jwks_uri, found) {
        (Some(_), _) => None,
        (None, Some(found)) if found.at.elapsed() < DISCOVERY => Some(found),
        (None, _) => Some(discover(client, issuer.name(), timeout).await?),
    };
    let discovered = || found.as_ref().map(|found| found.uri.clone());
    let uri = issuer.jwks_uri().or_else(discovered).unwrap_or_default();
    let (json, max_age) = get(client, &uri, timeout).await?;
    let set = issuer
        .read(&json)
        .map_err(|why| FetchError::Keys(uri, why))?;
    Ok(Fetched {
        set,
        max_age,
        found,
    })
}

/// `OpenID` Connect Discovery 1.0, 4: the document must be of the issuer it was asked of.
async fn discover(client: &Client, name: &str, timeout: Duration) -> Result<Found, FetchError> {
    #[derive(Deserialize)]
    struct Configuration {
        issuer: String,
        jwks_uri: String,
    }
    let uri = format!(
        "{}/.well-known/openid-configuration",
        name.trim_end_matches('/')
    );
    let (json, _) = get(client, &uri, timeout).await?;
    let found: Configuration =
        serde_json::from_slice(&json).map_err(|error| FetchError::Discovery(uri, error))?;
    if found.issuer != name {
        return Err(FetchError::OtherIssuer(found.issuer));
    }
    let scheme = |uri: &str| Url::parse(uri).ok().map(|uri| uri.scheme().to_owned());
    match scheme(&found.jwks_uri).as_deref() {
        Some("https") => {}
        Some("http") if scheme(name).as_deref() == Some("http") => {}
        _ => return Err(FetchError::Unsafe(found.jwks_uri)),
    }
    Ok(Found {
        uri: found.jwks_uri,
        at: Instant::now(),
    })
}

/// A document, with its `max-age` if it says one.
async fn get(
    client: &Client,
    uri: &str,
    timeout: Duration,
) -> Result<(Vec<u8>, Option<u64>), FetchError> {
    let answer = client
        .get(uri)
        .timeout(timeout)
        .header(header::ACCEPT, "application/json")
        .send()
        .await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status {
            uri: uri.to_owned(),
            status: answer.status(),
        });
    }
    let max_age = max_age(answer.headers());
    let body = read(answer, MAX_DOCUMENT).await?;
    let body = body.ok_or_else(|| FetchError::TooLong(uri.to_owned()))?;
    Ok((body, max_age))
}

/// The body, unless it is longer than allowed.
pub(super) async fn read(
    mut answer: Response,
    most: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// RFC 9111, 5.2.2.1, less the time that the document spent in caches before us. That it
/// should not be kept at all (`no-cache`, as Keycloak says) cannot be heeded: there would
/// be a fetch a token.
fn max_age(headers: &header::HeaderMap) -> Option<u64> {
    let number = |text: &str| text.trim().trim_matches('"').parse::<u64>().ok();
    let directives = headers.get_all(header::CACHE_CONTROL).into_iter();
    let max_age = directives
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|directive| {
            let (name, value) = directive.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("max-age")
                .then(|| number(value))?
        })?;
    let age = headers
        .get(header::AGE)
        .and_then(|age| number(age.to_str().ok()?));
    Some(max_age.saturating_sub(age.unwrap_or(0)))
}

/// An error with its causes: reqwest's own text names only the address.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_max_age_is_found_among_other_directives() {
        for (fields, expected) in [
            (vec![], None),
            (vec![("cache-control", "no-cache")], None),
            (vec![("cache-control", "public, max-age=600")], Some(600)),
            (vec![("cache-control", "Max-Age = \"60\"")], Some(60)),
            (
                vec![("cache-control", "public"), ("cache-control", "max-age=5")],
                Some(5),
            ),
            (
                vec![("cache-control", "max-age=600"), ("age", "590")],
                Some(10),
            ),
            (
                vec![("cache-control", "max-age=6"), ("age", "590")],
                Some(0),
            ),
            (vec![("cache-control", "max-age=-1")], None),
            (vec![("cache-control", "s-maxage=9")], None),
        ] {
            let mut headers = header::HeaderMap::new();
            for (name, value) in &fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(max_age(&headers), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_an_issuer_says_of_age_is_taken_within_bounds() {
        let settings = super::super::settings::FetchSettings::default();
        let seconds = |max_age| settings.life(max_age).as_secs();
        assert_eq!(seconds(None), 300);
        assert_eq!(seconds(Some(120)), 120);
        assert_eq!(seconds(Some(0)), 30);
        assert_eq!(seconds(Some(u64::MAX)), 300);
        let pause = before_the_end(Duration::from_secs(100)).as_secs_f64();
        assert!((70.0..80.0).contains(&pause), "{pause}");
    }
}
