//! What `authorize` decides without its directory, and what it says when that is away.
//! With one it is tested through the gateway (`tests/suites/tests/e2e`).
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use postern_contract::{Code, Family};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Authorize, AuthorizeSettings};
use crate::testkit::{self, Outcome};
use crate::{Flow, Identity, Plugin, Registry, Request};

/// Stands where `jwt` does: the caller is whoever the configuration says.
struct Caller;

#[derive(Deserialize, JsonSchema)]
struct Claims {
    tenant: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
}

impl Plugin for Caller {
    const NAME: &'static str = "caller";
    type Config = Claims;

    async fn on_request(&self, claims: &Claims, request: &mut Request<'_>) -> Flow {
        let identity = Identity {
            issuer: "https://issuer.example.com".into(),
            subject: "somebody".into(),
            tenant: claims.tenant.clone(),
            workspace: None,
            plan: None,
            roles: claims.roles.clone(),
            scopes: claims.scopes.clone(),
            expires_at: i64::MAX,
            session: None,
            client: None,
            tenant_slug: None,
        };
        request.facts.identity = Some(identity.into());
        Flow::Next
    }
}

const OWN: &str = "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV";
const OTHER: &str = "tnt_01BX5ZZKBKACTAV9WEVGEMMVRZ";

/// The directory's socket is not there: nobody answers.
fn away() -> AuthorizeSettings {
    AuthorizeSettings {
        directory: Some("unix:/nonexistent/directory.sock".into()),
        ..AuthorizeSettings::default()
    }
}

async fn judge_with(
    settings: AuthorizeSettings,
    tenant: Option<&str>,
    role: &str,
    method: &str,
    path: &str,
) -> Outcome {
    let scopes = [
        "platform:read",
        "tenants:read",
        "tenants:write",
        "postgres:read",
    ];
    let claims =
        serde_json::json!({"tenant": tenant, "roles": [role], "scopes": scopes}).to_string();
    let registry = Registry::new()
        .with(Caller)
        .with(Authorize::new(settings).unwrap());
    let chain = registry
        .chain([("caller", claims.as_str()), ("authorize", "{}")])
        .unwrap();
    testkit::request(method, path).judge(&chain).await
}

async fn judge(tenant: Option<&str>, role: &str, method: &str, path: &str) -> Outcome {
    judge_with(away(), tenant, role, method, path).await
}

fn refused(outcome: &Outcome, status: u16, code: Code) {
    assert_eq!(
        (outcome.status(), outcome.code()),
        (Some(status), Some(code)),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_platform_token_needs_no_directory() {
    for (role, method, path) in [
        ("platform_admin", "POST", "/v1/tenants"),
        ("platform_operator", "GET", "/v1/platform/audit"),
        ("nobody", "GET", "/v1/platform/info"),
    ] {
        let outcome = judge(None, role, method, path).await;
        assert!(outcome.goes_on(), "{path}: {outcome}");
    }
}

#[tokio::test]
async fn scope_and_role_come_first() {
    let outcome = judge(None, "platform_admin", "GET", "/v1/workspaces").await;
    refused(&outcome, 403, Code::ScopeDenied);
    assert!(
        outcome.message().unwrap().contains("workspaces:read"),
        "{outcome}"
    );
    for (tenant, role, method, path) in [
        (None, "platform_operator", "POST", "/v1/tenants"),
        (Some(OWN), "tenant_admin", "POST", "/v1/tenants"),
        (None, "superadmin", "GET", "/v1/postgres/wks_x/rows/t"),
    ] {
        let outcome = judge(tenant, role, method, path).await;
        refused(&outcome, 403, Code::RoleDenied);
    }
}

#[tokio::test]
async fn another_tenant_is_none_whether_or_not_it_is_there() {
    for path in [
        format!("/v1/tenants/{OTHER}"),
        "/v1/tenants/nonsense".to_owned(),
    ] {
        let outcome = judge(Some(OWN), "tenant_admin", "GET", &path).await;
        refused(&outcome, 404, Code::TenantNotFound);
    }
}

#[tokio::test]
async fn without_an_answer_a_tenant_waits() {
    let outcome = judge(Some(OWN), "tenant_admin", "GET", "/v1/tenants").await;
    refused(&outcome, 503, Code::BackendUnavailable);
    assert!(outcome.header("retry-after").is_some(), "{outcome}");
}

#[tokio::test]
async fn a_family_that_is_off_says_so_to_whom_it_would_be_open() {
    let settings = AuthorizeSettings {
        families: [Family::Tenants].into(),
        ..away()
    };
    let path = "/v1/platform/info";
    let outcome = judge_with(settings.clone(), None, "platform_admin", "GET", path).await;
    refused(&outcome, 503, Code::FamilyUnavailable);
    let outcome = judge_with(settings, None, "nobody", "GET", "/v1/platform/audit").await;
    refused(&outcome, 403, Code::RoleDenied);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused() {
    let bad = [
        AuthorizeSettings {
            directory: Some("directory.sock".into()),
            ..AuthorizeSettings::default()
        },
        AuthorizeSettings {
            cached_entries: 0,
            ..away()
        },
    ];
    for settings in bad {
        assert!(Authorize::new(settings).is_err());
    }
    let closed = Registry::new().with(Authorize::new(AuthorizeSettings::default()).unwrap());
    assert!(
        closed.chain([("authorize", "{}")]).is_err(),
        "a route without a directory is misconfigured"
    );
}
