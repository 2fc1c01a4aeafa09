//! The family's state and routes, and what every route does alike.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use mongodb::options::{CollectionOptions, SelectionCriteria};
use mongodb::results::CollectionSpecification;
use mongodb::{Client, Collection, Database};
use postern_common::idempotency::Ledger;
use postern_common::page::CursorKeys;
use postern_common::{Call, Failure, Reply, Router};
use postern_contract::{Code, TenantId, WorkspaceId};

use crate::failure::{failure, too_slow};
use crate::remembered::{KeptBytes, Known};
use crate::store::{self, Needs, Work};
use crate::turns::Turns;
use crate::wall::{Wall, collection};
use crate::{aggregate, bulk, collections, credentials, document, documents};

/// What a tenant's plan allows, where its use is written, and who is still served.
pub trait Quotas: Send + Sync {
    /// Waits until nobody else, in any process, makes or drops collections of the tenant.
    /// It stays so until the reservation is used up or dropped.
    fn reserve(&self, tenant: TenantId) -> BoxFuture<'_, Result<Box<dyn Reservation>, Failure>>;

    /// Which of these workspaces are suspended, deactivated or gone, or their tenants are.
    fn closed<'a>(
        &'a self,
        workspaces: &'a [WorkspaceId],
    ) -> BoxFuture<'a, Result<Vec<WorkspaceId>, Failure>>;
}

/// The right to change how many collections a tenant has.
pub trait Reservation: Send {
    /// How many it may have; none: no limit.
    fn limit(&self) -> Option<i64>;
    /// It has so many now; others may go on.
    fn used(self: Box<Self>, collections: i64) -> BoxFuture<'static, ()>;
}

/// Bounds of what one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The longest operation of the server.
    pub max_time: Duration,
    /// Documents in the answer of an aggregation.
    pub max_results: u32,
    /// Bytes of an answer.
    pub max_bytes: usize,
}

/// The state behind the routes.
pub struct Mongo {
    pub(crate) client: Client,
    pub(crate) bounds: Bounds,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) cursors: CursorKeys,
    pub(crate) quotas: Arc<dyn Quotas>,
    pub(crate) known: Known,
    pub(crate) turns: Turns,
    pub(crate) kept: KeptBytes,
}

/// Where a request works: its workspace's database, behind the wall.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) tenant: TenantId,
    pub(crate) workspace: WorkspaceId,
    pub(crate) wall: Wall,
    pub(crate) database: Database,
    /// The longest operation of the server.
    pub(crate) max_time: Duration,
}

impl Mongo {
    /// The family over a replica set. No connection is made yet.
    #[must_use]
    pub fn new(
        client: Client,
        bounds: Bounds,
        ledger: Arc<Ledger>,
        cursors: CursorKeys,
        quotas: Arc<dyn Quotas>,
    ) -> Self {
        Self {
            client,
            bounds,
            ledger,
            cursors,
            quotas,
            known: Known::new(),
            turns: Turns::new(),
            kept: KeptBytes::new(),
        }
    }

    /// Every route of the family, on one screen.
    #[must_use]
    pub fn router(self: &Arc<Self>) -> Router {
        Router::default()
            .route("mongo.collections.list", self, collections::list)
            .route("mongo.collections.get", self, collections::get)
            .route("mongo.collections.create", self, collections::create)
            .route("mongo.collections.drop", self, collections::drop)
            .route("mongo.documents.list", self, documents::list)
            .route("mongo.documents.insert", self, documents::insert)
            .route("mongo.document.get", self, document::get)
            .route("mongo.document.replace", self, document::replace)
            .route("mongo.document.update", self, document::update)
            .route("mongo.document.delete", self, document::delete)
            .route("mongo.bulk", self, bulk::bulk)
            .route("mongo.aggregate", self, aggregate::aggregate)
            .route("mongo.credentials", self, credentials::create)
    }

    /// Whose request it is.
    pub(crate) fn place(&self, call: &Call) -> Result<Place, Failure> {
        let (tenant, workspace) = call.workspace()?;
        Ok(Place {
            tenant,
            workspace,
            wall: Wall::new(tenant.to_string(), workspace.to_string()),
            database: store::database(&self.client, workspace),
            max_time: self.bounds.max_time,
        })
    }

    /// Carries out a mutation at most once a key, in a task that outlives the client.
    /// `foreseen` is what it answers if nothing is in its way, where that is known.
    pub(crate) async fn mutate(
        self: &Arc<Self>,
        call: &Call,
        place: &Place,
        body: &[u8],
        needs: Needs,
        foreseen: Option<Reply>,
        work: impl Work,
    ) -> Result<Reply, Failure> {
        let keyed = call.keyed(body)?;
        let correlation_id = call.caller.correlation_id();
        store::mutate(self, place, keyed, correlation_id, needs, foreseen, work).await
    }
}

impl Place {
    /// The collection that the path names, from the primary: a client reads what it wrote.
    pub(crate) fn collection(&self, call: &Call) -> Result<Collection<Document>, Failure> {
        let name =
            collection(call.param("col")).map_err(|rule| Failure::invalid_field("col", rule))?;
        let options = CollectionOptions::builder()
            .selection_criteria(SelectionCriteria::ReadPreference(
                mongodb::options::ReadPreference::Primary,
            ))
            .build();
        Ok(self.database.collection_with_options(name, options))
    }

    /// An operation of a transaction, in its time. The driver has no limit for a change; one
    /// that takes longer is ended on the server with its session.
    pub(crate) async fn timed<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, Failure> {
        let ended = tokio::time::timeout(self.max_time, operation.into_future()).await;
        ended.map_err(|_| too_slow())?.map_err(failure)
    }

    /// What the server says of the collection of the name, if there is one.
    pub(crate) async fn specification(
        &self,
        name: &str,
    ) -> Result<Option<CollectionSpecification>, Failure> {
        let named = self
            .database
            .list_collections()
            .filter(doc! { "name": name });
        let mut found = named.await.map_err(failure)?;
        found.try_next().await.map_err(failure)
    }

    /// Whether there is a collection of the name.
    pub(crate) async fn has(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.specification(name).await?.is_some())
    }

    /// Refuses a request to a collection that is not there.
    pub(crate) async fn need(&self, name: &str) -> Result<CollectionSpecification, Failure> {
        let there = self.specification(name).await?;
        there.ok_or_else(|| {
            let message = format!(
                "there is no collection {name}; the first insert makes it, or POST …/collections"
            );
            Failure::new(Code::CollectionNotFound, message)
        })
    }
}
