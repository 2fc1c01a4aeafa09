//! A realm's users: listed and invited.

use std::sync::Arc;

use http::{Method, StatusCode};
use postern_common::control_plane::Tenant;
use postern_common::fields::{self, Fields, text};
use postern_common::idempotency::Attempt;
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use postern_contract::{Code, Detail, WorkspaceId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::user_roles::{MAX_ROLES, pin_lost, role};
use super::{MARK, PIN, change, list as list_of, mark, of_a_realm};
use crate::Auth;
use crate::keycloak::Answer;
use crate::realms::Realm;
use crate::signups::SignupMode;
use crate::token::secret;

/// Keycloak pages by position. A position may have moved by so many users since the page
/// before without any being missed or told twice.
const MOVED: usize = 50;

/// A user as Keycloak tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) email: Option<String>,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    email_verified: bool,
    created_timestamp: Option<i64>,
    #[serde(default)]
    pub(super) attributes: Map<String, Value>,
}

impl Found {
    /// The workspace that its tokens are pinned to.
    pub(super) fn pin(&self) -> Option<WorkspaceId> {
        self.attribute(PIN)?.parse().ok()
    }

    fn bears(&self, mark: Option<&str>) -> bool {
        mark.is_some() && self.attribute(MARK) == mark
    }

    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.get(0)?.as_str()
    }

    fn view(&self) -> Value {
        let created = self
            .created_timestamp
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map(|at| format!("{at:.3}"));
        json!({
            "id": self.id,
            "username": self.username,
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "enabled": self.enabled,
            "emailVerified": self.email_verified,
            "workspaceId": self.attribute(PIN),
            "createdAt": created,
        })
    }
}

/// Somebody who is to be invited.
#[derive(Clone, Debug)]
struct Invitation {
    email: String,
    username: String,
    first_name: Option<String>,
    last_name: Option<String>,
    roles: Vec<String>,
    /// Its tokens are pinned to this one.
    workspace: Option<WorkspaceId>,
    password: Option<String>,
}

impl Invitation {
    fn read(mut fields: Fields, app: &Auth) -> Result<Self, Failure> {
        let email = fields.required("email", |value| {
            let email = fields::email(value)?;
            if app.signups.allows(&email) {
                Ok(email)
            } else {
                Err(format!(
                    "must lie in {}",
                    app.signups.allowed_domains.join(", ")
                ))
            }
        });
        let username = fields.optional("username", username);
        let first_name = fields.optional("firstName", text(1, 255));
        let last_name = fields.optional("lastName", text(1, 255));
        let roles = fields
            .optional("roles", list_of(MAX_ROLES, role))
            .unwrap_or_default();
        let workspace = fields.optional("workspaceId", fields::id::<WorkspaceId>);
        let password = fields.optional("temporaryPassword", secret(255));
        fields.finish()?;
        let email = email.ok_or_else(|| Failure::internal("a field that was read is missing"))?;
        Ok(Self {
            username: username.unwrap_or_else(|| email.to_lowercase()),
            email,
            first_name,
            last_name,
            roles,
            workspace,
            password,
        })
    }

    fn representation(&self, mark: Option<&str>) -> Value {
        let mut attributes = Map::new();
        attributes.extend(mark.map(|mark| (MARK.to_owned(), json!([mark]))));
        let pin = self.workspace.map(|id| (PIN.to_owned(), json!([id])));
        attributes.extend(pin);
        let credentials: Vec<Value> = self
            .password
            .iter()
            .map(|password| json!({"type": "password", "value": password, "temporary": true}))
            .collect();
        json!({
            "username": self.username,
            "email": self.email,
            "firstName": self.first_name,
            "lastName": self.last_name,
            "enabled": true,
            "emailVerified": false,
            "requiredActions": ["UPDATE_PASSWORD"],
            "credentials": credentials,
            "attributes": attributes,
        })
    }
}

