//! What a user may do: its roles, and the workspace that its tokens are pinned to.
//!
//! A workspace's roles count on a pinned token only, so nobody is given one without a pin.
//! The own user of a client (`serviceAccountUserId`) is given both like anybody else.

use std::sync::Arc;

use http::{Method, StatusCode};
use postern_common::fields::{self, Patch};
use postern_common::{Call, Failure, Reply};
use postern_contract::{Code, Detail, WorkspaceId};
use serde_json::{Value, json};

use super::roles::{Role, given_here};
use super::users::{Found, against_a_rule, may_change_users};
use super::{PIN, change, list as list_of, of_a_realm};
use crate::Auth;
use crate::realms::Realm;

pub(super) const MAX_ROLES: usize = 50;
/// How the names of roles begin that count for one workspace.
const OF_A_WORKSPACE: &str = "workspace_";

/// What a user is to have.
#[derive(Clone, Debug)]
struct Given {
    /// These and no others.
    roles: Vec<String>,
    pin: Patch<WorkspaceId>,
}

/// `PUT /v1/iam/realms/:realmId/users/:userId/roles`: these and no others.
pub(crate) async fn set(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let (body, mut fields) = call.json().await?;
    let realm = app.realm_in_path(&call).await?;
    let roles = fields.required("roles", list_of(MAX_ROLES, role));
    let pin = fields.patch_removable("workspaceId", fields::id::<WorkspaceId>);
    fields.finish()?;
    may_change_users(&realm.tenant)?;
    let roles = roles.ok_or_else(|| Failure::internal("a field that was read is missing"))?;
    let id = call.param("userId").to_owned();
    let mut changes = json!({"realm": realm.name, "userId": id, "roles": roles});
    let named = match pin {
        Patch::Keep => None,
        Patch::Remove => Some(Value::Null),
        Patch::Set(pin) => {
            app.named_workspace(&realm, pin).await?;
            Some(json!(pin))
        }
    };
    if let (Some(pin), Some(changes)) = (named, changes.as_object_mut()) {
        changes.insert(PIN_FIELD.into(), pin);
    }
    let keyed = call.keyed(&body)?;
    let (own, of, given) = (Arc::clone(&app), realm.clone(), Given { roles, pin });
    // To do it again is to do nothing.
    change(&app, &call, keyed, &realm, changes, move |_| {
        let (app, realm, id, given) = (Arc::clone(&own), of.clone(), id.clone(), given.clone());
        async move { app.give(&realm, &id, &given).await }
    })
    .await
}

