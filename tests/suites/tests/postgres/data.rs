//! Workspaces in a PostgreSQL of their own, to be killed without the control plane's.

use anyhow::{Context as _, Result, ensure};
use postern_harness::http::Reply;
use postern_harness::pooler::Pooler;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::stack::{Stack, Workspace};
use postern_harness::temporary_folder;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

const LOGIN: &str = "postern_data";
const PASSWORD: &str = "secret-of-the-data-login";
/// Fewer connections than the handlers have to the pooler.
const POOLED: usize = 3;

/// A server that holds workspaces, and the pooler before it, if there is one.
pub(super) struct Data {
    pub(super) cluster: Cluster,
    pub(super) pooler: Option<Pooler>,
    folder: TempDir,
    _port: Port,
}

/// A stack, and where its rows are.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) data: Data,
}

impl Data {
    pub(super) async fn start(pooled: bool) -> Result<Self> {
        let (folder, port) = (temporary_folder("postern-data")?, Port::free()?);
        let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
        let pooler = match pooled {
            true => Some(Pooler::start(cluster.address(), &[(LOGIN, PASSWORD)], POOLED).await?),
            false => None,
        };
        Ok(Self {
            cluster,
            pooler,
            folder,
            _port: port,
        })
    }

    /// The URL of the data login, past a pooler.
    pub(super) fn direct(&self) -> Result<String> {
        let url = self.cluster.url();
        let (_, place) = url.rsplit_once('@').context("a URL with a user")?;
        Ok(format!("postgres://{LOGIN}:{PASSWORD}@{place}"))
    }

    /// The section `postgres` of the handlers' file.
    pub(super) fn section(&self) -> Result<Value> {
        let direct = self.direct()?;
        Ok(match &self.pooler {
            Some(pooler) => {
                json!({"url": pooler.url(&direct), "pooler": true, "directUrl": direct})
            }
            None => json!({"url": direct}),
        })
    }

    /// A connection of the test's own, as the superuser.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.cluster.url())
            .await
            .context("the test cannot reach the data")
    }

    /// What the server has written into its log.
    pub(super) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(
            self.folder.path().join("postgres.log"),
        )?)
    }
}

/// A stack whose rows are in a server of their own.
pub(super) async fn world(pooled: bool, more: Value) -> Result<World> {
    let data = Data::start(pooled).await?;
    let mut section = data.section()?;
    if let (Some(section), Value::Object(more)) = (section.as_object_mut(), more) {
        section.extend(more);
    }
    let admin = data.cluster.url();
    let stack = Stack::start_with(|plan| {
        plan.handlers = json!({
            "postgres": section,
            "provisioning": {"postgres": {"url": admin}},
        });
    })
    .await?;
    Ok(World { stack, data })
}

pub(super) fn schema(workspace: &Workspace) -> String {
    workspace.id.replace("wks_", "ws_").to_lowercase()
}

/// SQL of the operator, in the workspace's schema.
pub(super) async fn run(db: &mut PgConnection, workspace: &Workspace, sql: &str) -> Result<()> {
    let sql = format!("SET search_path = {}, public; {sql}", schema(workspace));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}

/// A number that SQL gives, with `$schema` for the workspace's.
pub(super) async fn number(db: &mut PgConnection, workspace: &Workspace, sql: &str) -> Result<i64> {
    let sql = sql.replace("$schema", &schema(workspace));
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db).await?)
}

/// An answer that says that a store is away, and when to come back.
pub(super) fn away(reply: &Reply) -> Result<()> {
    reply.refused(503, "BACKEND_UNAVAILABLE")?;
    let seconds: u32 = reply.one("retry-after")?.parse()?;
    ensure!((1..=60).contains(&seconds), "{reply:?}");
    Ok(())
}
