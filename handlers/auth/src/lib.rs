//! Tokens and identities: the auth and IAM families, before Keycloak.
//!
//! | module | is |
//! |---|---|
//! | `token`, `revoke`, `signups` | `/v1/auth`, a function a route |
//! | `attempts`, `pace` | what keeps guessing slow, and its answers alike |
//! | `iam` | `/v1/iam`, a module a resource |
//! | [`realms`](RealmNames) | which realm is whose, and how tenants' realms are kept |
//! | `keycloak` | the one client that speaks to Keycloak |
//!
//! Realms are named in paths and bodies by clients, and in tokens by whoever made
//! them. None reaches Keycloak before it was found to be the caller's own.

mod attempts;
mod iam;
mod keycloak;
mod pace;
mod realms;
mod revoke;
mod signups;
mod token;

use std::sync::Arc;
use std::time::Duration;

use postern_common::control_plane::ControlPlane;
use postern_common::idempotency::Ledger;
use postern_common::page::CursorKeys;
use postern_common::{Failure, Router};
use postern_contract::Family;
use tokio_util::sync::CancellationToken;

pub use attempts::AttemptLimit;
pub use keycloak::{Connection, KeycloakError};
pub use realms::{RealmNames, Template, TemplateError};
pub use signups::{SignupMode, SignupPolicy};

use attempts::Attempts;
use keycloak::{KeySets, Keycloak};

/// The families that this crate serves.
pub const FAMILIES: [Family; 2] = [Family::Auth, Family::Iam];
/// What the routes take and give.
pub const SCHEMAS: &str = include_str!("schemas.json");

/// How the families are set up.
#[derive(Debug)]
pub struct Settings {
    /// How Keycloak is reached.
    pub connection: Connection,
    /// Which realm is whose.
    pub realms: RealmNames,
    /// `aud` of the tokens that the realms of tenants give.
    pub audience: String,
    /// Who may sign up.
    pub signups: SignupPolicy,
    /// Log-ins of one user name.
    pub attempts: AttemptLimit,
    /// Refused credentials are answered at the next multiple of this.
    pub pace: Duration,
}

/// The state behind the routes.
pub struct Auth {
    keycloak: Keycloak,
    key_sets: KeySets,
    realms: RealmNames,
    audience: String,
    signups: SignupPolicy,
    attempts: Attempts,
    pace: Duration,
    control_plane: Arc<dyn ControlPlane>,
    ledger: Arc<Ledger>,
    cursors: CursorKeys,
}

impl Auth {
    /// The families before this Keycloak, which may be away.
    ///
    /// # Errors
    /// The connection cannot be set up from these settings.
    pub fn new(
        settings: Settings,
        control_plane: Arc<dyn ControlPlane>,
        ledger: Arc<Ledger>,
        cursors: CursorKeys,
    ) -> Result<Self, KeycloakError> {
        Ok(Self {
            keycloak: Keycloak::new(settings.connection)?,
            key_sets: KeySets::default(),
            realms: settings.realms,
            audience: settings.audience,
            signups: settings.signups,
            attempts: Attempts::new(settings.attempts),
            pace: settings.pace,
            control_plane,
            ledger,
            cursors,
        })
    }

    /// Every route of the families, on one screen.
    #[must_use]
    pub fn router(self: &Arc<Self>) -> Router {
        Router::default()
            .route("auth.token", self, token::token)
            .route("auth.refresh", self, token::refresh)
            .route("auth.revoke", self, revoke::revoke)
            .route("auth.signups.policy", self, signups::policy)
            .route("iam.realms.list", self, iam::realms::list)
            .route("iam.clients.create", self, iam::clients::create)
            .route("iam.clients.list", self, iam::clients::list)
            .route("iam.clients.secret", self, iam::clients::secret)
            .route("iam.roles.list", self, iam::roles::list)
            .route("iam.users.list", self, iam::users::list)
            .route("iam.users.create", self, iam::users::create)
            .route("iam.users.roles", self, iam::user_roles::set)
    }

    /// Asks Keycloak for something small that anybody may have.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.keycloak.ping().await
    }

    /// Keeps the realms of tenants as the tenants are, until `stop`.
    pub async fn keep_realms(&self, stop: CancellationToken) {
        stop.run_until_cancelled(realms::keep(self)).await;
    }
}
