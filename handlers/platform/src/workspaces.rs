//! `/v1/workspaces`.

use std::sync::Arc;

use http::StatusCode;
use http::header::{ETAG, LOCATION};
use postern_common::fields::{self, Fields, kind};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply, Scope, etag, no_workspace as not_found};
use postern_contract::{Code, TenantId, WorkspaceId};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::Platform;
use crate::model::{CAPABILITIES, Status, Workspace};
use crate::store::audit::{self, Actor, Done};
use crate::store::workspaces::{Ending, Filter, NewWorkspace};
use crate::store::{outbox, plans, tenants, usage, workspaces as store};
use crate::tenants::{differences, not_found as tenant_not_found};

fn answer(status: StatusCode, workspace: &Workspace) -> Result<Reply, Failure> {
    Ok(Reply::json(status, workspace)?.with_header(ETAG, &etag::of_version(workspace.version)))
}

/// A list of known capabilities, in their usual order, each once.
fn capabilities(value: Value) -> Result<Vec<String>, String> {
    let Value::Array(items) = value else {
        return Err(format!("must be an array, not {}", kind(&value)));
    };
    if let Some(unknown) = items.iter().find(|item| {
        !item
            .as_str()
            .is_some_and(|name| CAPABILITIES.contains(&name))
    }) {
        let shown: String = unknown.to_string().chars().take(64).collect();
        return Err(format!(
            "{shown} is no capability; there are {}",
            CAPABILITIES.join(", ")
        ));
    }
    Ok(CAPABILITIES
        .iter()
        .filter(|name| items.iter().any(|item| item == **name))
        .map(|name| (*name).into())
        .collect())
}

/// `POST /v1/workspaces`
pub(crate) async fn create(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let (body, mut fields) = call.json().await?;
    let own = call.caller.tenant();
    // A tenant's token may leave the tenant out: there is only its own.
    let tenant = match own {
        Some(own) => Some(
            fields
                .optional("tenantId", fields::id::<TenantId>)
                .unwrap_or(own),
        ),
        None => fields.required("tenantId", fields::id::<TenantId>),
    };
    let slug = fields.required("slug", fields::slug);
    let display_name = fields.required("displayName", fields::text(1, 200));
    let capabilities = fields.required("capabilities", capabilities);
    fields.finish()?;
    let (Some(tenant), Some(slug), Some(display_name), Some(capabilities)) =
        (tenant, slug, display_name, capabilities)
    else {
        return Err(Failure::internal("a field that was read is missing"));
    };
    let scope = call.scope()?;
    if !scope.reaches(tenant) {
        return Err(tenant_not_found(&tenant.to_string()).denying(tenant.to_string()));
    }
    crate::refuse_pinned(&call.caller, "making a workspace")?;
    let waits = capabilities.iter().any(|name| app.provisioning.backs(name));
    let status = if waits {
        Status::Provisioning
    } else {
        Status::Active
    };
    let new = NewWorkspace {
        tenant,
        slug,
        display_name,
        capabilities,
        status,
    };
    let work = Arc::new((scope, Actor::from(&call.caller), WorkspaceId::new(), new));
    let reply = app
        .mutate(&call, &body, move |db| {
            let work = Arc::clone(&work);
            Box::pin(async move {
                let (scope, actor, id, new) = &*work;
                has_room(scope, db, new.tenant).await?;
                let workspace = store::insert(scope, db, *id, new).await?;
                outbox::provision(db, &id.to_string(), &new.capabilities).await?;
                let changes = json!(workspace);
                let done = Done::to_workspace("workspaces.create", new.tenant, *id, changes);
                audit::done(scope, db, actor, done).await?;
                Ok(answer(StatusCode::CREATED, &workspace)?
                    .with_header(LOCATION, &format!("/v1/workspaces/{id}")))
            })
        })
        .await?;
    app.provisioning.wake();
    Ok(reply)
}

/// The tenant is active, and its plan has room for one workspace more. The lock on
/// the tenant keeps two requests from taking the last place.
async fn has_room(scope: &Scope, db: &mut PgConnection, id: TenantId) -> Result<(), Failure> {
    let tenant = tenants::lock(scope, db, id)
        .await?
        .ok_or_else(|| tenant_not_found(&id.to_string()))?;
    if tenant.status != Status::Active {
        return Err(Failure::new(
            Code::TenantSuspended,
            format!("the tenant is {}", tenant.status.as_str()),
        ));
    }
    let plan = plans::get(db, &tenant.plan).await?;
    let quotas = usage::of(scope, db, id, &plan).await?;
    match quotas
        .iter()
        .find(|quota| quota.quota == "workspaces")
        .and_then(|quota| quota.limit.map(|l| (quota.used, l)))
    {
        Some((used, limit)) if used >= limit => Err(Failure::new(
            Code::QuotaExceeded,
            format!(
                "the plan {} has {limit} workspaces and {used} are in use",
                plan.id
            ),
        )),
        _ => Ok(()),
    }
}

/// `GET /v1/workspaces`
pub(crate) async fn list(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let scope = call.scope()?;
    let mut query = call.query()?;
    let tenant = query.optional("tenantId", |text| {
        text.parse::<TenantId>().map_err(|error| error.to_string())
    });
    let filter = Filter {
        tenant,
        status: query.optional("status", Status::read),
    };
    let list = format!("workspaces {scope:?} {filter:?}");
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    if let Some(id) = filter.tenant
        && tenants::get(&scope, &app.pool, id).await?.is_none()
    {
        return Err(tenant_not_found(&id.to_string()));
    }
    let rows = store::list(&scope, &app.pool, &filter, &page).await?;
    page.answer(rows, &app.cursors, &list, |workspace| {
        workspace.id.to_string()
    })
}