/// `GET /v1/iam/realms/:realmId/users`
pub(crate) async fn list(app: Arc<Auth>, call: Call) -> Result<Reply, Failure> {
    let realm = app.realm_in_path(&call).await?;
    let mut query = call.query()?;
    let list = format!("users {}", realm.name);
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let fetch = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
    // The last user of the page before, and where that one stood.
    let (at, last) = match page
        .after
        .as_deref()
        .and_then(|after| after.split_once(' '))
    {
        Some((at, last)) => (at.parse().unwrap_or(0_usize), Some(last)),
        None => (0, None),
    };
    let first = at.saturating_sub(MOVED);
    let max = match last {
        Some(_) => at - first + MOVED + fetch + 1,
        None => fetch,
    };
    let (from, most) = (first.to_string(), max.to_string());
    let users = app
        .users(&realm, [("first", &from), ("max", &most)])
        .await?;
    // Gone since, or moved further: the page goes on where that one stood.
    let stood = || (at - first + 1).min(users.len());
    let skip = match last {
        Some(last) => users
            .iter()
            .position(|user| user.username == last)
            .map_or_else(stood, |at| at + 1),
        None => 0,
    };
    let rows: Vec<(usize, Value)> = users
        .iter()
        .enumerate()
        .skip(skip)
        .take(fetch)
        .map(|(at, user)| (first + at, user.view()))
        .collect();
    let positions: Vec<String> = rows
        .iter()
        .map(|(at, user)| {
            format!(
                "{at} {}",
                user.get("username")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            )
        })
        .collect();
    let rows: Vec<Value> = rows.into_iter().map(|(_, user)| user).collect();
    page.answer(rows, &app.cursors, &list, |last| {
        let name = last
            .get("username")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let position = positions
            .iter()
            .find(|position| position.ends_with(&format!(" {name}")));
        position.cloned().unwrap_or_default()
    })
}

/// `POST /v1/iam/realms/:realmId/users`: somebody is invited.
pub(crate) async fn create(app: Arc<Auth>, mut call: Call) -> Result<Reply, Failure> {
    let (body, fields) = call.json().await?;
    let realm = app.realm_in_path(&call).await?;
    let invitation = Invitation::read(fields, &app)?;
    if app.signups.mode == SignupMode::Closed {
        return Err(Failure::new(
            Code::PermissionDenied,
            "sign-ups are closed: nobody is invited for now",
        ));
    }
    may_change_users(&realm.tenant)?;
    if let Some(pin) = invitation.workspace {
        app.named_workspace(&realm, pin).await?;
    }
    let keyed = call.keyed(&body)?;
    let mark = mark(keyed.as_ref());
    let changes = json!({
        "realm": realm.name, "username": invitation.username, "email": invitation.email,
        "roles": invitation.roles, "workspaceId": invitation.workspace,
    });
    let (own, of) = (Arc::clone(&app), realm.clone());
    change(&app, &call, keyed, &realm, changes, move |attempt| {
        let (app, realm, invitation, mark) = (
            Arc::clone(&own),
            of.clone(),
            invitation.clone(),
            mark.clone(),
        );
        async move {
            app.invite(&realm, &invitation, mark.as_deref(), attempt)
                .await
        }
    })
    .await
}

/// Whom a suspended tenant invites could do nothing.
pub(super) fn may_change_users(tenant: &Tenant) -> Result<(), Failure> {
    if tenant.active {
        return Ok(());
    }
    Err(Failure::new(
        Code::TenantSuspended,
        "the tenant is not active",
    ))
}

impl Auth {
    async fn invite(
        &self,
        realm: &Realm,
        invitation: &Invitation,
        mark: Option<&str>,
        attempt: Attempt,
    ) -> Result<Reply, Failure> {
        // Before anything is made: a role that is none is the request's fault.
        let roles = self.named_roles(realm, &invitation.roles).await?;
        let earlier = match attempt {
            Attempt::First => None,
            Attempt::Again => self
                .user_named(realm, &invitation.username)
                .await?
                .filter(|user| user.bears(mark)),
        };
        let id = match earlier {
            Some(user) => user.id,
            None => {
                self.may_pin(realm, invitation.workspace, &invitation.roles)
                    .await?;
                self.make_user(realm, invitation, mark).await?
            }
        };
        let user = self.user(realm, &id).await?;
        if user.pin() != invitation.workspace {
            return Err(pin_lost());
        }
        if !roles.is_empty() {
            self.map_roles(realm, &id, Method::POST, &roles).await?;
        }
        let mut view = user.view();
        let sent = self.send_invitation(realm, &id).await?;
        if let Some(view) = view.as_object_mut() {
            view.insert("roles".into(), json!(invitation.roles));
            view.insert(
                "invitation".into(),
                json!(if sent { "sent" } else { "none" }),
            );
        }
        Reply::json(StatusCode::CREATED, &view)
    }

