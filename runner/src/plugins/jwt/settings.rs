//! The section `jwt` of the runner's configuration: whom the runner trusts.

use std::time::Duration;

use anyhow::ensure;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// Whom the runner trusts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct JwtSettings {
    /// Every issuer whose tokens are taken. Without one, routes with `jwt` are closed.
    pub issuers: Vec<IssuerSettings>,
    /// How far clocks may differ, in seconds, for `exp` and `nbf`.
    pub leeway_seconds: u64,
    /// Verified tokens that are remembered; beyond it those used least are verified again.
    pub cached_tokens: u64,
    /// How keys are fetched.
    pub fetch: FetchSettings,
}

/// How an issuer's keys are fetched.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FetchSettings {
    /// How long a key set is used before it is fetched again, in the background.
    pub refresh_seconds: u64,
    /// The least time between two fetches that tokens with unknown keys can cause, in ms.
    pub unknown_key_ms: u64,
    /// How long a fetch may take, in ms.
    pub timeout_ms: u64,
    /// How long a request may wait for a fetch when no known key can answer it, in ms.
    pub wait_ms: u64,
}

/// One trusted issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IssuerSettings {
    /// `iss` of its tokens, letter by letter.
    pub issuer: String,
    /// Where its keys are (RFC 7517), fetched directly, without a proxy. Absent: what
    /// `<issuer>/.well-known/openid-configuration` says.
    pub jwks_uri: Option<String>,
    /// `aud` of a token must hold one of these.
    pub audiences: Vec<String>,
    /// What tokens may be signed with; by default everything that can be named here.
    #[serde(default = "SignatureAlgorithm::all")]
    pub algorithms: Vec<SignatureAlgorithm>,
    /// What its claims are called.
    #[serde(default)]
    pub claims: ClaimNames,
}

/// Names of claims. A dot reaches into an object (`realm_access.roles`) unless a claim
/// has the whole as its name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimNames {
    /// The caller's tenant; a token without it is the platform's.
    pub tenant: String,
    /// The one workspace that the token is good for; a token without it is not bound.
    pub workspace: String,
    /// The tenant's plan.
    pub plan: String,
    /// A list of roles.
    pub roles: String,
    /// Scopes: a text with spaces, or a list.
    pub scopes: String,
    /// The client that got the token.
    pub client: String,
    /// The session.
    pub session: String,
}

/// What a token may be signed with. Nothing symmetric and not `none`: who can verify
/// a token must not be able to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names of RFC 7518 and RFC 8037")]
pub enum SignatureAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl SignatureAlgorithm {
    fn all() -> Vec<Self> {
        use SignatureAlgorithm as A;
        vec![
            A::RS256,
            A::RS384,
            A::RS512,
            A::PS256,
            A::PS384,
            A::PS512,
            A::ES256,
            A::ES384,
            A::EdDSA,
        ]
    }
}

impl From<SignatureAlgorithm> for Algorithm {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::RS256 => Self::RS256,
            SignatureAlgorithm::RS384 => Self::RS384,
            SignatureAlgorithm::RS512 => Self::RS512,
            SignatureAlgorithm::PS256 => Self::PS256,
            SignatureAlgorithm::PS384 => Self::PS384,
            SignatureAlgorithm::PS512 => Self::PS512,
            SignatureAlgorithm::ES256 => Self::ES256,
            SignatureAlgorithm::ES384 => Self::ES384,
            SignatureAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            leeway_seconds: 30,
            cached_tokens: 10_000,
            fetch: FetchSettings::default(),
        }
    }
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            refresh_seconds: 300,
            unknown_key_ms: 5_000,
            timeout_ms: 3_000,
            wait_ms: 500,
        }
    }
}

impl FetchSettings {
    pub(super) fn refresh(self) -> Duration {
        Duration::from_secs(self.refresh_seconds)
    }

    pub(super) fn unknown_key(self) -> Duration {
        Duration::from_millis(self.unknown_key_ms)
    }

    pub(super) fn timeout(self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn wait(self) -> Duration {
        Duration::from_millis(self.wait_ms)
    }
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            tenant: "tenant_id".into(),
            workspace: "workspace_id".into(),
            plan: "plan_id".into(),
            roles: "realm_access.roles".into(),
            scopes: "scope".into(),
            client: "azp".into(),
            session: "sid".into(),
        }
    }
}

impl JwtSettings {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.leeway_seconds <= 300,
            "plugins.jwt.leewaySeconds: must be at most 300"
        );
        ensure!(
            self.cached_tokens > 0,
            "plugins.jwt.cachedTokens: must be above 0"
        );
        let FetchSettings {
            refresh_seconds,
            timeout_ms,
            wait_ms,
            ..
        } = self.fetch;
        ensure!(
            refresh_seconds > 0,
            "plugins.jwt.fetch.refreshSeconds: must be above 0"
        );
        ensure!(
            timeout_ms > 0,
            "plugins.jwt.fetch.timeoutMs: must be above 0"
        );
        ensure!(
            wait_ms <= 5_000,
            "plugins.jwt.fetch.waitMs: must be at most 5000"
        );
        for (at, issuer) in self.issuers.iter().enumerate() {
            let field = format!("plugins.jwt.issuers[{at}]");
            let twice = self
                .issuers
                .iter()
                .skip(at + 1)
                .any(|other| other.issuer == issuer.issuer);
            ensure!(!twice, "{field}.issuer: {:?} stands twice", issuer.issuer);
            ensure!(
                !issuer.audiences.is_empty(),
                "{field}.audiences: name at least one"
            );
            ensure!(
                !issuer.algorithms.is_empty(),
                "{field}.algorithms: name at least one"
            );
            let (name, uri) = match &issuer.jwks_uri {
                Some(uri) => ("jwksUri", uri),
                None => ("issuer", &issuer.issuer),
            };
            let fetchable = reqwest::Url::parse(uri)
                .is_ok_and(|uri| matches!(uri.scheme(), "http" | "https") && uri.has_host());
            ensure!(
                fetchable,
                "{field}.{name}: {uri:?} is no http or https address to fetch keys from"
            );
        }
        Ok(())
    }
}