/// `GET /v1/workspaces/:workspaceId`
pub(crate) async fn get(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let (scope, id): (_, WorkspaceId) = (call.scope()?, call.id("workspaceId", not_found)?);
    let found = store::get(&scope, &app.pool, id).await?;
    answer(
        StatusCode::OK,
        &found.ok_or_else(|| not_found(&id.to_string()))?,
    )
}

/// What a PATCH changes.
#[derive(Debug)]
struct Changes {
    display_name: Option<String>,
    status: Option<Status>,
    capabilities: Option<Vec<String>>,
}

impl Changes {
    fn read(mut fields: Fields) -> Result<Self, Failure> {
        let changes = Self {
            display_name: fields.patch("displayName", fields::text(1, 200)),
            status: fields.patch("status", crate::read_status),
            capabilities: fields.patch("capabilities", capabilities),
        };
        fields.finish()?;
        Ok(changes)
    }

    /// The workspace as it is to be.
    fn apply(&self, workspace: &Workspace) -> Workspace {
        let mut new = workspace.clone();
        new.display_name.clone_from(
            self.display_name
                .as_ref()
                .unwrap_or(&workspace.display_name),
        );
        new.status = self.status.unwrap_or(workspace.status);
        new.capabilities.clone_from(
            self.capabilities
                .as_ref()
                .unwrap_or(&workspace.capabilities),
        );
        new
    }
}

/// `PATCH /v1/workspaces/:workspaceId` (RFC 7396)
pub(crate) async fn update(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let (body, fields) = call.json().await?;
    let changes = Changes::read(fields)?;
    let (scope, id): (_, WorkspaceId) = (call.scope()?, call.id("workspaceId", not_found)?);
    if changes.status == Some(Status::Deactivated) {
        // That destroys it, as DELETE does.
        crate::refuse_pinned(&call.caller, "deactivating a workspace")?;
    }
    let purge = app.purge_after_days;
    let work = Arc::new((scope, Actor::from(&call.caller), changes, call.if_match()));
    let reply = app
        .mutate(&call, &body, move |db| {
            let work = Arc::clone(&work);
            Box::pin(async move {
                let (scope, actor, changes, if_match) = &*work;
                let old = lock(scope, db, id).await?;
                if_match.check(old.version)?;
                let wanted = changes.apply(&old);
                let changed = differences(&json!(old), &json!(wanted));
                if changed.is_empty() {
                    return answer(StatusCode::OK, &old);
                }
                crate::may_move("workspace", old.status, wanted.status)?;
                let added: Vec<_> = wanted
                    .capabilities
                    .iter()
                    .filter(|name| !old.capabilities.contains(name))
                    .cloned()
                    .collect();
                if wanted.status == Status::Deactivated {
                    store::deactivate(scope, db, Ending::One(id), purge).await?;
                } else {
                    store::update(scope, db, &wanted).await?;
                    outbox::provision(db, &id.to_string(), &added).await?;
                }
                let new = store::get(scope, &mut *db, id)
                    .await?
                    .ok_or_else(|| not_found(&id.to_string()))?;
                let changes = Value::Object(changed);
                let done = Done::to_workspace("workspaces.update", old.tenant_id, id, changes);
                audit::done(scope, db, actor, done).await?;
                answer(StatusCode::OK, &new)
            })
        })
        .await?;
    app.provisioning.wake();
    Ok(reply)
}

/// The workspace, for changing. A suspended tenant's are the platform's to change.
async fn lock(scope: &Scope, db: &mut PgConnection, id: WorkspaceId) -> Result<Workspace, Failure> {
    let workspace = store::lock(scope, db, id)
        .await?
        .ok_or_else(|| not_found(&id.to_string()))?;
    if let Some(own) = scope.tenant() {
        let tenant = tenants::get(scope, db, own).await?;
        if tenant.is_none_or(|tenant| tenant.status != Status::Active) {
            return Err(Failure::new(
                Code::TenantSuspended,
                "the tenant is not active",
            ));
        }
    }
    Ok(workspace)
}

/// `DELETE /v1/workspaces/:workspaceId`: deactivated now, its data destroyed after the purge date.
pub(crate) async fn delete(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let body = call.body().await?;
    let (scope, id): (_, WorkspaceId) = (call.scope()?, call.id("workspaceId", not_found)?);
    crate::refuse_pinned(&call.caller, "deleting a workspace")?;
    let purge = app.purge_after_days;
    let work = Arc::new((scope, Actor::from(&call.caller), call.if_match()));
    app.mutate(&call, &body, move |db| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let (scope, actor, if_match) = &*work;
            let old = lock(scope, db, id).await?;
            if_match.check(old.version)?;
            if old.status == Status::Deactivated {
                return answer(StatusCode::OK, &old);
            }
            store::deactivate(scope, db, Ending::One(id), purge).await?;
            let new = store::get(scope, &mut *db, id)
                .await?
                .ok_or_else(|| not_found(&id.to_string()))?;
            let changes = json!({"status": new.status, "purgeAfter": new.purge_after});
            let done = Done::to_workspace("workspaces.delete", old.tenant_id, id, changes);
            audit::done(scope, db, actor, done).await?;
            answer(StatusCode::OK, &new)
        })
    })
    .await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_and_stand_once() {
        assert_eq!(
            capabilities(json!(["storage", "postgres", "storage"])).unwrap(),
            ["postgres", "storage"]
        );
        assert_eq!(capabilities(json!([])).unwrap(), Vec::<String>::new());
        for bad in [
            json!("postgres"),
            json!(["sql"]),
            json!([1]),
            json!([null]),
            json!({}),
        ] {
            assert!(capabilities(bad.clone()).is_err(), "{bad}");
        }
    }
}
