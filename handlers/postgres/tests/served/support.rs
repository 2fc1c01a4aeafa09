//! A family of the tests' own, and a client that seals contexts as the runner does.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use postern_claims::OutcomeKeys;
use postern_common::faults::Faults;
use postern_common::idempotency::Ledger;
use postern_common::page::CursorKeys;
use postern_common::{Chain, Denial, DenialLog, Failure, Times};
use postern_context::{Context, OpeningKeys, PathParam, SealingKeys};
use postern_contract::{Family, Match, TenantId, WorkspaceId, routes};
use postern_harness::pooler::Pooler;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_platform::provisioning::{Backend, Place, PostgresBackend};
use postern_postgres::{Bounds, Postgres, Quotas, cluster};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MASTER: &str = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OUTCOMES: &str = "o1 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const LOGIN: &str = "postern_data";

/// How the family comes to PostgreSQL.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// By connections of its own.
    Direct,
    /// Through a pooler in transaction mode, with fewer connections than it is asked for.
    Pooled,
}

/// Tests that hold either way.
#[macro_export]
macro_rules! both_ways {
    ($($test:ident),+ $(,)?) => {
        mod direct {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Way::Direct).await;
            })+
        }
        mod pooled {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test($crate::support::Way::Pooled).await;
            })+
        }
    };
}

/// The pooler of a test binary, in front of its cluster.
async fn pooler() -> &'static Pooler {
    static POOLER: OnceCell<Pooler> = OnceCell::const_new();
    let start = async || {
        let server = cluster_url().await.rsplit('@').next().unwrap();
        let server = server.split('/').next().unwrap().parse().unwrap();
        Pooler::start(server, &[(LOGIN, "secret")], 3)
            .await
            .unwrap()
    };
    POOLER.get_or_init(start).await
}

/// One cluster a test binary. Tests meet in it, and never see each other.
async fn cluster_url() -> &'static str {
    static CLUSTER: OnceCell<(Cluster, TempDir, Port, String)> = OnceCell::const_new();
    let start = async || {
        let folder = postern_harness::temporary_folder("postgres").unwrap();
        let port = Port::free().unwrap();
        let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile)
            .await
            .unwrap();
        let url = cluster.url();
        cluster::prepare(&url.parse().unwrap(), LOGIN, Some(b"secret"))
            .await
            .unwrap();
        (cluster, folder, port, url)
    };
    &CLUSTER.get_or_init(start).await.3
}

/// As many tables as a test says.
#[derive(Default)]
pub struct Plan(pub Option<i64>);

impl Quotas for Plan {
    fn tables(&self, _: TenantId) -> BoxFuture<'_, Result<Option<i64>, Failure>> {
        std::future::ready(Ok(self.0)).boxed()
    }

    fn used(&self, _: TenantId, _: i64) -> BoxFuture<'_, ()> {
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
    pub admin: PgPool,
    chain: Arc<Chain>,
    sealing: SealingKeys,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn bounds() -> Bounds {
    Bounds {
        connections: 8,
        tenant_connections: 4,
        tenant_waiting: 100,
        acquire: Duration::from_secs(5),
        statement: Duration::from_secs(5),
        default_rows: 20,
        max_rows: 1000,
        max_answer: 8 << 20,
    }
}

impl Served {
    pub async fn new() -> Self {
        Self::by(Way::Direct, bounds()).await
    }

    pub async fn by(way: Way, bounds: Bounds) -> Self {
        Self::made(way, bounds, None, true).await
    }

    /// `told`: whether changes of schemas are told; else they are looked for.
    pub async fn with(bounds: Bounds, tables: Option<i64>, told: bool) -> Self {
        Self::made(Way::Direct, bounds, tables, told).await
    }

    async fn made(way: Way, bounds: Bounds, tables: Option<i64>, told: bool) -> Self {
        let url = cluster_url().await;
        let admin = PgPool::connect(url).await.unwrap();
        let as_login = |url: &str| {
            let mut config: tokio_postgres::Config = url.parse().unwrap();
            config.user(LOGIN).password("secret");
            config
        };
        let direct = as_login(url);
        let config = match way {
            Way::Direct => direct.clone(),
            Way::Pooled => as_login(&pooler().await.url(url)),
        };
        let keys = OutcomeKeys::parse(OUTCOMES).unwrap();
        let times = postern_common::idempotency::Bounds {
            quota: 1 << 30,
            deadline: Duration::from_secs(20),
            statement: Duration::from_secs(5),
        };
        let ledger = Arc::new(Ledger::new(
            admin.clone(),
            keys,
            None,
            TaskTracker::new(),
            times,
            Faults::default(),
        ));
        let cursors = CursorKeys::derive([b"secret".as_slice()]);
        let quotas = Arc::new(Plan(tables));
        let family = Postgres::new(config, bounds, ledger, cursors, quotas).unwrap();
        let family = Arc::new(family);
        let stop = CancellationToken::new();
        let (following, ending) = (Arc::clone(&family), stop.clone());
        let direct = told.then_some(direct);
        tokio::spawn(async move {
            let every = Duration::from_millis(300);
            following.follow(direct, every, ending).await;
        });
        let sealing = SealingKeys::parse(MASTER).unwrap();
        let opening = OpeningKeys::parse(&sealing.opening_file(&Family::ALL)).unwrap();
        let times = Times {
            request: Duration::from_secs(20),
            body: Duration::from_secs(5),
        };
        let chain = Chain::new(
            Arc::new(ArcSwap::from_pointee(opening)),
            family.router(),
            Arc::new(NoDenials),
            None,
            times,
        );
        Self {
            admin,
            chain: Arc::new(chain),
            sealing,
            stop,
        }
    }

