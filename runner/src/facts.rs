//! What plugins learn about one request and hand on to those behind them.
//!
//! Each fact has one plugin that sets it; the others read. A plugin of one's own
//! keeps what it wants to hand on in the [`Facts::extensions`], by its type.

use std::borrow::Cow;
use std::sync::Arc;

/// The facts of one request. `'a` is the request's frame: facts may borrow from it.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// Set by `correlation-id`: the client's, checked, or a new one. What the
    /// envelope and the answer's `X-Correlation-Id` carry.
    pub correlation_id: Option<Cow<'a, str>>,
    /// Set by `jwt`: who asks. `None` on public routes.
    pub identity: Option<Arc<Identity>>,
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
    pub claim: Option<String>,
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
    /// Roles, as the issuer names them.
    pub roles: Vec<String>,
    /// Scopes, split at spaces.
    pub scopes: Vec<String>,
    /// When the token ends, in seconds since 1970.
    pub expires_at: i64,
    /// The session the token belongs to (`sid`).
    pub session: Option<String>,
    /// The client that got the token (`azp`).
    pub client: Option<String>,
}

/// The state of a limit after a request was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The policy's name, as in `RateLimit-Policy`.
    pub policy: Cow<'static, str>,
    /// Requests per minute.
    pub limit: u32,
    /// Requests that may come at once on top.
    pub burst: u32,
    /// Requests that would pass now.
    pub remaining: u32,
    /// When the bucket is full again, in seconds since 1970.
    pub reset_at: u64,
    /// Seconds until the bucket is full again.
    pub reset_in: u64,
}

impl RateLimit {
    /// The headers that tell a client about it: `X-RateLimit-*` and the two fields of
    /// draft-ietf-httpapi-ratelimit-headers-11.
    pub(crate) fn headers(&self, mut add: impl FnMut(&'static str, String)) {
        let Self {
            policy,
            limit,
            burst,
            remaining,
            reset_at,
            reset_in,
        } = self;
        add("X-RateLimit-Limit", limit.to_string());
        add("X-RateLimit-Remaining", remaining.to_string());
        add("X-RateLimit-Reset", reset_at.to_string());
        add(
            "RateLimit",
            format!("\"{policy}\";r={remaining};t={reset_in}"),
        );
        let quota = limit.saturating_add(*burst);
        add("RateLimit-Policy", format!("\"{policy}\";q={quota};w=60"));
    }
}
