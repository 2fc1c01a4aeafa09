//! `idempotency`: was this done before? Step 1 of `docs/idempotency.md`.
//!
//! One round trip to the claim store: a new key is claimed for a while and the claim goes
//! on in the context; a running one is a 409; a finished one is replayed if the request is
//! the same. The truth is the handler's record: whenever something is not certain here the
//! request goes on and the handler decides.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_claims::{Body, Claim, ClaimError, ClaimStore, Holder, Outcome, OutcomeKeys};
use postern_contract::idempotency::{
    FINGERPRINTED, IdempotencyKey, Request as Print, Scope, sha256,
};
use postern_contract::{Code, Match, Params, Route, header};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::facts::Claim as ClaimFact;
use crate::store_url::{authority, secret_url};
use crate::{ConfigError, ExtraError, Flow, Plugin, Reply, Request};

/// A longer body is not fetched: the handler compares.
const MAX_BODY: usize = 256 << 10;

/// What nginx compares with an answer of status 200, whoever made it.
const PRECONDITIONS: [&str; 4] = [
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
];

/// Claims keys and replays outcomes.
pub struct Idempotency {
    store: Option<Store>,
}

struct Store {
    claims: ClaimStore,
    keys: OutcomeKeys,
}

/// The section `idempotency` of the runner's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IdempotencySettings {
    /// Where claims are kept, the handlers' own store.
    pub claims: ClaimsSettings,
    /// The file of the keys that outcomes are sealed with, the handlers' own.
    pub outcome_key_file: PathBuf,
}

/// A claim store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClaimsSettings {
    /// `postgres://USER:PASSWORD@HOST/DATABASE`, `redis://:PASSWORD@HOST:PORT`, or some nodes
    /// of a cluster: `redis-cluster://:PASSWORD@HOST:PORT,HOST:PORT`; over TLS `rediss…`.
    pub url: Option<SecretString>,
    /// A file that holds the URL instead.
    pub url_file: Option<PathBuf>,
    /// PEM file of who vouches for the certificate of `rediss…` (default: whom the system
    /// trusts).
    pub authority: Option<PathBuf>,
    /// Connections at most, where the URL is PostgreSQL's (default 8); further requests wait.
    #[serde(default = "default_connections")]
    pub connections: u32,
    /// How long the store may take, in ms (default 1000). One that failed three times in a
    /// row is down: until it answers again, one request a second asks it.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
}

fn default_timeout() -> u64 {
    1_000
}

fn default_connections() -> u32 {
    8
}

/// What a route says about its claims; which routes ask for a key the routes table says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct IdempotencyConfig {
    /// What becomes of a request whose key cannot be claimed because the store is down.
    on_store_down: OnStoreDown,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnStoreDown {
    /// It goes on: the handler's record guards it.
    #[default]
    Pass,
    /// 503 `BACKEND_UNAVAILABLE`.
    Refuse,
}

impl Idempotency {
    /// A plugin with this claim store, which is connected to when it is first needed.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the settings and where.
    pub fn new(settings: Option<IdempotencySettings>) -> anyhow::Result<Self> {
        Ok(Self {
            store: settings.map(Store::new).transpose()?,
        })
    }
}

impl ClaimsSettings {
    fn connect(&self) -> anyhow::Result<ClaimStore> {
        let url = secret_url(self.url.as_ref(), self.url_file.as_deref())?;
        let authority = authority(self.authority.as_deref())?;
        ensure!(self.connections > 0, "connections: must be above 0");
        ensure!(self.timeout_ms > 0, "timeoutMs: must be above 0");
        let patience = Duration::from_millis(self.timeout_ms);
        let (authority, connections) = (authority.as_ref(), self.connections);
        ClaimStore::connect_trusting(&url, authority, connections, patience).context("url")
    }
}

impl Store {
    fn new(settings: IdempotencySettings) -> anyhow::Result<Self> {
        let path = settings.outcome_key_file;
        let named = || format!("plugins.idempotency.outcomeKeyFile: {}", path.display());
        let keys = OutcomeKeys::parse(&std::fs::read_to_string(&path).with_context(named)?)
            .with_context(named)?;
        let claims = settings.claims.connect();
        Ok(Self {
            claims: claims.context("plugins.idempotency.claims")?,
            keys,
        })
    }

