//! The audit trail, read; and where denials are written.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use postern_common::page::Page;
use postern_common::{Call, Denial, DenialLog, Failure, Reply, Scope, query};
use postern_contract::TenantId;

use crate::Platform;
use crate::store::audit::{self as store, Filter};

/// `GET /v1/platform/audit`
pub(crate) async fn of_platform(app: Arc<Platform>, call: Call) -> Result<Reply, Failure> {
    let scope = call.scope()?;
    list(&app, &call, &scope, None).await
}

/// The trail of one tenant, or of all.
pub(crate) async fn list(
    app: &Platform,
    call: &Call,
    scope: &Scope,
    tenant: Option<TenantId>,
) -> Result<Reply, Failure> {
    let mut query = call.query()?;
    let tenant = match tenant {
        Some(id) => Some(id),
        None => query.optional("tenantId", |text| {
            text.parse::<TenantId>().map_err(|error| error.to_string())
        }),
    };
    let filter = Filter {
        tenant,
        actor: query.optional("actor", query::text(256)),
        action: query.optional("action", query::text(64)),
        from: query.optional("from", query::instant),
        to: query.optional("to", query::instant),
    };
    let list = format!("audit {scope:?} {filter:?}");
    let page = Page::read(&mut query, &app.cursors, &list);
    query.finish()?;
    let rows = store::list(scope, &app.pool, &filter, &page).await?;
    page.answer(rows, &app.cursors, &list, |event| event.id.to_string())
}

impl DenialLog for Platform {
    fn denied<'a>(&'a self, denial: Denial<'a>) -> BoxFuture<'a, ()> {
        let denied = store::by_handler(
            denial.caller,
            &denial.route.id,
            denial.resource,
            denial.code,
        );
        async move {
            if let Err(error) = store::denied(&self.pool, &[denied]).await {
                tracing::error!(%error, "a denial was not written to the audit trail");
            }
        }
        .boxed()
    }
}