    async fn make_user(
        &self,
        realm: &Realm,
        invitation: &Invitation,
        mark: Option<&str>,
    ) -> Result<String, Failure> {
        let path = [realm.name.as_str(), "users"];
        let whole = invitation.representation(mark);
        let answer = of_a_realm(
            self.keycloak
                .admin(Method::POST, &path, &[], Some(&whole))
                .await?,
        )?;
        match answer.status {
            StatusCode::CREATED => answer
                .made
                .clone()
                .ok_or_else(|| answer.unexpected("tell whom it made")),
            StatusCode::CONFLICT => Err(Failure::new(
                Code::DuplicateKey,
                "the realm has a user with this name or mail address",
            )),
            StatusCode::BAD_REQUEST => Err(against_a_rule(&answer)?),
            _ => Err(answer.unexpected("make a user")),
        }
    }

    /// By mail, where the realm can send any. `false`: it cannot, and somebody has to tell
    /// them. A retry may send a second one.
    async fn send_invitation(&self, realm: &Realm, id: &str) -> Result<bool, Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            #[serde(default)]
            smtp_server: Map<String, Value>,
        }
        let answer = self
            .keycloak
            .admin(Method::GET, &[&realm.name], &[], None)
            .await?;
        if answer.json::<Settings>()?.smtp_server.get("host").is_none() {
            return Ok(false);
        }
        let path = [realm.name.as_str(), "users", id, "execute-actions-email"];
        let actions = json!(["UPDATE_PASSWORD", "VERIFY_EMAIL"]);
        let answer = self
            .keycloak
            .admin(Method::PUT, &path, &[], Some(&actions))
            .await?;
        Ok(answer.status == StatusCode::NO_CONTENT)
    }

    pub(super) async fn user(&self, realm: &Realm, id: &str) -> Result<Found, Failure> {
        let not_found = || {
            let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
            Failure::new(Code::UserNotFound, format!("the realm has no user {shown}"))
        };
        let is_id = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !is_id {
            return Err(not_found());
        }
        let path = [realm.name.as_str(), "users", id];
        let answer = of_a_realm(self.keycloak.admin(Method::GET, &path, &[], None).await?)?;
        match answer.status {
            StatusCode::OK => answer.json(),
            StatusCode::NOT_FOUND => Err(not_found()),
            _ => Err(answer.unexpected("read a user")),
        }
    }

    async fn user_named(&self, realm: &Realm, username: &str) -> Result<Option<Found>, Failure> {
        let found = self.users(realm, [("username", username), ("exact", "true")]);
        Ok(found.await?.into_iter().next())
    }

    async fn users(&self, realm: &Realm, which: [(&str, &str); 2]) -> Result<Vec<Found>, Failure> {
        let path = [realm.name.as_str(), "users"];
        // What is brief has no attributes.
        let [first, second] = which;
        let query = [first, second, ("briefRepresentation", "false")];
        let asked = self.keycloak.admin(Method::GET, &path, &query, None);
        let answer = of_a_realm(asked.await?)?;
        match answer.status {
            StatusCode::OK => answer.json(),
            _ => Err(answer.unexpected("look for users")),
        }
    }
}

/// What the realm's own rules refuse: its password policy, its user profile.
pub(super) fn against_a_rule(answer: &Answer) -> Result<Failure, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Refused {
        field: Option<String>,
        #[serde(alias = "error_description", alias = "error")]
        error_message: Option<String>,
    }
    let refused: Refused = answer.json()?;
    let cut =
        |text: String| -> String { text.chars().filter(|c| !c.is_control()).take(100).collect() };
    let reason = cut(refused.error_message.unwrap_or_default());
    let field = refused.field.map_or_else(|| "body".to_owned(), cut);
    Ok(Failure::invalid(vec![Detail::new(
        field,
        format!("breaks a rule of the realm: {reason}"),
    )]))
}

/// As Keycloak keeps it: in small letters.
fn username(value: Value) -> Result<String, String> {
    let name = text(3, 255)(value)?.to_lowercase();
    let plain = |c: char| c.is_alphanumeric() || "-_.@+".contains(c);
    if name.chars().all(plain) {
        Ok(name)
    } else {
        Err("must be 3 to 255 letters, digits and - _ . @ +".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_small_letters() {
        assert_eq!(username(json!(" Ada.L ")), Ok("ada.l".into()));
        for bad in [json!("ab"), json!("a b c"), json!("<script>"), json!(7)] {
            assert!(username(bad.clone()).is_err(), "{bad}");
        }
    }
}
