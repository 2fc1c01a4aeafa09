//! The directory that runners ask and watch, over gRPC.
//!
//! One feed a process reads the revisions as they are committed, by whatever
//! handler: woken by a notification, and looking every 300 ms anyway. What it
//! finds goes to every watcher; a look that finds nothing new is the heartbeat. So
//! a heartbeat says that the database was asked just now, and when it cannot be
//! asked there is silence, which tells the runners not to trust their caches.

mod calls;
mod feed;
mod revocations;

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt};
use postern_directory::directory_server::Directory;
use postern_directory::{
    Event, GetRequest, GetResponse, ReportCallsRequest, ReportCallsResponse, ReportDenialsRequest,
    ReportDenialsResponse, Revocations, RevokeRequest, RevokeResponse, Status as State, Tenant,
    WatchRequest, WatchRevocationsRequest, Workspace, get_request, get_response,
};
use sqlx::PgPool;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

pub use feed::Feed;
pub use postern_directory::directory_server::DirectoryServer;

use crate::model;
use crate::provisioning::Provisioning;
use crate::store::audit::{self, Denied};
use crate::store::directory as store;

/// Serves runners from the control-plane database.
pub struct DirectoryService {
    pool: PgPool,
    feed: Arc<Feed>,
    provisioning: Arc<Provisioning>,
}

/// More denials in one report are counted as dropped.
const MAX_DENIALS: usize = 1000;

impl DirectoryService {
    /// A service over a feed that is run elsewhere.
    #[must_use]
    pub fn new(pool: PgPool, feed: Arc<Feed>, provisioning: Arc<Provisioning>) -> Self {
        Self {
            pool,
            feed,
            provisioning,
        }
    }
}

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Directory for DirectoryService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let key = request
            .into_inner()
            .key
            .ok_or_else(|| Status::invalid_argument("no key"))?;
        // Read before the entry: the entry is then at least as new.
        let revision = store::revision(&self.pool).await.map_err(away)?;
        let entry = match key {
            get_request::Key::TenantId(id) => store::tenant(&self.pool, &id)
                .await
                .map_err(away)?
                .map(|tenant| {
                    get_response::Entry::Tenant(Tenant {
                        id: tenant.id,
                        status: state(tenant.status).into(),
                        plan: tenant.plan,
                        plan_capabilities: tenant.plan_capabilities,
                        slug: tenant.slug,
                    })
                }),
            get_request::Key::WorkspaceId(id) => {
                store::workspace(&self.pool, &id, self.provisioning.capabilities())
                    .await
                    .map_err(away)?
                    .map(|workspace| {
                        get_response::Entry::Workspace(Workspace {
                            id: workspace.id,
                            tenant_id: workspace.tenant_id,
                            status: state(workspace.status).into(),
                            capabilities: workspace.capabilities,
                        })
                    })
            }
        };
        Ok(Response::new(GetResponse {
            revision: unsigned(revision),
            entry,
        }))
    }

    type WatchStream = Told<Event>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Told<Event>>, Status> {
        let (began, events) = self
            .feed
            .watch()
            .ok_or_else(|| Status::unavailable("the database does not answer"))?;
        metrics::counter!("postern_directory_watches_total").increment(1);
        let feed = Arc::clone(&self.feed);
        let first = stream::iter([Ok(feed::heartbeat(began))]);
        let rest = stream::unfold((events, feed), |(mut events, feed)| async move {
            let event = match events.recv().await {
                Ok(event) => event,
                // The watcher was too slow for the buffer: it has to start over.
                Err(RecvError::Lagged(_)) => feed::reset(feed.revision()),
                Err(RecvError::Closed) => return None,
            };
            Some((Ok(event), (events, feed)))
        });
        // What the first heartbeat covers is not told again.
        let rest = rest.filter(move |event| {
            let news = event
                .as_ref()
                .is_ok_and(|event| event.revision > unsigned(began) || feed::is_heartbeat(event));
            std::future::ready(news)
        });
        Ok(Response::new(Box::pin(first.chain(rest))))
    }

    type WatchRevocationsStream = Told<Revocations>;

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Told<Revocations>>, Status> {
        let told = revocations::watch(self.pool.clone(), &self.feed)?;
        Ok(Response::new(Box::pin(told)))
    }

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<RevokeResponse>, Status> {
        revocations::take(&self.pool, request.into_inner().revocation).await?;
        Ok(Response::new(RevokeResponse {}))
    }

    async fn report_denials(
        &self,
        request: Request<ReportDenialsRequest>,
    ) -> Result<Response<ReportDenialsResponse>, Status> {
        let ReportDenialsRequest {
            mut denials,
            dropped,
        } = request.into_inner();
        let surplus = denials.len().saturating_sub(MAX_DENIALS) as u64;
        denials.truncate(MAX_DENIALS);
        let lost = dropped.saturating_add(surplus);
        if lost > 0 {
            tracing::warn!(lost, "a runner had more denials than it could report");
            metrics::counter!("postern_audit_denials_dropped_total").increment(lost);
        }
        let denied = denials.into_iter().map(|denial| Denied {
            at: i64::try_from(denial.at_ms)
                .ok()
                .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()),
            tenant: denial.tenant_id.parse().ok(),
            actor: denial.subject,
            action: denial.route,
            code: denial.code,
            resource: denial.resource,
            correlation_id: denial.correlation_id,
            client_address: denial.client_address,
        });
        audit::denied(&self.pool, &denied.collect::<Vec<_>>())
            .await
            .map_err(away)?;
        Ok(Response::new(ReportDenialsResponse {}))
    }

    async fn report_calls(
        &self,
        request: Request<ReportCallsRequest>,
    ) -> Result<Response<ReportCallsResponse>, Status> {
        let answer = calls::take(&self.pool, request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

fn away(error: sqlx::Error) -> Status {
    tracing::warn!(%error, "the directory cannot ask the database");
    Status::unavailable("the database does not answer")
}

fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or_default()
}

fn state(status: model::Status) -> State {
    match status {
        model::Status::Provisioning => State::Provisioning,
        model::Status::Active => State::Active,
        model::Status::Suspended => State::Suspended,
        model::Status::Deactivated => State::Deactivated,
    }
}
