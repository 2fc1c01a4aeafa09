//! `GET /v1/auth/signups/policy`: who may become a user, as the operator decided.

use std::sync::Arc;

use http::StatusCode;
use postern_common::{Call, Failure, Reply};
use serde::{Deserialize, Serialize};

use crate::Auth;

/// How people become users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignupMode {
    /// They sign up on Keycloak's own pages.
    Open,
    /// An admin of their tenant invites them.
    #[default]
    Invite,
    /// Nobody becomes one for now, invitations included.
    Closed,
    /// As `invite`, where an admin answers what the deployment's own form collected.
    Approval,
}

/// The policy, as configured and as answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SignupPolicy {
    /// How.
    pub mode: SignupMode,
    /// Only with a mail address in one of these; empty: in any.
    pub allowed_domains: Vec<String>,
}

impl SignupPolicy {
    /// Whether a mail address lies in an allowed domain.
    pub(crate) fn allows(&self, email: &str) -> bool {
        let Some((_, domain)) = email.rsplit_once('@') else {
            return false;
        };
        self.allowed_domains.is_empty()
            || self
                .allowed_domains
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(domain))
    }
}

/// `GET /v1/auth/signups/policy`
pub(crate) async fn policy(app: Arc<Auth>, call: Call) -> Result<Reply, Failure> {
    call.query()?.finish()?;
    Reply::json(StatusCode::OK, &app.signups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        let policy = SignupPolicy {
            mode: SignupMode::Invite,
            allowed_domains: vec!["example.com".into()],
        };
        assert!(policy.allows("a@Example.com"));
        for other in [
            "a@evil.com",
            "a@example.com.evil.com",
            "a@sub.example.com",
            "a",
        ] {
            assert!(!policy.allows(other), "{other}");
        }
        assert!(SignupPolicy::default().allows("a@anywhere.org"));
    }
}
