//! The family over a cluster of the tests' own, with and without a pooler.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use postern_common::Failure;
use postern_contract::{TenantId, WorkspaceId};
use postern_harness::pooler::Pooler;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_platform::provisioning::{Backend, Place as Provisioned, PostgresBackend};
use postern_postgres::{Address, Bounds, Postgres, Quotas, cluster};
use postern_served::{Answer, Ask, Endpoint, Place};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub const LOGIN: &str = "postern_data";

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
        cluster::prepare(&Address::parse(&url).unwrap(), LOGIN, Some(b"secret"))
            .await
            .unwrap();
        (cluster, folder, port, url)
    };
    &CLUSTER.get_or_init(start).await.3
}

/// The same place as the data login.
fn as_login(url: &str) -> Address {
    let (_, place) = url.rsplit_once('@').unwrap();
    Address::parse(&format!("postgres://{LOGIN}:secret@{place}")).unwrap()
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

/// The family, served.
pub struct Served {
    pub admin: PgPool,
    endpoint: Endpoint,
    stop: CancellationToken,
}

impl AsRef<Endpoint> for Served {
    fn as_ref(&self) -> &Endpoint {
        &self.endpoint
    }
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
        let direct = as_login(url);
        let pooled = match way {
            Way::Direct => direct.clone(),
            Way::Pooled => as_login(&pooler().await.url(url)),
        };
        Self::over(url, pooled, told.then_some(direct), bounds, tables).await
    }

    /// Over any cluster, which the test's own connections reach at `url`.
    pub async fn over(
        url: &str,
        pooled: Address,
        direct: Option<Address>,
        bounds: Bounds,
        tables: Option<i64>,
    ) -> Self {
        let admin = PgPool::connect(url).await.unwrap();
        let ledger = postern_served::ledger(admin.clone(), Duration::from_secs(20));
        let cursors = postern_served::cursor_keys();
        let quotas = Arc::new(Plan(tables));
        let family = Postgres::new(pooled, bounds, ledger, cursors, quotas).unwrap();
        let family = Arc::new(family);
        let stop = CancellationToken::new();
        let (following, ending) = (Arc::clone(&family), stop.clone());
        tokio::spawn(async move {
            let every = Duration::from_millis(300);
            following.follow(direct, every, ending).await;
        });
        Self {
            admin,
            endpoint: Endpoint::new(family.router(), Duration::from_secs(20)),
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
        let place = Provisioned {
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

impl Place for Workspace {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// `below` is what follows the workspace: `rows/orders?id=eq.1`.
    fn path(&self, below: &str) -> String {
        format!("/v1/postgres/{}/{below}", self.id)
    }
}

impl Workspace {
    pub fn schema(&self) -> String {
        self.id.to_string().replace("wks_", "ws_").to_lowercase()
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
