//! The family over a replica set of the tests' own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use postern_common::{Failure, idempotency};
use postern_contract::{TenantId, WorkspaceId};
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_mongo::{Bounds, Mongo, Quotas, Reservation};
use postern_served::{Endpoint, Place};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The servers of a test binary. Tests meet in them, and never see each other.
struct Servers {
    mongo: postern_harness::mongo::Mongo,
    control_plane: String,
    _cluster: (Cluster, TempDir, Port),
}

async fn servers() -> &'static Servers {
    static SERVERS: OnceCell<Servers> = OnceCell::const_new();
    let start = async || {
        let folder = postern_harness::temporary_folder("postgres").unwrap();
        let port = Port::free().unwrap();
        let (mongo, cluster) = tokio::join!(
            postern_harness::mongo::Mongo::start_with(60),
            Cluster::start(folder.path(), port.number(), Durability::Volatile),
        );
        let cluster = cluster.unwrap();
        let control_plane = cluster.url();
        let pool = PgPool::connect(&control_plane).await.unwrap();
        idempotency::migrate(&pool).await.unwrap();
        Servers {
            mongo: mongo.unwrap(),
            control_plane,
            _cluster: (cluster, folder, port),
        }
    };
    SERVERS.get_or_init(start).await
}

/// As many collections as a test says, and workspaces that are not served any more.
#[derive(Clone, Default)]
pub struct Plan {
    collections: Option<i64>,
    pub closed: Arc<Mutex<Vec<WorkspaceId>>>,
}

impl Quotas for Plan {
    fn reserve(&self, _: TenantId) -> BoxFuture<'_, Result<Box<dyn Reservation>, Failure>> {
        std::future::ready(Ok(Box::new(self.clone()) as Box<dyn Reservation>)).boxed()
    }

    fn closed<'a>(
        &'a self,
        workspaces: &'a [WorkspaceId],
    ) -> BoxFuture<'a, Result<Vec<WorkspaceId>, Failure>> {
        let closed = self.closed.lock().unwrap().clone();
        let these = closed.into_iter().filter(|id| workspaces.contains(id));
        std::future::ready(Ok(these.collect())).boxed()
    }
}

impl Reservation for Plan {
    fn limit(&self) -> Option<i64> {
        self.collections
    }

    fn used(self: Box<Self>, _: i64) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

/// The family, served.
pub struct Served {
    /// Past everything.
    pub client: Client,
    /// The name of its client, which failures can be told to hit.
    pub name: String,
    /// The control plane, with the records of what no transaction takes.
    pub control_plane: PgPool,
    pub family: Arc<Mongo>,
    pub plan: Arc<Plan>,
    endpoint: Endpoint,
}

impl AsRef<Endpoint> for Served {
    fn as_ref(&self) -> &Endpoint {
        &self.endpoint
    }
}

pub fn bounds() -> Bounds {
    Bounds {
        max_time: Duration::from_secs(20),
        max_results: 100,
        max_bytes: 1 << 20,
    }
}

impl Served {
    pub async fn new() -> Self {
        Self::with(bounds(), Some(5)).await
    }

    pub async fn with(bounds: Bounds, collections: Option<i64>) -> Self {
        Self::keeping(1 << 30, bounds, collections).await
    }

    /// With records of so many bytes for a tenant.
    pub async fn keeping(quota: i64, bounds: Bounds, collections: Option<i64>) -> Self {
        let servers = servers().await;
        // A runtime of its own for each test, so a client, too.
        let mut options = ClientOptions::parse(servers.mongo.url()).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(5));
        options.heartbeat_freq = Some(Duration::from_secs(1));
        let name = format!("served-{}", postern_harness::token::unique());
        options.app_name = Some(name.clone());
        let client = Client::with_options(options).unwrap();
        let pool = PgPool::connect(&servers.control_plane).await.unwrap();
        let ledger = postern_served::ledger_keeping(quota, pool.clone(), Duration::from_secs(60));
        let cursors = postern_served::cursor_keys();
        let plan = Arc::new(Plan {
            collections,
            ..Plan::default()
        });
        let family = Mongo::new(
            client.clone(),
            bounds,
            ledger,
            cursors,
            Arc::clone(&plan) as Arc<dyn Quotas>,
        );
        let family = Arc::new(family);
        let routes = family.router();
        Self {
            client,
            name,
            control_plane: pool,
            family,
            plan,
            endpoint: Endpoint::new(routes, Duration::from_secs(60)),
        }
    }

    /// A workspace of a tenant of its own.
    pub async fn workspace(&self) -> Workspace {
        self.workspace_of(TenantId::new()).await
    }

    /// A workspace of this tenant.
    pub async fn workspace_of(&self, tenant: TenantId) -> Workspace {
        let id = WorkspaceId::new();
        postern_mongo::provision(&self.client, tenant, id)
            .await
            .unwrap();
        let name = id.to_string().replace("wks_", "ws_").to_lowercase();
        Workspace {
            tenant,
            id,
            database: self.client.database(&name),
        }
    }
}

/// A workspace, its tenant, and its database past everything.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub tenant: TenantId,
    pub id: WorkspaceId,
    pub database: Database,
}

impl Place for Workspace {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// `below` is what follows the workspace, or what follows the collection `things`:
    /// `collections/orders`, `documents/1`.
    fn path(&self, below: &str) -> String {
        let whole = below.starts_with("collections") || below.starts_with("credentials");
        let things = if whole { "" } else { "collections/things/" };
        format!("/v1/mongo/{}/{things}{below}", self.id)
    }
}

impl Workspace {
    /// A document as the family stores it.
    pub fn mark(&self, mut document: Document) -> Document {
        document.insert("_tenantId", self.tenant.to_string());
        document.insert("_workspaceId", self.id.to_string());
        document
    }

    /// Puts these into a collection instead of what is there.
    pub async fn fill(&self, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let collection = self.database.collection::<Document>(collection);
        collection.delete_many(doc! {}).await.unwrap();
        let documents: Vec<_> = documents.into_iter().collect();
        if !documents.is_empty() {
            collection.insert_many(documents).await.unwrap();
        }
    }

    /// All of a collection by `_id`, past everything.
    pub async fn all(&self, collection: &str) -> Vec<Document> {
        let collection = self.database.collection::<Document>(collection);
        let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await;
        found.unwrap().try_collect().await.unwrap()
    }
}

/// Extended JSON as the driver reads it.
pub fn bson(value: &Value) -> Bson {
    Bson::try_from(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}
