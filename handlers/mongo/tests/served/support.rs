//! A family of the tests' own, and a client that seals contexts as the runner does.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bson::{Bson, Document, doc};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};
use postern_claims::OutcomeKeys;
use postern_common::faults::Faults;
use postern_common::idempotency::{self, Ledger};
use postern_common::page::CursorKeys;
use postern_common::{Chain, Denial, DenialLog, Failure, Times};
use postern_context::{Context, OpeningKeys, PathParam, SealingKeys};
use postern_contract::{Family, Match, TenantId, WorkspaceId, routes};
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_mongo::{Bounds, Mongo, Quotas, Reservation};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

const MASTER: &str = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OUTCOMES: &str = "o1 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

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

/// As many collections as a test says.
#[derive(Clone, Copy)]
struct Plan(Option<i64>);

impl Quotas for Plan {
    fn reserve(&self, _: TenantId) -> BoxFuture<'_, Result<Box<dyn Reservation>, Failure>> {
        std::future::ready(Ok(Box::new(*self) as Box<dyn Reservation>)).boxed()
    }
}

impl Reservation for Plan {
    fn limit(&self) -> Option<i64> {
        self.0
    }

    fn used(self: Box<Self>, _: i64) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}

struct NoDenials;

impl DenialLog for NoDenials {
    fn denied<'a>(&'a self, _: Denial<'a>) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}

/// The family, served.
pub struct Served {
    /// Past everything.
    pub client: Client,
    /// The name of its client, which failures can be told to hit.
    pub name: String,
    chain: Arc<Chain>,
    sealing: SealingKeys,
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
        let servers = servers().await;
        // A runtime of its own for each test, so a client, too.
        let mut options = ClientOptions::parse(servers.mongo.url()).await.unwrap();
        options.server_selection_timeout = Some(Duration::from_secs(5));
        options.heartbeat_freq = Some(Duration::from_secs(1));
        let name = format!("served-{}", postern_harness::token::unique());
        options.app_name = Some(name.clone());
        let client = Client::with_options(options).unwrap();
        let pool = PgPool::connect(&servers.control_plane).await.unwrap();
        let times = idempotency::Bounds {
            quota: 1 << 30,
            deadline: Duration::from_secs(60),
            statement: Duration::from_secs(5),
        };
        let keys = OutcomeKeys::parse(OUTCOMES).unwrap();
        let ledger = Ledger::new(
            pool,
            keys,
            None,
            TaskTracker::new(),
            times,
            Faults::default(),
        );
        let cursors = CursorKeys::derive([b"secret".as_slice()]);
        let quotas = Arc::new(Plan(collections));
        let family = Mongo::new(client.clone(), bounds, Arc::new(ledger), cursors, quotas);
        let sealing = SealingKeys::parse(MASTER).unwrap();
        let opening = OpeningKeys::parse(&sealing.opening_file(&Family::ALL)).unwrap();
        let times = Times {
            request: Duration::from_secs(60),
            body: Duration::from_secs(5),
        };
        let chain = Chain::new(
            Arc::new(ArcSwap::from_pointee(opening)),
            Arc::new(family).router(),
            Arc::new(NoDenials),
            None,
            times,
        );
        Self {
            client,
            name,
            chain: Arc::new(chain),
            sealing,
        }
    }

    /// A workspace of a tenant of its own.
    pub async fn workspace(&self) -> Workspace {
        let (tenant, id) = (TenantId::new(), WorkspaceId::new());
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

/// A request in the making.
pub struct Ask {
    workspace: WorkspaceId,
    tenant: TenantId,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    pub fn code(&self) -> String {
        let code = self.json().pointer("/error/code").cloned();
        code.and_then(|code| code.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

impl Ask {
    /// `path` is what follows the workspace, or what follows the collection `things`:
    /// `collections/orders`, `documents/1`.
    pub fn new(workspace: &Workspace, method: Method, path: &str) -> Self {
        let mut headers = Vec::new();
        if method != Method::GET {
            headers.push((
                "idempotency-key".to_owned(),
                postern_harness::token::unique(),
            ));
        }
        let below = if path.starts_with("collections") || path.starts_with("credentials") {
            ""
        } else {
            "collections/things/"
        };
        Self {
            workspace: workspace.id,
            tenant: workspace.tenant,
            method,
            path: format!("{below}{path}").chars().map(encoded).collect(),
            headers,
            body: Bytes::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(self, media_type: &str, body: impl Into<Bytes>) -> Self {
        let mut ask = self.header("content-type", media_type);
        ask.body = body.into();
        ask
    }

    pub async fn send(self, served: &Served) -> Answer {
        let (head, body) = self.open(served).await.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// The answer's head; its body is still to come. Who drops it has left.
    pub async fn open(self, served: &Served) -> Response<Incoming> {
        let path = format!("/v1/mongo/{}/{}", self.workspace, self.path);
        let bare = path.split('?').next().unwrap();
        let Ok(Match::Found(route, params)) = routes().find_raw(&self.method, bare) else {
            panic!("no route for {} {bare}", self.method);
        };
        let param = |(name, value): (&str, &str)| PathParam {
            name: name.into(),
            value: value.into(),
        };
        let context = Context {
            route: route.id.clone(),
            method: self.method.to_string(),
            params: params.iter().map(param).collect(),
            issuer: "https://issuer".into(),
            subject: "user-1".into(),
            tenant: self.tenant.to_string(),
            roles: vec!["tenant_admin".into()],
            correlation_id: "corr-of-test".into(),
            ..Context::default()
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis();
        let sealed = served
            .sealing
            .seal(route.family, context, u64::try_from(now).unwrap());
        let mut request = Request::builder()
            .method(self.method)
            .uri(path)
            .header("host", "test")
            .header("x-postern-context", sealed);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (client, server) = tokio::io::duplex(64 << 10);
        let chain = Arc::clone(&served.chain);
        let service = hyper::service::service_fn(move |request| {
            let chain = Arc::clone(&chain);
            async move { Ok::<_, std::convert::Infallible>(chain.answer(request).await) }
        });
        let mut connection = hyper::server::conn::http1::Builder::new();
        connection.max_buf_size(8 << 20);
        tokio::spawn(connection.serve_connection(TokioIo::new(server), service));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = request.body(Full::new(self.body)).unwrap();
        sender.send_request(request).await.unwrap()
    }
}

/// What no request line holds as it is.
fn encoded(c: char) -> String {
    match c {
        ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '|' | '{' | '}' => format!("%{:02X}", c as u32),
        c if c.is_ascii_graphic() => c.to_string(),
        c => {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes)
                .bytes()
                .map(|b| format!("%{b:02X}"))
                .collect()
        }
    }
}
