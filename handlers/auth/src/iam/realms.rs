//! `GET /v1/iam/realms`: the tenant's own.

use std::sync::Arc;

use http::{Method, StatusCode};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply};
use postern_contract::TenantId;
use serde::{Deserialize, Serialize};

use super::refuse_pinned;
use crate::Auth;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: String,
    tenant_id: TenantId,
    display_name: String,
    issuer: String,
    /// `provisioning`, `active` or `disabled`.
    status: &'static str,
}

/// `GET /v1/iam/realms`
pub(crate) async fn list(app: Arc<Auth>, call: Call) -> Result<Reply, Failure> {
    refuse_pinned(&call.caller)?;
    let mut query = call.query()?;
    let named = query.optional("tenantId", |text| {
        text.parse::<TenantId>().map_err(|error| error.to_string())
    });
    let list = format!("realms {:?} {named:?}", call.scope()?);
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let realm = app.realm_of(app.tenant_of_list(&call, named).await?)?;
    let view = View {
        status: app.status(&realm.name).await?,
        issuer: app.keycloak.issuer(&realm.name),
        tenant_id: realm.tenant.id,
        display_name: realm.tenant.display_name,
        id: realm.name,
    };
    let rows = vec![view];
    page.answer(rows, &app.cursors, &list, |view| view.id.clone())
}

impl Auth {
    async fn status(&self, realm: &str) -> Result<&'static str, Failure> {
        #[derive(Deserialize)]
        struct Realm {
            enabled: bool,
        }
        let answer = self
            .keycloak
            .admin(Method::GET, &[realm], &[], None)
            .await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok("provisioning"),
            StatusCode::OK => {
                let realm: Realm = answer.json()?;
                Ok(if realm.enabled { "active" } else { "disabled" })
            }
            _ => Err(answer.unexpected("read a realm")),
        }
    }
}