    /// A workspace of a tenant of its own.
    pub async fn workspace(&self) -> Workspace {
        self.workspace_of(TenantId::new()).await
    }

    pub async fn workspace_of(&self, tenant: TenantId) -> Workspace {
        let workspace = Workspace {
            tenant,
            id: WorkspaceId::new(),
        };
        let backend = PostgresBackend::new(self.admin.clone(), Some(LOGIN.into()));
        let place = Place {
            workspace: workspace.id,
            tenant,
        };
        backend.provision(place).await.unwrap();
        workspace
    }

    /// Runs SQL of the operator, as the workspace's owner, with its settings; `$policy`
    /// after a table's name stands for what guards it.
    pub async fn seed(&self, workspace: &Workspace, sql: &str) {
        let schema = workspace.schema();
        let head = format!(
            "BEGIN; SET LOCAL search_path = {schema}; SET LOCAL app.tenant_id = '{}'; \
             SET LOCAL app.workspace_id = '{}';\n",
            workspace.tenant, workspace.id
        );
        let script = format!("{head}{sql};\nCOMMIT");
        let mut db = self.admin.acquire().await.unwrap();
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(script.clone()))
            .execute(&mut *db)
            .await;
        if let Err(error) = done {
            panic!("{error}\n{script}");
        }
    }

    /// A number that SQL gives in the workspace's schema, past everything.
    pub async fn text(&self, workspace: &Workspace, sql: &str) -> Option<String> {
        let sql = sql.replace("$schema", &workspace.schema());
        let row: Option<(Option<String>,)> = sqlx::query_as(sqlx::AssertSqlSafe(sql.clone()))
            .fetch_optional(&self.admin)
            .await
            .unwrap_or_else(|error| panic!("{error}: {sql}"));
        row.and_then(|row| row.0)
    }

    pub async fn get(&self, workspace: &Workspace, path: &str) -> Answer {
        Ask::new(workspace, Method::GET, path).send(self).await
    }

    pub async fn post(&self, workspace: &Workspace, path: &str, body: &Value) -> Answer {
        Ask::new(workspace, Method::POST, path)
            .json(body)
            .send(self)
            .await
    }
}

/// A workspace and its tenant.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub tenant: TenantId,
    pub id: WorkspaceId,
}

impl Workspace {
    pub fn schema(&self) -> String {
        self.id.to_string().replace("wks_", "ws_").to_lowercase()
    }
}

/// A request in the making.
pub struct Ask {
    workspace: Workspace,
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
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// Status and code of a refusal, whose message tells nothing of SQL.
    #[track_caller]
    pub fn refused(&self) -> (u16, String) {
        assert!(!self.status.is_success(), "{self:?}");
        let body = self.json();
        (
            self.status.as_u16(),
            body["error"]["code"].as_str().unwrap().to_owned(),
        )
    }
}

impl Ask {
    /// `path` is what follows the workspace: `rows/orders?id=eq.1`.
    pub fn new(workspace: &Workspace, method: Method, path: &str) -> Self {
        let mut headers = Vec::new();
        if method != Method::GET {
            headers.push((
                "idempotency-key".to_owned(),
                postern_harness::token::unique(),
            ));
        }
        Self {
            workspace: *workspace,
            tenant: workspace.tenant,
            method,
            path: path.chars().map(encoded).collect(),
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

    /// As somebody of another tenant.
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = tenant;
        self
    }

    pub async fn send(self, served: &Served) -> Answer {
        let path = format!("/v1/postgres/{}/{}", self.workspace.id, self.path);
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
        let (client, server) = tokio::io::duplex(1 << 20);
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
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
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

/// What guards a table that an operator brings.
pub fn guarded(table: &str, workspace: &Workspace) -> String {
    let schema = workspace.schema();
    format!(
        "ALTER TABLE {table} OWNER TO {schema}_owner; ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; \
         ALTER TABLE {table} FORCE ROW LEVEL SECURITY; GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {schema}_data; \
         CREATE POLICY workspace ON {table} USING (current_user IN ('{schema}_data', '{schema}_owner') \
         AND tenant_id = (SELECT current_setting('app.tenant_id', true)) \
         AND workspace_id = (SELECT current_setting('app.workspace_id', true)));\n"
    )
}
