//! `/v1/tenants`.

use std::sync::Arc;

use http::StatusCode;
use http::header::{ETAG, LOCATION};
use postern_common::fields::{self, Fields, Patch};
use postern_common::page::Page;
use postern_common::{Call, Failure, Reply, Scope, etag, query};
use postern_contract::{Code, Detail, TenantId};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::metadata;
use crate::model::{Plan, Status, Tenant};
use crate::store::audit::{self, Actor, Done};
use crate::store::tenants::{Filter, NewTenant};
use crate::store::workspaces::{self, Ending};
use crate::store::{plans, tenants as store, usage};
use crate::{Platform, audit as trail};

/// Who may change a tenant's plan and status.
const PLATFORM_WRITERS: [&str; 2] = ["superadmin", "platform_admin"];

pub(crate) fn not_found(id: &str) -> Failure {
    Failure::new(
        Code::TenantNotFound,
        postern_contract::id::not_found("Tenant", id),
    )
}

fn answer(status: StatusCode, tenant: &Tenant) -> Result<Reply, Failure> {
    Ok(Reply::json(status, tenant)?.with_header(ETAG, &etag::of_version(tenant.version)))
}

/// `POST /v1/tenants`
pub(crate) async fn create(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let (body, mut fields) = call.json().await?;
    let slug = fields.required("slug", fields::slug);
    let display_name = fields.required("displayName", fields::text(1, 200));
    let plan = fields.required("plan", fields::text(1, 63));
    let admin_email = fields.required("adminEmail", fields::email);
    let metadata = fields
        .optional("metadata", metadata::read)
        .unwrap_or_default();
    fields.finish()?;
    let (Some(slug), Some(display_name), Some(plan), Some(admin_email)) =
        (slug, display_name, plan, admin_email)
    else {
        return Err(Failure::internal("a field that was read is missing"));
    };
    let new = NewTenant {
        slug,
        display_name,
        plan,
        admin_email,
        metadata,
    };
    let work = Arc::new((
        call.scope()?,
        Actor::from(&call.caller),
        TenantId::new(),
        new,
    ));
    app.mutate(&call, &body, move |db| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let (scope, actor, id, new) = &*work;
            plans::get(db, &new.plan).await?;
            let tenant = store::insert(scope, db, *id, new).await?;
            let done = Done::to_tenant("tenants.create", *id, json!(tenant));
            audit::done(scope, db, actor, done).await?;
            Ok(answer(StatusCode::CREATED, &tenant)?
                .with_header(LOCATION, &format!("/v1/tenants/{id}")))
        })
    })
    .await
}

/// `GET /v1/tenants`
pub(crate) async fn list(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let scope = call.scope()?;
    let mut query = call.query()?;
    let filter = Filter {
        status: query.optional("status", Status::read),
        plan: query.optional("plan", query::text(63)),
    };
    let list = format!("tenants {scope:?} {filter:?}");
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let rows = store::list(&scope, &app.pool, &filter, &page).await?;
    page.answer(rows, &app.cursors, &list, |tenant| tenant.id.to_string())
}

/// `GET /v1/tenants/:tenantId`
pub(crate) async fn get(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let (scope, id) = (call.scope()?, call.id("tenantId", not_found)?);
    let tenant = find(&app, &scope, id).await?;
    answer(StatusCode::OK, &tenant)
}

async fn find(app: &Platform, scope: &Scope, id: TenantId) -> Result<Tenant, Failure> {
    store::get(scope, &app.pool, id)
        .await?
        .ok_or_else(|| not_found(&id.to_string()))
}

/// What a PATCH changes.
#[derive(Debug)]
struct Changes {
    display_name: Option<String>,
    plan: Option<String>,
    status: Option<Status>,
    metadata: Patch<Map<String, Value>>,
}

impl Changes {
    fn read(mut fields: Fields) -> Result<Self, Failure> {
        let changes = Self {
            display_name: fields.patch("displayName", fields::text(1, 200)),
            plan: fields.patch("plan", fields::text(1, 63)),
            status: fields.patch("status", crate::read_status),
            metadata: fields.patch_removable("metadata", metadata::read),
        };
        fields.finish()?;
        Ok(changes)
    }

    /// The tenant as it is to be.
    fn apply(&self, tenant: &Tenant) -> Result<Tenant, Failure> {
        let mut new = tenant.clone();
        new.display_name
            .clone_from(self.display_name.as_ref().unwrap_or(&tenant.display_name));
        new.plan
            .clone_from(self.plan.as_ref().unwrap_or(&tenant.plan));
        new.status = self.status.unwrap_or(tenant.status);
        match &self.metadata {
            Patch::Keep => {}
            Patch::Remove => new.metadata = Json(Map::new()),
            Patch::Set(patch) => {
                metadata::merge(&mut new.metadata.0, patch);
                metadata::bounded(&new.metadata.0)
                    .map_err(|reason| Failure::invalid_field("metadata", reason))?;
            }
        }
        Ok(new)
    }
}