    /// The claim, or `None` if the store is down.
    async fn claim(&self, scope: &[u8; 32]) -> Option<Claim> {
        let claimed = self.claims.claim(scope).await;
        claimed
            .inspect_err(|error| {
                metrics::counter!("postern_claim_store_failures_total").increment(1);
                // What failed before has been told.
                if !matches!(error, ClaimError::Down) {
                    tracing::warn!(%error, "a key was not claimed");
                }
            })
            .ok()
    }

    /// What became of the request whose outcome is kept, if it can be told here.
    async fn replay(
        &self,
        scope: &[u8; 32],
        fingerprint: [u8; 32],
        outcome: &[u8],
        request: &mut Request<'_>,
    ) -> Option<Reply> {
        // nginx judges preconditions on answers made by the runner too: a replayed 200 would
        // become 412 or 304. The handler replays these from its record.
        if PRECONDITIONS
            .iter()
            .any(|name| request.header(name).is_some())
        {
            return None;
        }
        let outcome = self.keys.open(scope, outcome);
        let outcome = outcome
            .inspect_err(|error| tracing::warn!(%error, "a kept outcome cannot be read"))
            .ok()?;
        Some(match own_fingerprint(request).await? {
            own if own == fingerprint => replayed(outcome),
            _ => Reply::refuse(
                Code::IdempotencyKeyReused,
                "this Idempotency-Key was used for a request that differs: use a new one",
            ),
        })
    }
}

impl Plugin for Idempotency {
    const NAME: &'static str = "idempotency";
    type Config = IdempotencyConfig;

    fn check(&self, _: &Self::Config) -> Result<(), ConfigError> {
        match self.store {
            Some(_) => Ok(()),
            None => Err(ConfigError::new("", NO_STORE)),
        }
    }

    fn at_once(&self, _: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        matches!(scope(request), Ok(None)).then_some(Flow::Next)
    }

    async fn on_request(&self, config: &Self::Config, request: &mut Request<'_>) -> Flow {
        let scope = match scope(request) {
            Ok(Some(scope)) => scope,
            Ok(None) => return Flow::Next,
            Err(refusal) => return Flow::Stop(refusal),
        };
        let Some(store) = &self.store else {
            return Flow::Stop(Reply::refuse(Code::GatewayMisconfigured, NO_STORE));
        };
        let holder = match store.claim(&scope).await {
            Some(Claim::New(Holder(holder))) => holder.to_vec(),
            Some(Claim::Running) => return Flow::Stop(in_progress()),
            Some(Claim::Done {
                fingerprint,
                outcome,
            }) => {
                if let Some(outcome) = outcome
                    && let Some(reply) = store.replay(&scope, fingerprint, &outcome, request).await
                {
                    return Flow::Stop(reply);
                }
                Vec::new()
            }
            None if config.on_store_down == OnStoreDown::Refuse => {
                let message = "idempotency keys cannot be looked up now: retry with the same key";
                let reply = Reply::refuse(Code::BackendUnavailable, message);
                return Flow::Stop(reply.with_header("Retry-After", "1"));
            }
            None => Vec::new(),
        };
        request.facts.claim = Some(ClaimFact {
            scope: scope.to_vec(),
            holder,
        });
        Flow::Next
    }
}

const NO_STORE: &str =
    "the runner has no claim store: set plugins.idempotency in its configuration";

