//! A new realm, in Keycloak's own representation.
//!
//! What runners read of a token is put there by one client scope, which every client of
//! the realm has: nobody who makes clients can make one whose tokens name another tenant
//! or none.

use std::collections::BTreeSet;

use postern_common::control_plane::Tenant;
use postern_contract::routes;
use serde_json::{Value, json};

use crate::Auth;
use crate::iam::{MARK, PIN};
use crate::signups::SignupMode;

/// The client scope that every client has.
pub(crate) const SCOPE: &str = "postern";

/// Clients that Keycloak makes in every realm for itself.
pub(crate) const BUILT_IN_CLIENTS: [&str; 6] = [
    "account",
    "account-console",
    "admin-cli",
    "broker",
    "realm-management",
    "security-admin-console",
];

/// Roles that mean something on a tenant's token.
const ROLES: [(&str, &str); 4] = [
    ("tenant_admin", "Manages the tenant and its workspaces"),
    ("tenant_operator", "Reads the tenant and its workspaces"),
    (
        "workspace_admin",
        "Manages the workspace that the token is pinned to",
    ),
    (
        "workspace_operator",
        "Reads the workspace that the token is pinned to",
    ),
];

/// The scopes of the API, by the routes table.
pub(crate) fn scopes() -> BTreeSet<&'static str> {
    routes()
        .all()
        .iter()
        .filter_map(|route| route.scope.as_deref())
        .collect()
}

/// The realm of a tenant, with its first admin, who sets a password before the first log-in.
pub(super) fn realm(app: &Auth, name: &str, tenant: &Tenant) -> Value {
    let scopes = scopes();
    let mut client_scopes: Vec<Value> = scopes
        .iter()
        .map(|scope| {
            json!({
                "name": scope,
                "protocol": "openid-connect",
                "attributes": {"include.in.token.scope": "true"},
            })
        })
        .collect();
    client_scopes.push(json!({
        "name": SCOPE,
        "description": "What the API reads of a token",
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "false"},
        "protocolMappers": mappers(&app.audience, tenant),
    }));
    let own_client_scopes: Vec<_> = scopes.iter().copied().chain([SCOPE]).collect();
    let roles: Vec<Value> = ROLES
        .iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    json!({
        "realm": name,
        "displayName": tenant.display_name,
        "enabled": tenant.active,
        "sslRequired": "external",
        "registrationAllowed": app.signups.mode == SignupMode::Open,
        "loginWithEmailAllowed": true,
        "resetPasswordAllowed": true,
        "bruteForceProtected": true,
        "accessTokenLifespan": 300,
        "roles": {"realm": roles},
        "clientScopes": client_scopes,
        "defaultDefaultClientScopes": [SCOPE],
        "clients": [{
            "clientId": app.realms.client(),
            "name": "Log-in of the API",
            "publicClient": true,
            "standardFlowEnabled": true,
            "directAccessGrantsEnabled": true,
            "redirectUris": [],
            "attributes": {"pkce.code.challenge.method": "S256"},
            "defaultClientScopes": own_client_scopes,
            "optionalClientScopes": [],
        }],
        "users": [{
            "username": tenant.admin_email,
            "email": tenant.admin_email,
            "enabled": true,
            "requiredActions": ["UPDATE_PASSWORD", "UPDATE_PROFILE"],
            "realmRoles": ["tenant_admin"],
        }],
        "components": {"org.keycloak.userprofile.UserProfileProvider": [{
            "providerId": "declarative-user-profile",
            "config": {"kc.user.profile.config": [user_profile(&app.signups.allowed_domains).to_string()]},
        }]},
    })
}

fn mappers(audience: &str, tenant: &Tenant) -> Vec<Value> {
    let mapper = |name: &str, kind: &str, mut config: Value| {
        if let Some(config) = config.as_object_mut() {
            for token in ["access.token.claim", "introspection.token.claim"] {
                config.insert(token.into(), json!("true"));
            }
        }
        json!({"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": config})
    };
    let claim = |name: &str, more: Value| {
        let mut config = json!({"claim.name": name, "jsonType.label": "String"});
        if let (Some(config), Some(more)) = (config.as_object_mut(), more.as_object()) {
            config.extend(more.clone());
        }
        config
    };
    let fixed = |name: &str, value: &str| {
        let config = claim(name, json!({"claim.value": value}));
        mapper(name, "oidc-hardcoded-claim-mapper", config)
    };
    vec![
        mapper("sub", "oidc-sub-mapper", json!({})),
        mapper(
            "audience",
            "oidc-audience-mapper",
            json!({"included.custom.audience": audience}),
        ),
        mapper(
            "realm_access",
            "oidc-usermodel-realm-role-mapper",
            claim("realm_access.roles", json!({"multivalued": "true"})),
        ),
        mapper(
            PIN,
            "oidc-usermodel-attribute-mapper",
            claim(PIN, json!({"user.attribute": PIN})),
        ),
        fixed("tenant_id", &tenant.id.to_string()),
        fixed("plan_id", &tenant.plan),
    ]
}

/// What Keycloak knows of a user. Attributes that pin a token or mark who made a user
/// are an admin's to set and nobody's to see.
fn user_profile(allowed_domains: &[String]) -> Value {
    let own = json!({"view": ["admin", "user"], "edit": ["admin", "user"]});
    let admins = json!({"view": ["admin"], "edit": ["admin"]});
    let mut email = json!({"email": {}, "length": {"max": 254}});
    if let (false, Some(email)) = (allowed_domains.is_empty(), email.as_object_mut()) {
        let domains: Vec<_> = allowed_domains
            .iter()
            .map(|domain| domain.replace('.', "\\."))
            .collect();
        let pattern = format!("(?i)^[^@]+@({})$", domains.join("|"));
        let rule = json!({"pattern": pattern, "error-message": "This domain is not allowed"});
        email.insert("pattern".into(), rule);
    }
    let name = |name: &str| {
        json!({
            "name": name, "permissions": own, "required": {"roles": ["user"]},
            "validations": {"length": {"max": 255}, "person-name-prohibited-characters": {}},
        })
    };
    json!({"attributes": [
        {"name": "username", "permissions": own,
         "validations": {"length": {"min": 3, "max": 255}, "username-prohibited-characters": {}}},
        {"name": "email", "permissions": own, "required": {"roles": ["user"]}, "validations": email},
        name("firstName"),
        name("lastName"),
        {"name": PIN, "permissions": admins},
        {"name": MARK, "permissions": admins},
    ]})
}
