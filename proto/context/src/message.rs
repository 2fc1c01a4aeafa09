//! The message inside the seal. Field numbers are the wire; none is ever reused.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What the runner knows of a request, sealed for one family.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Context {
    /// The family it is for (`tenants`); another's handler refuses it.
    #[prost(string, tag = "1")]
    pub audience: String,
    /// The route's id in the routes table.
    #[prost(string, tag = "2")]
    pub route: String,
    /// The method as the client sent it (HEAD stays HEAD).
    #[prost(string, tag = "3")]
    pub method: String,
    /// Every path parameter, decoded, in the order of the template.
    #[prost(message, repeated, tag = "4")]
    pub params: Vec<PathParam>,
    /// `iss` of the token; empty on a public route without one.
    #[prost(string, tag = "5")]
    pub issuer: String,
    /// `sub` of the token; empty on a public route without one.
    #[prost(string, tag = "6")]
    pub subject: String,
    /// The token's tenant; empty for a platform token.
    #[prost(string, tag = "7")]
    pub tenant: String,
    /// The workspace that the token is pinned to; empty: none.
    #[prost(string, tag = "8")]
    pub workspace: String,
    /// The tenant's plan, by the directory, else by the token.
    #[prost(string, tag = "9")]
    pub plan: String,
    /// Realm roles.
    #[prost(string, repeated, tag = "10")]
    pub roles: Vec<String>,
    /// Scopes.
    #[prost(string, repeated, tag = "11")]
    pub scopes: Vec<String>,
    /// The token's `exp`, epoch seconds.
    #[prost(uint64, tag = "12")]
    pub token_expires_at: u64,
    /// The token's `sid`.
    #[prost(string, tag = "13")]
    pub session: String,
    /// The client's address, as text.
    #[prost(string, tag = "14")]
    pub client_address: String,
    /// The correlation id, checked or generated.
    #[prost(string, tag = "15")]
    pub correlation_id: String,
    /// The idempotency claim; absent where the route asks for no key or none came.
    #[prost(message, optional, tag = "16")]
    pub claim: Option<Claim>,
    /// The limiter's state, for the answer's headers; absent where none ran.
    #[prost(message, optional, tag = "17")]
    pub rate_limit: Option<RateLimit>,
    /// The largest body to take, bytes.
    #[prost(uint64, tag = "18")]
    pub body_limit: u64,
    /// When it was sealed, epoch milliseconds.
    #[prost(uint64, tag = "19")]
    pub issued_at_ms: u64,
    /// The API version the client asked for; empty on a public route without one.
    #[prost(string, tag = "20")]
    pub api_version: String,
}

/// One path parameter.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PathParam {
    /// Its name in the template.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its decoded value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// The idempotency claim that the runner took for the request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Claim {
    /// 32 bytes: the scope's digest, the name of claim and record.
    #[prost(bytes = "vec", tag = "1")]
    pub scope: Vec<u8>,
    /// 16 bytes: who holds the claim; empty where the claim store was away and
    /// the request went on without one.
    #[prost(bytes = "vec", tag = "2")]
    pub holder: Vec<u8>,
}

/// What the limiter decided last: the limit nearest to refusing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RateLimit {
    /// The policy's name, for `RateLimit-Policy`.
    #[prost(string, tag = "1")]
    pub policy: String,
    /// Requests a minute.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
    /// How many at once from full.
    #[prost(uint32, tag = "3")]
    pub burst: u32,
    /// How many would pass now.
    #[prost(uint32, tag = "4")]
    pub remaining: u32,
    /// The epoch second at which the bucket is full.
    #[prost(uint64, tag = "5")]
    pub reset: u64,
    /// For how many seconds `remaining` is what there is, rounded up: until the bucket is
    /// full, or, where nothing remains, until something does. `RateLimit`'s `t`.
    #[prost(uint64, tag = "6")]
    pub reset_after: u64,
    /// A hash of whom the limit is about: `pk`.
    #[prost(bytes = "vec", tag = "7")]
    pub partition: Vec<u8>,
}

impl RateLimit {
    /// The values of `RateLimit` and `RateLimit-Policy`, as
    /// draft-ietf-httpapi-ratelimit-headers-11 has them.
    #[must_use]
    pub fn fields(&self) -> (String, String) {
        let (policy, partition) = (&self.policy, &self.partition);
        rate_limit_fields(
            policy,
            self.limit,
            self.remaining,
            self.reset_after,
            partition,
        )
    }
}

pub(crate) fn rate_limit_fields(
    policy: &str,
    limit: u32,
    remaining: u32,
    reset_after: u64,
    partition: &[u8],
) -> (String, String) {
    let pk = match partition {
        [] => String::new(),
        partition => format!(";pk=:{}:", BASE64_STANDARD.encode(partition)),
    };
    (
        format!("\"{policy}\";r={remaining};t={reset_after}{pk}"),
        format!("\"{policy}\";q={limit};w=60{pk}"),
    )
}
