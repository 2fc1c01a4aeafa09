//! What a token says, before the issuer signs it.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Map, Value, json};

/// Every scope there is, so that a test takes away the one it is about.
pub const ALL_SCOPES: &str = "platform:read tenants:read tenants:write workspaces:read \
    workspaces:write iam:read iam:write postgres:read postgres:write mongo:read mongo:write \
    functions:read functions:write functions:invoke storage:read storage:write \
    events:read events:write events:publish events:subscribe";

/// Claims, and the key that signs them. Each is a subject of its own, so that
/// limits and idempotency keys of one test never meet another's.
#[derive(Debug, Clone)]
pub struct Token {
    claims: Map<String, Value>,
    wish: Map<String, Value>,
}

impl Token {
    /// A platform token with this role: it carries no tenant.
    #[must_use]
    pub fn platform(role: &str) -> Self {
        let subject = format!("{role}-{}", unique());
        let claims = [
            ("sub", json!(subject)),
            ("azp", json!("postern-tests")),
            ("sid", json!(unique())),
            ("scope", json!(ALL_SCOPES)),
            ("realm_access", json!({"roles": [role]})),
        ];
        Self {
            claims: claims
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect(),
            wish: Map::new(),
        }
    }

    /// A token of a tenant with this role.
    #[must_use]
    pub fn of_tenant(tenant_id: &str, role: &str) -> Self {
        Self::platform(role).claim("tenant_id", json!(tenant_id))
    }

    /// The same, pinned to one workspace.
    #[must_use]
    pub fn pinned_to(self, workspace_id: &str) -> Self {
        self.claim("workspace_id", json!(workspace_id))
    }

    /// With this claim instead of what stands there.
    #[must_use]
    pub fn claim(mut self, name: &str, value: Value) -> Self {
        self.claims.insert(name.to_owned(), value);
        self
    }

    /// Without this claim, `iss`, `aud` and `exp` included.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        self.claim(name, Value::Null)
    }

    /// With these scopes alone.
    #[must_use]
    pub fn scopes(self, scopes: &str) -> Self {
        self.claim("scope", json!(scopes))
    }

    /// With every scope but this one.
    #[must_use]
    pub fn without_scope(self, scope: &str) -> Self {
        let rest: Vec<&str> = ALL_SCOPES
            .split_whitespace()
            .filter(|known| *known != scope)
            .collect();
        self.scopes(&rest.join(" "))
    }

    /// Expired (or, when negative, expiring) so many seconds ago.
    #[must_use]
    pub fn expired_for(self, seconds: i64) -> Self {
        let exp = now().saturating_sub(seconds);
        self.claim("exp", json!(exp))
    }

    /// Signed by another of the issuer's keys (see the development issuer's `mint`).
    #[must_use]
    pub fn signed(mut self, key: &str, algorithm: &str) -> Self {
        self.wish.insert("key".to_owned(), json!(key));
        self.wish.insert("alg".to_owned(), json!(algorithm));
        self
    }

    /// With this `kid` in its header, or with none.
    #[must_use]
    pub fn key_id(mut self, kid: Option<&str>) -> Self {
        self.wish.insert("kid".to_owned(), json!(kid));
        self
    }

    /// The `sub` claim.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.claims.get("sub").and_then(Value::as_str).unwrap_or("")
    }

    /// The body of a request to `mint`: what was not set is filled in.
    pub(crate) fn order(&self, issuer: &str, audience: &str) -> Result<Vec<u8>> {
        let now = now();
        let mut claims = Map::new();
        for (name, value) in [
            ("iss", json!(issuer)),
            ("aud", json!(audience)),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now.saturating_add(3600))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        claims.extend(self.claims.clone());
        claims.retain(|_, value| !value.is_null());
        let mut wish = self.wish.clone();
        wish.insert("claims".to_owned(), Value::Object(claims));
        Ok(serde_json::to_vec(&wish)?)
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|age| i64::try_from(age.as_secs()).ok())
        .unwrap_or(0)
}

/// A short text that nobody else has: lower-case letters and digits.
#[must_use]
pub fn unique() -> String {
    Alphanumeric
        .sample_string(&mut rand::rng(), 12)
        .to_lowercase()
}
