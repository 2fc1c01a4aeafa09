//! The section `jwt` of the runner's configuration: whom the runner trusts.

mod check;

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// Whom the runner trusts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct JwtSettings {
    /// Every issuer whose tokens are taken. Without one, routes with `jwt` are closed.
    pub issuers: Vec<IssuerSettings>,
    /// How far clocks may differ, in seconds, for `exp`, `nbf` and `iat`.
    pub leeway_seconds: u64,
    /// Verified tokens that are remembered; beyond it those used least are verified again.
    pub cached_tokens: u64,
    /// Issuers of templates that are known at once; beyond it the one not used for
    /// longest is forgotten, and its keys are fetched when it is used again.
    pub max_issuers: u64,
    /// How keys are fetched.
    pub fetch: FetchSettings,
    /// What is known of revoked tokens.
    pub revocations: RevocationSettings,
}

/// How an issuer's keys are fetched, and how long they are good.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct FetchSettings {
    /// How long a key set is used before it is fetched again, in the background; less
    /// if the issuer's `Cache-Control: max-age` says less.
    pub refresh_seconds: u64,
    /// But no less than this.
    pub min_refresh_seconds: u64,
    /// How long the last good set is used when no newer one can be fetched. Beyond it
    /// the issuer's tokens answer 503.
    pub keep_seconds: u64,
    /// How long a key is accepted that the issuer no longer publishes; 0: not at all.
    /// Covers issuers of several nodes that do not change their keys at the same time.
    pub grace_seconds: u64,
    /// The least time between two fetches that tokens with unknown keys can cause, in ms.
    pub unknown_key_ms: u64,
    /// How long the name of a key that a fetch did not bring is remembered as unknown.
    pub unknown_key_seconds: u64,
    /// The same for an issuer that a template allows and that does not exist.
    pub unknown_issuer_seconds: u64,
    /// New issuers of templates that are looked for in a second for one client address,
    /// at most, after a burst; for all addresses together ten times as many.
    pub new_issuers_per_second: u64,
    /// How long a fetch may take, in ms.
    pub timeout_ms: u64,
    /// How long a request may wait for a fetch when no known key can answer it, in ms.
    pub wait_ms: u64,
}

/// How long what was heard of revoked tokens is relied on.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RevocationSettings {
    /// How long tokens are taken while the directory, which tells of revoked ones, is
    /// away. Beyond it they answer 503.
    pub max_staleness_seconds: u64,
}

/// One trusted issuer, or a template of many.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IssuerSettings {
    /// `iss` of its tokens, letter by letter. With `{slug}` in its path it stands for an
    /// issuer a tenant: lower-case letters, digits and hyphens, 63 at most. Tokens of
    /// such an issuer must name a tenant, and are good only for the one of this slug.
    pub issuer: String,
    /// Which slugs a template stands for: `acme`, `eu-*` or `*`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Where its keys are (RFC 7517), fetched directly, without a proxy; with `{slug}`
    /// for a template. Absent: what `<issuer>/.well-known/openid-configuration` says.
    pub jwks_uri: Option<String>,
    /// `aud` of a token must hold one of these.
    pub audiences: Vec<String>,
    /// Only tokens that these clients got (`azp`, by its configured name); by default
    /// any client's.
    pub clients: Option<Vec<String>>,
    /// What tokens may be signed with; by default everything that can be named here.
    #[serde(default = "SignatureAlgorithm::all")]
    pub algorithms: Vec<SignatureAlgorithm>,
    /// `typ` of a token's header, if it has one; the case does not matter, nor
    /// `application/` before it.
    #[serde(default = "usual_types")]
    pub types: Vec<String>,
    /// Asks the issuer whether a token still counts, besides all checks.
    pub introspection: Option<IntrospectionSettings>,
    /// What its claims are called.
    #[serde(default)]
    pub claims: ClaimNames,
}

/// How an issuer is asked whether a token still counts (RFC 7662).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IntrospectionSettings {
    /// Where; with `{slug}` for a template.
    pub uri: String,
    /// As whom the runner asks.
    pub client_id: String,
    /// The file of that client's secret.
    pub client_secret_file: PathBuf,
    /// How long an answer is used.
    #[serde(default = "usual_introspection_seconds")]
    pub cache_seconds: u64,
    /// How long an answer may take, in ms. Without one the token answers 503.
    #[serde(default = "usual_introspection_ms")]
    pub timeout_ms: u64,
}

fn usual_types() -> Vec<String> {
    vec!["JWT".into(), "at+jwt".into()]
}

fn usual_introspection_seconds() -> u64 {
    30
}

fn usual_introspection_ms() -> u64 {
    1_000
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
            max_issuers: 1_000,
            fetch: FetchSettings::default(),
            revocations: RevocationSettings::default(),
        }
    }
}

impl Default for FetchSettings {
    fn default() -> Self {
        Self {
            refresh_seconds: 300,
            min_refresh_seconds: 30,
            keep_seconds: 21_600,
            grace_seconds: 60,
            unknown_key_ms: 1_000,
            unknown_key_seconds: 10,
            unknown_issuer_seconds: 10,
            new_issuers_per_second: 5,
            timeout_ms: 3_000,
            wait_ms: 2_000,
        }
    }
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self {
            max_staleness_seconds: 300,
        }
    }
}

impl FetchSettings {
    /// How long a set may be used that came with this `max-age`.
    pub(super) fn life(self, max_age: Option<u64>) -> Duration {
        let seconds = max_age.unwrap_or(self.refresh_seconds);
        Duration::from_secs(
            seconds
                .max(self.min_refresh_seconds)
                .min(self.refresh_seconds),
        )
    }

    pub(super) fn refresh(self) -> Duration {
        Duration::from_secs(self.refresh_seconds)
    }

    pub(super) fn keep(self) -> Duration {
        Duration::from_secs(self.keep_seconds)
    }

    pub(super) fn grace(self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    pub(super) fn unknown_key(self) -> Duration {
        Duration::from_millis(self.unknown_key_ms)
    }

    pub(super) fn unknown_kid(self) -> Duration {
        Duration::from_secs(self.unknown_key_seconds)
    }

    pub(super) fn unknown_issuer(self) -> Duration {
        Duration::from_secs(self.unknown_issuer_seconds)
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
