//! A server of the tests' own: the binary, over a database of its own, and a
//! client that seals contexts as the runner does.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method};
use postern_context::{Claim, Context, RateLimit, SealingKeys};
use postern_contract::Family;
use postern_harness::http::{Http, Reply};
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::process::{Leave, Process};
use postern_served::{OUTCOME_KEYS, SEALING_KEYS};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// One cluster a test binary; each server has a database of its own in it.
async fn cluster() -> &'static str {
    static CLUSTER: OnceCell<(Cluster, TempDir, Port)> = OnceCell::const_new();
    let start = async || {
        let folder = postern_harness::temporary_folder("handlers").unwrap();
        let port = Port::free().unwrap();
        let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile)
            .await
            .unwrap();
        (cluster, folder, port)
    };
    let (cluster, ..) = CLUSTER.get_or_init(start).await;
    static URL: OnceCell<String> = OnceCell::const_new();
    URL.get_or_init(async || cluster.url()).await
}

/// A database and the files that its servers share.
pub struct Deployment {
    pub folder: TempDir,
    pub database: String,
    pub pool: PgPool,
    sealing: SealingKeys,
}

impl Deployment {
    pub async fn new() -> Self {
        let folder = postern_harness::temporary_folder("handlers").unwrap();
        let name = format!("t_{}", postern_harness::token::unique().to_lowercase());
        let base = cluster().await;
        let admin = PgPool::connect(base).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&admin)
            .await
            .unwrap();
        let (server, _) = base.rsplit_once('/').unwrap();
        let database = format!("{server}/{name}");
        let pool = PgPool::connect(&database).await.unwrap();
        let sealing = SealingKeys::parse(SEALING_KEYS).unwrap();
        std::fs::write(
            folder.path().join("context.keys"),
            sealing.opening_file(&Family::ALL),
        )
        .unwrap();
        std::fs::write(folder.path().join("outcome.keys"), OUTCOME_KEYS).unwrap();
        std::fs::create_dir(folder.path().join("faults")).unwrap();
        Self {
            folder,
            database,
            pool,
            sealing,
        }
    }

    /// The configuration, with what a test changes.
    pub fn config(&self, name: &str, ports: &[Port; 2], more: &Value) -> PathBuf {
        let folder = self.folder.path();
        let mut config = json!({
            "listen": ports[0].address().to_string(),
            "admin": ports[1].address().to_string(),
            "directory": format!("unix:{}", folder.join(format!("{name}.sock")).display()),
            "database": {"url": self.database, "maxConnections": 8},
            "contextKeys": folder.join("context.keys"),
            "outcomeKeys": folder.join("outcome.keys"),
            "faults": folder.join("faults"),
        });
        for (key, value) in more.as_object().unwrap() {
            match (config.get_mut(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
                _ => config[key] = value.clone(),
            }
        }
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub async fn serve(&self, name: &str) -> Server {
        self.serve_with(name, &json!({})).await
    }

    pub async fn serve_with(&self, name: &str, more: &Value) -> Server {
        let ports = [Port::free().unwrap(), Port::free().unwrap()];
        let config = self.config(name, &ports, more);
        let mut command = binary();
        command.arg("--config").arg(config);
        let mut process = Process::spawn(name, command, self.folder.path(), Leave::Killed).unwrap();
        let (http, ready) = (
            Http::from_address(None),
            format!("http://{}/readyz", ports[1].address()),
        );
        let probe = async || http.get(&ready).await?.expect(200).map(drop);
        process.ready(Duration::from_secs(30), probe).await.unwrap();
        let socket = self.folder.path().join(format!("{name}.sock"));
        Server {
            process,
            http,
            ports,
            socket,
        }
    }

    /// Holds the next mutation at a point.
    pub fn arm(&self, point: &str) -> Fault {
        let armed = self.folder.path().join("faults").join(point);
        std::fs::write(&armed, "").unwrap();
        Fault {
            reached: armed.with_extension("reached"),
        }
    }
}

/// A point that a mutation is to be held at.
pub struct Fault {
    reached: PathBuf,
}

impl Fault {
    pub async fn reached(&self) {
        let reached = async || {
            ensure!(self.reached.exists(), "nothing has come to the point");
            Ok(())
        };
        postern_harness::wait_for("the fault point", Duration::from_secs(10), reached)
            .await
            .unwrap();
    }

    pub fn release(&self) {
        std::fs::remove_file(&self.reached).unwrap();
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-handlers"));
    command.env_remove("DATABASE_URL");
    command
}

/// A running server.
pub struct Server {
    pub process: Process,
    pub http: Http,
    pub ports: [Port; 2],
    pub socket: PathBuf,
}

impl Server {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.ports[0].address())
    }

    pub async fn admin(&self, path: &str) -> Reply {
        self.http
            .get(&format!("http://{}{path}", self.ports[1].address()))
            .await
            .unwrap()
    }
}

