//! Realms as the tests want them, in Keycloak's own representation.

use serde_json::{Value, json};

use crate::services::AUDIENCE;
use crate::token::ALL_SCOPES;

/// The client that tests log in through.
pub(super) const CLIENT: &str = "postern-tests";
pub(super) const CLIENT_SECRET: &str = "secret-of-the-tests";

/// A realm whose tokens the runner takes: audience, roles, scopes, and a tenant.
#[derive(Debug, Clone)]
pub struct Realm {
    name: String,
    tenant: Option<String>,
    plan: Option<String>,
    scopes: String,
    token_seconds: u32,
    users: Vec<User>,
}

/// Somebody in a realm, with a password and realm roles.
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    password: String,
    roles: Vec<String>,
    attributes: Value,
}

impl User {
    /// Somebody with these realm roles.
    #[must_use]
    pub fn new(name: &str, password: &str, roles: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            attributes: json!({}),
        }
    }

    /// Whose tokens are pinned to one workspace.
    #[must_use]
    pub fn pinned_to(mut self, workspace: &str) -> Self {
        self.attributes = json!({"workspace_id": [workspace]});
        self
    }

    /// As Keycloak imports it: complete, or a login would ask for what is missing.
    pub(super) fn representation(&self) -> Value {
        json!({
            "username": self.name,
            "enabled": true,
            "email": format!("{}@example.com", self.name),
            "emailVerified": true,
            "firstName": "Test",
            "lastName": "User",
            "credentials": [{"type": "password", "value": self.password, "temporary": false}],
            "realmRoles": self.roles,
            "attributes": self.attributes,
        })
    }
}

impl Realm {
    /// A realm of the platform: its tokens carry no tenant.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            tenant: None,
            plan: None,
            scopes: ALL_SCOPES.to_owned(),
            token_seconds: 300,
            users: Vec::new(),
        }
    }

    /// The realm `tenant-<slug>` of a tenant.
    #[must_use]
    pub fn of_tenant(slug: &str, tenant: &str) -> Self {
        Self {
            tenant: Some(tenant.to_owned()),
            ..Self::new(&format!("tenant-{slug}"))
        }
    }

    /// With this `plan_id` in every token.
    #[must_use]
    pub fn plan(mut self, plan: &str) -> Self {
        self.plan = Some(plan.to_owned());
        self
    }

    /// With these scopes in every token, instead of all.
    #[must_use]
    pub fn scopes(mut self, scopes: &str) -> Self {
        scopes.clone_into(&mut self.scopes);
        self
    }

    /// With access tokens that live so long, instead of 300 s.
    #[must_use]
    pub fn token_seconds(mut self, seconds: u32) -> Self {
        self.token_seconds = seconds;
        self
    }

    /// With somebody in it.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Its name, which is also its id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As Keycloak imports it.
    pub(super) fn representation(&self) -> Value {
        let scopes: Vec<&str> = self.scopes.split_whitespace().collect();
        let client_scopes: Vec<Value> = scopes
            .iter()
            .map(|scope| {
                json!({
                    "name": scope,
                    "protocol": "openid-connect",
                    "attributes": {"include.in.token.scope": "true"},
                })
            })
            .collect();
        let roles: Vec<Value> = ROLES.iter().map(|role| json!({"name": role})).collect();
        let users: Vec<Value> = self.users.iter().map(User::representation).collect();
        json!({
            "realm": self.name,
            "enabled": true,
            "sslRequired": "none",
            "accessTokenLifespan": self.token_seconds,
            "roles": {"realm": roles},
            "clientScopes": client_scopes,
            "clients": [{
                "clientId": CLIENT,
                "secret": CLIENT_SECRET,
                "redirectUris": ["http://127.0.0.1/callback"],
                "standardFlowEnabled": true,
                "directAccessGrantsEnabled": true,
                "serviceAccountsEnabled": true,
                "defaultClientScopes": scopes,
                "optionalClientScopes": [],
                "protocolMappers": self.mappers(),
            }],
            "users": users,
        })
    }

    fn mappers(&self) -> Vec<Value> {
        let mapper = |name: &str, kind: &str, config: Value| {
            let mut config = config;
            if let Some(config) = config.as_object_mut() {
                for token in ["access.token.claim", "introspection.token.claim"] {
                    config.insert(token.to_owned(), json!("true"));
                }
            }
            json!({
                "name": name,
                "protocol": "openid-connect",
                "protocolMapper": kind,
                "config": config,
            })
        };
        let fixed = |name: &str, value: &str| {
            let config =
                json!({"claim.name": name, "claim.value": value, "jsonType.label": "String"});
            mapper(name, "oidc-hardcoded-claim-mapper", config)
        };
        let mut mappers = vec![
            mapper("sub", "oidc-sub-mapper", json!({})),
            mapper(
                "audience",
                "oidc-audience-mapper",
                json!({"included.custom.audience": AUDIENCE}),
            ),
            mapper(
                "realm roles",
                "oidc-usermodel-realm-role-mapper",
                json!({
                    "claim.name": "realm_access.roles",
                    "jsonType.label": "String",
                    "multivalued": "true",
                }),
            ),
            mapper(
                "workspace_id",
                "oidc-usermodel-attribute-mapper",
                json!({
                    "user.attribute": "workspace_id",
                    "claim.name": "workspace_id",
                    "jsonType.label": "String",
                }),
            ),
        ];
        mappers.extend(self.tenant.iter().map(|id| fixed("tenant_id", id)));
        mappers.extend(self.plan.iter().map(|id| fixed("plan_id", id)));
        mappers
    }
}

/// The roles that the contract knows.
const ROLES: [&str; 7] = [
    "superadmin",
    "platform_admin",
    "platform_operator",
    "tenant_admin",
    "tenant_operator",
    "workspace_admin",
    "workspace_operator",
];
