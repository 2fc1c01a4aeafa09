//! Keeps the realms of tenants as the tenants are.
//!
//! A change of a tenant puts its realm into a queue, in the same transaction. Any handler
//! takes it from there, keeps its place while it works (a crash frees it at once), and
//! brings the realm about: each step looks first, so it can be repeated.

use std::time::Duration;

use http::{Method, StatusCode};
use postern_common::Failure;
use postern_common::control_plane::{DueRealm, Tenant};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{IDENTITY, SCOPE, representation};
use crate::Auth;

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What takes longer failed; above the bounds of what is asked on the way.
const STEP: Duration = Duration::from_secs(90);

/// Works the queue off, forever.
pub(crate) async fn keep(app: &Auth) {
    loop {
        match app.control_plane.next_realm().await {
            Ok(Some(due)) => {
                if let Err(error) = app.follow(due).await {
                    tracing::warn!(%error, "a realm's place in the queue was lost; it is due again");
                    tokio::time::sleep(LOOK).await;
                }
            }
            Ok(None) => tokio::time::sleep(LOOK).await,
            Err(error) => {
                tracing::warn!(%error, "the queue of realms cannot be read");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

impl Auth {
    async fn follow(&self, due: DueRealm) -> Result<(), Failure> {
        let tenant = &due.tenant;
        let brought = tokio::time::timeout(STEP, self.bring_about(tenant)).await;
        let failed = match brought {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure.to_string()),
            Err(_) => Some("it took too long".to_owned()),
        };
        if let Some(error) = &failed {
            tracing::warn!(tenant = %tenant.id, error, attempts = due.attempts, "a realm cannot be kept");
            metrics::counter!("postern_realm_failures_total").increment(1);
        }
        self.control_plane.realm_tried(due, failed).await
    }

    /// The realm is there, open exactly while the tenant is active, with the tenant's plan
    /// in its tokens. A tenant that never had the capability has no realm; one that lost
    /// it keeps the realm, so that its people can log in.
    async fn bring_about(&self, tenant: &Tenant) -> Result<(), Failure> {
        let realm = self.realms.of_slug(&tenant.slug);
        if !self.realms.is_ours(&realm) || realm == self.realms.platform() {
            tracing::error!(tenant = %tenant.id, "the slug makes the name of the platform's realm; no realm is made");
            return Ok(());
        }
        let answer = self
            .keycloak
            .admin(Method::GET, &[&realm], &[], None)
            .await?;
        match answer.status {
            StatusCode::OK => self.update_realm(&realm, tenant).await,
            StatusCode::NOT_FOUND if tenant.ended => Ok(()),
            StatusCode::NOT_FOUND if !tenant.capabilities.iter().any(|has| has == IDENTITY) => {
                Ok(())
            }
            StatusCode::NOT_FOUND => self.make_realm(&realm, tenant).await,
            _ => Err(answer.unexpected("look for a realm")),
        }
    }

    /// In one request, which Keycloak carries out in one transaction.
    async fn make_realm(&self, realm: &str, tenant: &Tenant) -> Result<(), Failure> {
        let whole = representation::realm(self, realm, tenant);
        let answer = self.keycloak.make_realm(&whole).await?;
        match answer.status {
            StatusCode::CREATED => {
                tracing::info!(tenant = %tenant.id, realm, "a realm was made");
                Ok(())
            }
            _ => Err(answer.unexpected("make a realm")),
        }
    }

    async fn update_realm(&self, realm: &str, tenant: &Tenant) -> Result<(), Failure> {
        let changes = json!({"enabled": tenant.active, "displayName": tenant.display_name});
        let answer = self
            .keycloak
            .admin(Method::PUT, &[realm], &[], Some(&changes))
            .await?;
        if answer.status != StatusCode::NO_CONTENT {
            return Err(answer.unexpected("change a realm"));
        }
        self.update_plan(realm, &tenant.plan).await
    }

    async fn update_plan(&self, realm: &str, plan: &str) -> Result<(), Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ClientScope {
            id: String,
            name: String,
            #[serde(default)]
            protocol_mappers: Vec<Value>,
        }
        let answer = self
            .keycloak
            .admin(Method::GET, &[realm, "client-scopes"], &[], None)
            .await?;
        let scopes: Vec<ClientScope> = answer.json()?;
        let Some(scope) = scopes.into_iter().find(|scope| scope.name == SCOPE) else {
            tracing::warn!(
                realm,
                "the realm's client scope {SCOPE} is gone; its tokens name no tenant"
            );
            return Ok(());
        };
        let named = |mapper: &Value| mapper.get("name").and_then(Value::as_str) == Some("plan_id");
        let Some(mut mapper) = scope.protocol_mappers.into_iter().find(named) else {
            return Ok(());
        };
        let id = mapper
            .get("id")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match mapper.pointer_mut("/config/claim.value") {
            Some(value) if value != plan => *value = json!(plan),
            _ => return Ok(()),
        }
        let path = [
            realm,
            "client-scopes",
            &scope.id,
            "protocol-mappers",
            "models",
            &id,
        ];
        let answer = self
            .keycloak
            .admin(Method::PUT, &path, &[], Some(&mapper))
            .await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(answer.unexpected("change a mapper")),
        }
    }
}