/// Whose requests are sealed.
#[derive(Clone)]
pub struct Caller {
    pub subject: String,
    pub tenant: String,
    pub workspace: String,
    pub roles: Vec<String>,
}

impl Caller {
    pub fn platform(role: &str) -> Self {
        let subject = format!("u-{}", postern_harness::token::unique());
        Self {
            subject,
            tenant: String::new(),
            workspace: String::new(),
            roles: vec![role.into()],
        }
    }

    pub fn of_tenant(tenant: &str, role: &str) -> Self {
        Self {
            tenant: tenant.into(),
            ..Self::platform(role)
        }
    }

    pub fn pinned_to(self, workspace: &str) -> Self {
        Self {
            workspace: workspace.into(),
            ..self
        }
    }
}

/// A request in the making.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// What the runner would have read, if not the path itself.
    pub judged: Option<String>,
    /// What the runner has claimed for it.
    pub claim: Option<Claim>,
    pub caller: Caller,
}

impl Request {
    pub fn new(caller: &Caller, method: Method, path: &str) -> Self {
        let mut request = Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            judged: None,
            claim: None,
            caller: caller.clone(),
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            request
                .headers
                .push(("idempotency-key".into(), postern_harness::token::unique()));
        }
        request
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.headers
            .push(("content-type".into(), "application/json".into()));
        self.body = body.to_string().into();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// The context as a runner with this deployment's keys seals it.
    pub fn context(&self, deployment: &Deployment) -> String {
        let path = self.judged.as_deref().unwrap_or(&self.path);
        let (route, told) = postern_served::context(&self.method, path);
        let context = Context {
            subject: self.caller.subject.clone(),
            tenant: self.caller.tenant.clone(),
            workspace: self.caller.workspace.clone(),
            roles: self.caller.roles.clone(),
            client_address: "192.0.2.7".into(),
            api_version: "2024-01-01".into(),
            rate_limit: Some(RateLimit {
                policy: "tenant_control".into(),
                limit: 240,
                burst: 60,
                remaining: 59,
                reset: 1_700_000_000,
                reset_after: 1,
                partition: vec![7; 8],
            }),
            claim: self.claim.clone(),
            ..told
        };
        postern_served::seal(&deployment.sealing, route, context)
    }

    pub async fn try_send(self, deployment: &Deployment, server: &Server) -> Result<Reply> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            postern_harness::http::append(&mut headers, name, value.as_bytes())?;
        }
        let context = self.context(deployment);
        postern_harness::http::append(&mut headers, "x-postern-context", context.as_bytes())?;
        server
            .http
            .send(&self.method, &server.url(&self.path), &headers, self.body)
            .await
    }

    pub async fn send(self, deployment: &Deployment, server: &Server) -> Reply {
        self.try_send(deployment, server).await.unwrap()
    }
}

/// A body for a tenant of a fresh slug.
pub fn tenant() -> Value {
    let slug = format!("t-{}", postern_harness::token::unique().to_lowercase());
    json!({"slug": slug, "displayName": "Acme", "plan": "starter", "adminEmail": "a@acme.example.com"})
}

/// Makes a tenant and gives its id.
pub async fn make_tenant(deployment: &Deployment, server: &Server) -> String {
    let admin = Caller::platform("platform_admin");
    let reply = Request::new(&admin, Method::POST, "/v1/tenants")
        .json(&tenant())
        .send(deployment, server)
        .await;
    text(&reply.expect(201).unwrap(), "/id")
}

/// A text in an answer's body.
pub fn text(reply: &Reply, pointer: &str) -> String {
    let value = reply.json().unwrap();
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .with_context(|| format!("no text at {pointer} in {reply:?}"))
        .unwrap()
        .to_owned()
}

/// The code of a refusal.
pub fn code(reply: &Reply) -> (u16, String) {
    (reply.status, text(reply, "/error/code"))
}

/// What a program that is to fail prints, and how it ends.
pub fn fails(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it did not fail");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A file with this content.
pub fn file(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path)
        .unwrap()
        .write_all(content.as_bytes())
        .unwrap();
    path
}