/// The name of the request's claim; `None` where there is nothing to claim.
fn scope(request: &Request<'_>) -> Result<Option<[u8; 32]>, Reply> {
    let Ok(Match::Found(route, params)) = request.route() else {
        return Ok(None);
    };
    if !route.idempotent {
        return Ok(None);
    }
    let Some(key) = request.header(header::IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = IdempotencyKey::parse(key).map_err(|form| {
        Reply::refuse(
            Code::IdempotencyKeyInvalid,
            format!("Idempotency-Key {form}"),
        )
    })?;
    let Some(who) = &request.facts.identity else {
        let message = "idempotency: nobody has checked the token; put jwt before idempotency";
        return Err(Reply::refuse(Code::GatewayMisconfigured, message));
    };
    let scope = Scope {
        issuer: &who.issuer,
        tenant: who.tenant.as_deref().unwrap_or_default(),
        subject: &who.subject,
        family: route.family,
        workspace: params.get("workspaceId").unwrap_or_default(),
    };
    Ok(Some(scope.digest(&key)))
}

/// The fingerprint of a request whose body can be had: of known length and not too long.
async fn own_fingerprint(request: &mut Request<'_>) -> Option<[u8; 32]> {
    let body = match announced_length(request)? {
        0 => None,
        length if length > MAX_BODY => return None,
        _ => match request.body(MAX_BODY).await {
            Ok(body) => body,
            Err(ExtraError::TooLarge { .. }) => return None,
            Err(error) => {
                tracing::warn!(%error, "the body cannot be had for comparison; the handler compares");
                return None;
            }
        },
    };
    let Ok(Match::Found(route, params)) = request.route() else {
        return None;
    };
    Some(print(request, route, params).fingerprint(&sha256(&body.unwrap_or_default())))
}

/// `None`: unknown. Without the header there may be a body all the same: in chunks, or
/// over HTTP/2, where none has to be announced.
fn announced_length(request: &Request<'_>) -> Option<usize> {
    let length = request.header("content-length")?;
    std::str::from_utf8(length).ok()?.parse().ok()
}

fn print<'r>(request: &'r Request<'_>, route: &'r Route, params: &Params<'r>) -> Print<'r> {
    let headers = FINGERPRINTED
        .into_iter()
        .flat_map(|name| request.header_values(name).map(move |value| (name, value)));
    Print {
        method: request.method().as_str(),
        route: &route.id,
        params: params.clone(),
        query: request
            .args()
            .map(|(name, value)| (name.to_vec(), value.unwrap_or_default().to_vec()))
            .collect(),
        headers: headers.collect(),
    }
}

fn replayed(
    Outcome {
        status,
        headers,
        body,
    }: Outcome,
) -> Reply {
    let reply = Reply::new(status).with_header(header::IDEMPOTENCY_REPLAYED, "true");
    let reply = headers
        .into_iter()
        .fold(reply, |reply, (name, value)| reply.with_header(name, value));
    match body {
        Body::Whole(bytes) => reply.with_bytes(bytes),
        Body::Omitted => reply.with_header(header::IDEMPOTENCY_BODY, "omitted"),
    }
}

fn in_progress() -> Reply {
    let message = "a request with this Idempotency-Key is running: retry with the same key";
    Reply::refuse(Code::IdempotencyInProgress, message).with_header("Retry-After", "1")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::testkit::{self, Simulated};

    /// Says whether a request can be compared here.
    struct Compare;

    #[derive(Deserialize, JsonSchema)]
    struct CompareConfig {}

    impl Plugin for Compare {
        const NAME: &'static str = "compare";
        type Config = CompareConfig;

        async fn on_request(&self, _: &CompareConfig, request: &mut Request<'_>) -> Flow {
            let own = own_fingerprint(request).await;
            let shown = own.map_or("the handler compares".to_owned(), |own| format!("{own:?}"));
            request.set_header("x-compared", shown);
            Flow::Next
        }
    }

    async fn compared(request: Simulated) -> String {
        let registry = Registry::new().with(Compare);
        let chain = registry.chain([("compare", "{}")]).unwrap();
        let outcome = request.judge(&chain).await;
        outcome.upstream_header("x-compared").unwrap().into()
    }

    #[tokio::test]
    async fn only_what_is_announced_is_compared_here() {
        let with = |body: &str| testkit::request("POST", "/v1/tenants").body(body);
        let announced = |body: &str| with(body).header("Content-Length", body.len().to_string());
        let (own, none) = (
            compared(announced("{}")).await,
            compared(announced("")).await,
        );
        assert_ne!(own, none);
        let unknown = "the handler compares";
        assert!(own != unknown && none != unknown, "{own} {none}");
        // As HTTP/2 may bring it, and chunks.
        for request in [
            with("{}"),
            with("{}").header("Transfer-Encoding", "chunked"),
            with("{}").header("Content-Length", (MAX_BODY + 1).to_string()),
        ] {
            assert_eq!(compared(request).await, unknown);
        }
    }
}