/// `PATCH /v1/tenants/:tenantId` (RFC 7396)
pub(crate) async fn update(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let (body, fields) = call.json().await?;
    let changes = Changes::read(fields)?;
    let (scope, id) = (call.scope()?, call.id("tenantId", not_found)?);
    if changes.plan.is_some() || changes.status.is_some() {
        call.caller
            .need_role(&PLATFORM_WRITERS, "changing a tenant's plan or status")?;
    }
    crate::refuse_pinned(&call.caller, "changing a tenant")?;
    let purge = app.purge_after_days;
    let work = Arc::new((scope, Actor::from(&call.caller), changes, call.if_match()));
    app.mutate(&call, &body, move |db| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let (scope, actor, changes, if_match) = &*work;
            let old = store::lock(scope, db, id)
                .await?
                .ok_or_else(|| not_found(&id.to_string()))?;
            if_match.check(old.version)?;
            let wanted = changes.apply(&old)?;
            let changed = differences(&json!(old), &json!(wanted));
            if changed.is_empty() {
                return answer(StatusCode::OK, &old);
            }
            may_change(scope, &old, &wanted)?;
            if wanted.plan != old.plan {
                let plan = plans::get(db, &wanted.plan).await?;
                fits(scope, db, id, &plan).await?;
            }
            let new = store::update(scope, db, &wanted).await?;
            if new.status == Status::Deactivated {
                workspaces::deactivate(scope, db, Ending::AllOf(id), purge).await?;
            }
            let done = Done::to_tenant("tenants.update", id, Value::Object(changed));
            audit::done(scope, db, actor, done).await?;
            answer(StatusCode::OK, &new)
        })
    })
    .await
}

/// A deactivated tenant stays as it is, and a suspended one is the platform's to change.
fn may_change(scope: &Scope, old: &Tenant, wanted: &Tenant) -> Result<(), Failure> {
    if old.status == Status::Suspended && scope.tenant().is_some() {
        return Err(Failure::new(
            Code::TenantSuspended,
            "the tenant is suspended",
        ));
    }
    crate::may_move("tenant", old.status, wanted.status)
}

/// Whether what the tenant uses is within a plan's limits.
async fn fits(
    scope: &Scope,
    db: &mut PgConnection,
    id: TenantId,
    plan: &Plan,
) -> Result<(), Failure> {
    let over: Vec<_> = usage::of(scope, db, id, plan)
        .await?
        .into_iter()
        .filter_map(|quota| {
            quota
                .limit
                .filter(|limit| quota.used > *limit)
                .map(|limit| (quota.quota, quota.used, limit))
        })
        .map(|(name, used, limit)| {
            Detail::new(name, format!("{used} in use, the plan allows {limit}"))
        })
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let message = format!("the tenant uses more than the plan {} allows", plan.id);
    Err(Failure::new(Code::PlanLimitExceeded, message).with_details(over))
}

/// The members of a resource that differ, with their new values.
pub(crate) fn differences(old: &Value, new: &Value) -> Map<String, Value> {
    let members = new.as_object().into_iter().flatten();
    let changed = members.filter(|(name, value)| old.get(name.as_str()) != Some(value));
    changed
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// `DELETE /v1/tenants/:tenantId`: it and its workspaces are deactivated.
pub(crate) async fn delete(app: Arc<Platform>, mut call: Call) -> Result<Reply, Failure> {
    let body = call.body().await?;
    let (scope, id) = (call.scope()?, call.id("tenantId", not_found)?);
    let purge = app.purge_after_days;
    let work = Arc::new((scope, Actor::from(&call.caller), call.if_match()));
    app.mutate(&call, &body, move |db| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let (scope, actor, if_match) = &*work;
            let mut tenant = store::lock(scope, db, id)
                .await?
                .ok_or_else(|| not_found(&id.to_string()))?;
            if_match.check(tenant.version)?;
            if tenant.status != Status::Deactivated {
                tenant.status = Status::Deactivated;
                tenant = store::update(scope, db, &tenant).await?;
                workspaces::deactivate(scope, db, Ending::AllOf(id), purge).await?;
                let changes = json!({"status": tenant.status});
                let done = Done::to_tenant("tenants.delete", id, changes);
                audit::done(scope, db, actor, done).await?;
            }
            answer(StatusCode::OK, &tenant)
        })
    })
    .await
}

/// `GET /v1/tenants/:tenantId/audit`
pub(crate) async fn audit(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let (scope, id) = (call.scope()?, call.id("tenantId", not_found)?);
    find(&app, &scope, id).await?;
    trail::list(&app, &call, &scope, Some(id)).await
}

/// `GET /v1/tenants/:tenantId/usage`
pub(crate) async fn usage(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let (scope, id) = (call.scope()?, call.id("tenantId", not_found)?);
    call.query()?.finish()?;
    let tenant = find(&app, &scope, id).await?;
    let mut db = app.pool.acquire().await?;
    let plan = plans::get(&mut db, &tenant.plan).await?;
    let quotas = usage::of(&scope, &mut db, id, &plan).await?;
    Reply::json(
        StatusCode::OK,
        &json!({"tenantId": id, "plan": plan.id, "quotas": quotas}),
    )
}
