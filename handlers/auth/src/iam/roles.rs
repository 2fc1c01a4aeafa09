//! A realm's roles, as far as they can be given to somebody.

use std::sync::Arc;

use http::{Method, StatusCode};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{of_a_realm, rows_of};
use crate::Auth;
use crate::realms::Realm;

/// A role as Keycloak tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Role {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: Option<String>,
}

impl Role {
    /// What Keycloak gives to everybody by itself, and what means something on tokens of
    /// the platform only.
    fn is_given_here(&self) -> bool {
        let name = self.name.as_str();
        !(name.starts_with("default-roles-")
            || name.starts_with("platform_")
            || matches!(
                name,
                "offline_access" | "uma_authorization" | "superadmin" | "admin"
            ))
    }

    /// As Keycloak wants it in a list of roles to give or take.
    pub(super) fn reference(&self) -> Value {
        json!({"id": self.id, "name": self.name})
    }
}

/// Only those that are given and taken through the API.
pub(super) fn given_here(roles: Vec<Role>) -> Vec<Role> {
    roles.into_iter().filter(Role::is_given_here).collect()
}

/// `GET /v1/iam/realms/:realmId/roles`
pub(crate) async fn list(app: Arc<Auth>, call: Call) -> Result<Reply, Failure> {
    let realm = app.realm_in_path(&call).await?;
    let mut query = call.query()?;
    let list = format!("roles {}", realm.name);
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let rows = rows_of(app.roles(&realm).await?, &page, |role| &role.name);
    let rows = rows
        .iter()
        .map(|role| json!({"name": role.name, "description": role.description}))
        .collect();
    page.answer(rows, &app.cursors, &list, |role: &Value| {
        role.get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    })
}

impl Auth {
    pub(super) async fn roles(&self, realm: &Realm) -> Result<Vec<Role>, Failure> {
        let path = [realm.name.as_str(), "roles"];
        let query = [
            ("briefRepresentation", "true"),
            ("first", "0"),
            ("max", "1000"),
        ];
        let answer = of_a_realm(
            self.keycloak
                .admin(Method::GET, &path, &query, None)
                .await?,
        )?;
        match answer.status {
            StatusCode::OK => Ok(given_here(answer.json()?)),
            _ => Err(answer.unexpected("list roles")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_roles_are_not_given_here() {
        let role = |name: &str| Role {
            id: "1".into(),
            name: name.into(),
            description: None,
        };
        for name in [
            "superadmin",
            "platform_admin",
            "default-roles-tenant-a",
            "offline_access",
        ] {
            assert!(!role(name).is_given_here(), "{name}");
        }
        assert!(role("tenant_admin").is_given_here());
    }
}