impl Auth {
    /// Takes, pins and gives until the user has these, besides what Keycloak gives by
    /// itself. In this order: no token of a moment between can do more than one of before
    /// or after.
    async fn give(&self, realm: &Realm, id: &str, given: &Given) -> Result<Reply, Failure> {
        let user = self.user(realm, id).await?;
        let wanted = self.named_roles(realm, &given.roles).await?;
        let pin = match given.pin {
            Patch::Keep => user.pin(),
            Patch::Remove => None,
            Patch::Set(pin) => Some(pin),
        };
        // Who is left where it is may have been pinned to a workspace that ended since.
        if given.pin != Patch::Keep || needs_a_pin(&given.roles).is_some() {
            self.may_pin(realm, pin, &given.roles).await?;
        }
        let path = [realm.name.as_str(), "users", id, "role-mappings", "realm"];
        let answer = self.keycloak.admin(Method::GET, &path, &[], None).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unexpected("list a user's roles"));
        }
        let had = given_here(answer.json()?);
        let without = |these: &[Role], those: &[Role]| -> Vec<Role> {
            let others = |role: &&Role| those.iter().all(|other| other.id != role.id);
            these.iter().filter(others).cloned().collect()
        };
        let (gone, new) = (without(&had, &wanted), without(&wanted, &had));
        if !gone.is_empty() {
            self.map_roles(realm, id, Method::DELETE, &gone).await?;
        }
        if given.pin != Patch::Keep {
            self.pin(realm, &user, pin).await?;
        }
        if !new.is_empty() {
            self.map_roles(realm, id, Method::POST, &new).await?;
        }
        let mut names: Vec<_> = wanted.into_iter().map(|role| role.name).collect();
        names.sort();
        let view = json!({"userId": id, "roles": names, PIN_FIELD: pin});
        Reply::json(StatusCode::OK, &view)
    }

    /// That a request names a workspace of the realm's tenant. Another tenant's is told like
    /// one that does not exist.
    pub(super) async fn named_workspace(
        &self,
        realm: &Realm,
        id: WorkspaceId,
    ) -> Result<(), Failure> {
        let found = self.control_plane.workspace(realm.tenant.id, id).await?;
        match found {
            Some(_) => Ok(()),
            None => Err(no_workspace(id).denying(id.to_string())),
        }
    }

    /// Whether somebody with these roles may be pinned so.
    pub(super) async fn may_pin(
        &self,
        realm: &Realm,
        pin: Option<WorkspaceId>,
        roles: &[String],
    ) -> Result<(), Failure> {
        let refused = |message: String, reason: String| {
            Err(Failure::new(Code::ConstraintViolation, message)
                .with_details(vec![Detail::new(PIN_FIELD, reason)]))
        };
        let Some(id) = pin else {
            return match needs_a_pin(roles) {
                None => Ok(()),
                Some(role) => refused(
                    format!(
                        "{role} is a role of one workspace and counts on tokens that are pinned to it: name it in {PIN_FIELD}"
                    ),
                    format!("is required with {role}"),
                ),
            };
        };
        match self.control_plane.workspace(realm.tenant.id, id).await? {
            None => Err(no_workspace(id)),
            Some(workspace) if workspace.ended => refused(
                format!("the workspace {id} is deactivated, and nobody can be pinned to it"),
                "is deactivated".into(),
            ),
            Some(_) => Ok(()),
        }
    }

    async fn pin(
        &self,
        realm: &Realm,
        user: &Found,
        pin: Option<WorkspaceId>,
    ) -> Result<(), Failure> {
        let mut attributes = user.attributes.clone();
        match pin {
            Some(id) => attributes.insert(PIN.into(), json!([id])),
            None => attributes.remove(PIN),
        };
        // Where there are attributes Keycloak takes for removed whatever is not named.
        let changed = json!({
            "username": user.username,
            "email": user.email,
            "firstName": user.first_name,
            "lastName": user.last_name,
            "attributes": attributes,
        });
        let path = [realm.name.as_str(), "users", &user.id];
        let asked = self.keycloak.admin(Method::PUT, &path, &[], Some(&changed));
        let answer = of_a_realm(asked.await?)?;
        match answer.status {
            StatusCode::NO_CONTENT => {}
            StatusCode::BAD_REQUEST => return Err(against_a_rule(&answer)?),
            _ => return Err(answer.unexpected("pin a user")),
        }
        if self.user(realm, &user.id).await?.pin() == pin {
            Ok(())
        } else {
            Err(pin_lost())
        }
    }

    pub(super) async fn map_roles(
        &self,
        realm: &Realm,
        id: &str,
        method: Method,
        roles: &[Role],
    ) -> Result<(), Failure> {
        let path = [realm.name.as_str(), "users", id, "role-mappings", "realm"];
        let references: Value = roles.iter().map(Role::reference).collect();
        let answer = self
            .keycloak
            .admin(method, &path, &[], Some(&references))
            .await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(answer.unexpected("change a user's roles")),
        }
    }

    /// The realm's roles of these names.
    pub(super) async fn named_roles(
        &self,
        realm: &Realm,
        names: &[String],
    ) -> Result<Vec<Role>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.roles(realm).await?;
        let missing = |name: &&String| known.iter().all(|role| role.name != **name);
        let details: Vec<_> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| missing(name))
            .map(|(at, name)| {
                Detail::new(
                    format!("roles[{at}]"),
                    format!("{name} is no role that the realm gives"),
                )
            })
            .collect();
        if !details.is_empty() {
            return Err(Failure::invalid(details));
        }
        Ok(known
            .into_iter()
            .filter(|role| names.contains(&role.name))
            .collect())
    }
}

/// What the attribute [`PIN`] is called in bodies and in the audit trail.
const PIN_FIELD: &str = "workspaceId";

/// The first of these roles that is a workspace's.
fn needs_a_pin(roles: &[String]) -> Option<&str> {
    roles
        .iter()
        .map(String::as_str)
        .find(|role| role.starts_with(OF_A_WORKSPACE))
}

fn no_workspace(id: WorkspaceId) -> Failure {
    let message = postern_contract::id::not_found("Workspace", &id.to_string());
    Failure::new(Code::WorkspaceNotFound, message)
}

/// A realm that was not made by us, or whose user profile was changed since: unpinned, a
/// user would reach more than it was to.
pub(super) fn pin_lost() -> Failure {
    Failure::new(
        Code::ConstraintViolation,
        format!(
            "the realm's user profile does not keep the attribute {PIN} as an admin sets it, so no role was given"
        ),
    )
}

pub(super) fn role(name: &str) -> Result<String, String> {
    if (1..=255).contains(&name.len()) && !name.contains(char::is_control) {
        Ok(name.to_owned())
    } else {
        Err("must be the name of a role".into())
    }
}
