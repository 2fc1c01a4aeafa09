//! The audit trail: written with each mutation, and for each denial.

use postern_common::page::Page;
use postern_common::time::Time;
use postern_common::{Caller, Scope};
use postern_contract::{AuditId, Code, TenantId, WorkspaceId};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgExecutor, PgPool};

use crate::model::AuditEvent;

/// Which events a list holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<String>,
    pub(crate) from: Option<jiff::Timestamp>,
    pub(crate) to: Option<jiff::Timestamp>,
}

/// What a mutation did.
pub(crate) struct Done<'d> {
    /// The route's id.
    action: &'d str,
    tenant: TenantId,
    workspace: Option<WorkspaceId>,
    changes: Value,
}

impl<'d> Done<'d> {
    /// To a tenant.
    pub(crate) fn to_tenant(action: &'d str, tenant: TenantId, changes: Value) -> Self {
        Self {
            action,
            tenant,
            workspace: None,
            changes,
        }
    }

    /// To a workspace of a tenant.
    pub(crate) fn to_workspace(
        action: &'d str,
        tenant: TenantId,
        workspace: WorkspaceId,
        changes: Value,
    ) -> Self {
        Self {
            workspace: Some(workspace),
            ..Self::to_tenant(action, tenant, changes)
        }
    }
}

/// Who did it, copied out of the request for the transaction's task.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    subject: String,
    correlation_id: String,
    client_address: String,
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        Self {
            subject: caller.subject().into(),
            correlation_id: caller.correlation_id().into(),
            client_address: caller.client_address().into(),
        }
    }
}

/// Writes a mutation's event, in its transaction.
pub(crate) async fn done(
    scope: &Scope,
    db: &mut PgConnection,
    actor: &Actor,
    event: Done<'_>,
) -> Result<(), sqlx::Error> {
    debug_assert!(
        scope.reaches(event.tenant),
        "a mutation beyond the caller's scope"
    );
    let resource = event
        .workspace
        .map_or_else(|| event.tenant.to_string(), |id| id.to_string());
    sqlx::query(
        "INSERT INTO postern.audit_event
             (id, tenant_id, workspace_id, actor, action, outcome, resource, correlation_id, client_address, changes)
         VALUES ($1, $2, $3, $4, $5, 'done', $6, $7, $8, $9)",
    )
    .bind(AuditId::new().to_string())
    .bind(event.tenant.to_string())
    .bind(event.workspace.map(|id| id.to_string()))
    .bind(&actor.subject)
    .bind(event.action)
    .bind(resource)
    .bind(&actor.correlation_id)
    .bind(&actor.client_address)
    .bind(Json(event.changes))
    .execute(db)
    .await?;
    Ok(())
}

/// A refusal, by a handler or reported by a runner. Texts come from tokens and
/// paths, so they are cut.
#[derive(Clone, Debug)]
pub(crate) struct Denied {
    pub(crate) at: Option<jiff::Timestamp>,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) code: String,
    pub(crate) resource: String,
    pub(crate) correlation_id: String,
    pub(crate) client_address: String,
}

/// Longer texts are cut.
const MAX_TEXT: usize = 256;

fn cut(text: &str) -> String {
    // PostgreSQL's text cannot hold NUL.
    text.chars().filter(|c| *c != '\0').take(MAX_TEXT).collect()
}

/// Writes denials.
pub(crate) async fn denied(pool: &PgPool, denials: &[Denied]) -> Result<(), sqlx::Error> {
    let texts = |read: fn(&Denied) -> &str| {
        denials
            .iter()
            .map(|denied| cut(read(denied)))
            .collect::<Vec<_>>()
    };
    sqlx::query(
        "INSERT INTO postern.audit_event
             (id, at, tenant_id, workspace_id, actor, action, outcome, code, resource, correlation_id, client_address)
         SELECT id, coalesce('epoch'::timestamptz + at * interval '1 microsecond', now()), tenant, CASE WHEN resource LIKE 'wks\\_%' THEN resource END,
                actor, action, 'denied', code, nullif(resource, ''), correlation_id, client_address
         FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::text[])
              AS denial (id, at, tenant, actor, action, code, resource, correlation_id, client_address)",
    )
    .bind(denials.iter().map(|_| AuditId::new().to_string()).collect::<Vec<_>>())
    .bind(denials.iter().map(|denied| denied.at.map(jiff::Timestamp::as_microsecond)).collect::<Vec<_>>())
    .bind(denials.iter().map(|denied| denied.tenant.map(|id| id.to_string())).collect::<Vec<_>>())
    .bind(texts(|denied| &denied.actor))
    .bind(texts(|denied| &denied.action))
    .bind(texts(|denied| &denied.code))
    .bind(texts(|denied| &denied.resource))
    .bind(texts(|denied| &denied.correlation_id))
    .bind(texts(|denied| &denied.client_address))
    .execute(pool)
    .await?;
    Ok(())
}

/// Events of one statement of the sweep.
const SWEEP_BATCH: u64 = 1000;

/// Removes the events made more than `days` ago, batch by batch until none is left. How
/// many there were.
pub(crate) async fn forget(pool: &PgPool, days: u16) -> Result<u64, sqlx::Error> {
    let age = jiff::SignedDuration::from_hours(24 * i64::from(days));
    let oldest = jiff::Timestamp::now()
        .saturating_sub(age)
        .unwrap_or_default();
    let ms = u64::try_from(oldest.as_millisecond()).unwrap_or_default();
    let mut swept = 0;
    loop {
        // Ids sort by their making: the primary key finds what is old.
        let batch = sqlx::query(
            "DELETE FROM postern.audit_event WHERE id IN (
                SELECT id FROM postern.audit_event WHERE id < $1 ORDER BY id LIMIT $2)",
        )
        .bind(AuditId::least_of(ms).to_string())
        .bind(i64::try_from(SWEEP_BATCH).unwrap_or(i64::MAX))
        .execute(pool)
        .await?
        .rows_affected();
        swept += batch;
        if batch < SWEEP_BATCH {
            return Ok(swept);
        }
    }
}

/// A handler's own denial.
pub(crate) fn by_handler(caller: &Caller, action: &str, resource: &str, code: Code) -> Denied {
    Denied {
        at: None,
        tenant: caller.tenant(),
        actor: caller.subject().into(),
        action: action.into(),
        code: code.as_str().into(),
        resource: resource.into(),
        correlation_id: caller.correlation_id().into(),
        client_address: caller.client_address().into(),
    }
}

/// Newest first.
pub(crate) async fn list(
    scope: &Scope,
    db: impl PgExecutor<'_>,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<AuditEvent>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM postern.audit_event
         WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR tenant_id = $2)
           AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR action = $4)
           AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
           AND ($7::text IS NULL OR id < $7)
         ORDER BY id DESC LIMIT $8",
    )
    .bind(scope.tenant_filter())
    .bind(filter.tenant.map(|id| id.to_string()))
    .bind(&filter.actor)
    .bind(&filter.action)
    .bind(filter.from.map(Time))
    .bind(filter.to.map(Time))
    .bind(&page.after)
    .bind(page.fetch())
    .fetch_all(db)
    .await
}
