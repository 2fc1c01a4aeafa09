//! What the storm blows upon.
//!
//! ```text
//! clients → gateway, runner → proxy → the suite's family → proxy → PostgreSQL: effects, records
//!                      └──────────→ proxy → claims, in PostgreSQL or Redis ←──┘
//! ```
//!
//! The control plane runs beside it, for the directory and the issuer.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_harness::http::Http;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::process::{Leave, Process, binary};
use postern_harness::proxy::Proxy;
use postern_harness::redis::Redis;
use postern_harness::services::Database;
use postern_harness::stack::Stack;
use postern_harness::token::Token;
use postern_harness::{temporary_folder, wait_for};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;

/// A busy machine takes its time.
const START: Duration = Duration::from_secs(30);

/// Where claims are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claims {
    Postgres,
    Redis,
}

/// Whether records guard effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    On,
    Off,
}

pub(super) struct World {
    pub(super) processes: Processes,
    pub(super) stores: Stores,
    /// Past the proxies, to look at the effects.
    pub(super) effects: PgPool,
    /// Where actions are asked for.
    pub(super) path: String,
    /// Whose they are.
    pub(super) tenant: String,
    // Removed last.
    pub(super) _folder: TempDir,
}

/// What stands between a client and the stores.
pub(super) struct Processes {
    pub(super) stack: Stack,
    pub(super) family: Family,
}

/// The stores, and the wires to them.
pub(super) struct Stores {
    pub(super) cluster: Cluster,
    pub(super) redis: Option<Redis>,
    pub(super) claims: Proxy,
    pub(super) effects: Proxy,
    pub(super) upstream: Proxy,
    _ports: [Port; 2],
}

impl World {
    pub(super) async fn start(claims: Claims, records: Records) -> Result<Self> {
        let folder = temporary_folder("postern-storm")?;
        let ports = [Port::free()?, Port::free()?];
        let [of_cluster, of_family] = &ports;
        let cluster =
            Cluster::start(folder.path(), of_cluster.number(), Durability::Volatile).await?;
        let effects = Proxy::start(cluster.address()).await?;
        let upstream = Proxy::start(of_family.address()).await?;
        let (redis, claims, claims_url) = match claims {
            Claims::Postgres => {
                let proxy = Proxy::start(cluster.address()).await?;
                let url = proxy.url(&cluster.url(), cluster.address());
                (None, proxy, url)
            }
            Claims::Redis => {
                let redis = Redis::start().await?;
                let proxy = Proxy::start(redis.address()).await?;
                let url = proxy.url(&redis.url(), redis.address());
                (Some(redis), proxy, url)
            }
        };
        let (pool, database) = prepare(&cluster).await?;
        let configuration = configuration(folder.path(), &upstream)?;
        let stack = Stack::start_with(|plan| {
            plan.database = Database::Url(cluster.url());
            plan.claims = Some(claims_url.clone());
            plan.configuration = configuration;
        })
        .await?;
        let mut arguments: Vec<String> = vec![
            "--listen".into(),
            of_family.address().to_string(),
            "--database".into(),
            effects.url(&database, cluster.address()),
            "--claims".into(),
            claims_url,
            "--context-keys".into(),
            stack.opening_keys()?.display().to_string(),
            "--outcome-keys".into(),
            stack.outcome_keys()?.display().to_string(),
        ];
        if records == Records::Off {
            arguments.push("--without-records".into());
        }
        let health = format!("http://{}/health", of_family.address());
        let family = Family::start(arguments, health, folder.path()).await?;
        let (path, tenant) = workspace(&stack).await?;
        Ok(Self {
            processes: Processes { stack, family },
            stores: Stores {
                cluster,
                redis,
                claims,
                effects,
                upstream,
                _ports: ports,
            },
            effects: pool,
            path,
            tenant,
            _folder: folder,
        })
    }
}

