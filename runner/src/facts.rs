//! What plugins learn about one request and hand on to those behind them.
//!
//! Each fact has one plugin that sets it; the others read. A plugin of one's own
//! keeps what it wants to hand on in the [`Facts::extensions`], by its type.

use std::borrow::Cow;

pub use postern_context::Claim;

use crate::caller::Caller;

/// The state of a limit.
pub type RateLimit = postern_context::RateLimitView<'static>;

/// The facts of one request. `'a` is the request's frame: facts may borrow from it.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// Set by `correlation-id`: the client's, checked, or a new one. What the
    /// envelope and the answer's `X-Correlation-Id` carry.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Set by `headers`: the API version the client was written for.
    pub api_version: Option<Cow<'a, str>>,
    /// Set by `jwt`: who asks. `None` on public routes.
    pub identity: Option<Caller>,
    /// Set by `authorize`: the tenant that is acted on, which a platform token names
    /// in the path and a tenant token brings with it.
    pub tenant: Option<String>,
    /// Set by `authorize`: the workspace that is acted on.
    pub workspace: Option<String>,
    /// Set by `authorize`: the tenant's plan, from the directory or the token.
    pub plan: Option<String>,
    /// Set by `address-limit` and `rate-limit`: the state of the tightest limit that
    /// ran. A refusal carries it in its headers.
    pub rate_limit: Option<RateLimit>,
    /// Set by `idempotency`: the claim that was taken for this request.
    pub claim: Option<Claim>,
    /// Facts of plugins from elsewhere, by type.
    pub extensions: http::Extensions,
}

/// Who asks, as a verified token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The token's issuer (`iss`).
    pub issuer: String,
    /// The caller (`sub`).
    pub subject: String,
    /// The tenant the caller belongs to; `None` for the platform's own staff.
    pub tenant: Option<String>,
    /// The one workspace the token is pinned to.
    pub workspace: Option<String>,
    /// The plan the token names.
    pub plan: Option<String>,
    /// Roles, as the issuer names them; none that means nothing on such a token (a
    /// platform's role on a tenant's, a workspace's on one that is pinned to none).
    pub roles: Vec<String>,
    /// Scopes, split at spaces.
    pub scopes: Vec<String>,
    /// When the token ends, in seconds since 1970.
    pub expires_at: i64,
    /// The session the token belongs to (`sid`).
    pub session: Option<String>,
    /// The client that got the token (`azp`).
    pub client: Option<String>,
    /// The slug of the tenant whose own issuer made the token; `None` of a common
    /// issuer. The token is good for no other tenant.
    pub tenant_slug: Option<String>,
}

/// The headers that tell a client about a limit.
pub(crate) fn rate_limit_headers(state: &RateLimit, mut add: impl FnMut(&'static str, String)) {
    add("X-RateLimit-Limit", state.limit.to_string());
    add("X-RateLimit-Remaining", state.remaining.to_string());
    add("X-RateLimit-Reset", state.reset.to_string());
    let (current, policy) = state.fields();
    add("RateLimit", current);
    add("RateLimit-Policy", policy);
}