/// A database for effects and their records; the table has no unique key.
async fn prepare(cluster: &Cluster) -> Result<(PgPool, String)> {
    let control_plane = PgPool::connect(&cluster.url()).await?;
    sqlx::query("CREATE DATABASE effects")
        .execute(&control_plane)
        .await?;
    control_plane.close().await;
    let url = cluster
        .url()
        .strip_suffix("/postgres")
        .map(|server| format!("{server}/effects"))
        .context("the cluster's URL names its database")?;
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(&url)
        .await?;
    postern_common::idempotency::migrate(&pool).await?;
    let table =
        "CREATE TABLE effect (action text NOT NULL, payload text NOT NULL, number bigint NOT NULL)";
    sqlx::query(table).execute(&pool).await?;
    Ok((pool, url))
}

/// The repository's own, with the rows of workspaces at the suite's family.
fn configuration(folder: &Path, upstream: &Proxy) -> Result<PathBuf> {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../apisix-conf");
    let folder = folder.join("apisix-conf");
    std::fs::create_dir(&folder)?;
    std::fs::copy(original.join("config.yaml"), folder.join("config.yaml"))?;
    let text = std::fs::read_to_string(original.join("apisix.yaml"))?;
    let mut file: Value = serde_yaml_ng::from_str(&text)?;
    let list = |file: &mut Value, name: &str| -> Result<Vec<Value>> {
        let list = file.get(name).and_then(Value::as_array);
        list.cloned().with_context(|| format!("no {name}"))
    };
    let mut routes = list(&mut file, "routes")?;
    let rows = routes.iter_mut().find(|route| route["id"] == "postgres");
    rows.context("no route of the postgres family")?["upstream_id"] = json!("effects");
    let mut upstreams = list(&mut file, "upstreams")?;
    upstreams.push(json!({
        "id": "effects",
        "name": "effects",
        "type": "roundrobin",
        "scheme": "http",
        "retries": 0,
        "nodes": {upstream.address().to_string(): 1},
        // Shorter than in service, so that a fault's end is seen within the run.
        "timeout": {"connect": 2, "send": 4, "read": 4},
        "keepalive_pool": {"size": 320, "idle_timeout": 60, "requests": 1000},
    }));
    file["routes"] = json!(routes);
    file["upstreams"] = json!(upstreams);
    std::fs::write(folder.join("apisix.yaml"), serde_yaml_ng::to_string(&file)?)?;
    Ok(folder)
}

/// A workspace whose rows are asked for, and its tenant.
async fn workspace(stack: &Stack) -> Result<(String, String)> {
    // Without a bound on its calls.
    let tenant = stack.with_tenant_of("enterprise", "storm").await?;
    let workspace = tenant.with_workspace("storm", &["postgres"]).await?;
    wait_for("the workspace to be active", START, async || {
        let reply = tenant.admin.get(&workspace.path()).await?.expect(200)?;
        let status = reply.text_at("/status")?;
        anyhow::ensure!(status == "active", "{status}");
        Ok(())
    })
    .await?;
    let path = format!("/v1/postgres/{}/rows/effects", workspace.id);
    let id = tenant.id.clone();
    let client = stack.client(&Token::of_tenant(&id, "tenant_admin")).await?;
    wait_for("the way to the family", START, async || {
        let body = json!({"action": "first", "payload": "first", "verdict": "refuse"});
        client.post(&path, &body).await?.expect(409).map(drop)
    })
    .await?;
    Ok((path, id))
}

/// The suite's own family, as a process.
pub(super) struct Family {
    process: Process,
    arguments: Vec<String>,
    health: String,
    folder: PathBuf,
}

impl Family {
    async fn start(arguments: Vec<String>, health: String, folder: &Path) -> Result<Self> {
        Ok(Self {
            process: run(&arguments, &health, folder).await?,
            arguments,
            health,
            folder: folder.to_owned(),
        })
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// kill -9, and a new one.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = run(&self.arguments, &self.health, &self.folder).await?;
        Ok(())
    }
}

async fn run(arguments: &[String], health: &str, folder: &Path) -> Result<Process> {
    let mut command = Command::new(binary("faults-family")?);
    command.args(arguments);
    let mut process = Process::spawn("family", command, folder, Leave::Killed)?;
    let http = Http::from_address(None);
    // It refuses whatever did not come through the gateway; that is an answer.
    process
        .ready(START, async || http.get(health).await.map(drop))
        .await?;
    Ok(process)
}
