//! Everything that runs behind one API address, as one value.
//!
//! ```text
//! PostgreSQL, MongoDB → issuer → handlers → gateway, which starts the runner
//! ```
//!
//! Each waits until the one before it answers. Suites and the quickstart start
//! the same processes with the same configuration; they differ in where data
//! lives and for how long.

mod apisix;
mod configuration;
mod keys;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::http::Http;
use crate::mongo::Mongo;
use crate::ports::Port;
use crate::postgres::{Cluster, Durability};
use crate::process::{Leave, Process, binary};

/// How long a server of ours may take to answer. They take milliseconds; a
/// machine that builds something else at the same time takes more.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where PostgreSQL is.
#[derive(Debug, Clone)]
pub enum Database {
    /// A cluster of our own in the data folder.
    Private(Durability),
    /// A server that runs already.
    Url(String),
}

/// Where MongoDB is.
#[derive(Debug, Clone)]
pub enum Documents {
    /// A set of our own in the data folder.
    Private,
    /// A replica set that runs already.
    Url(String),
}

/// What stands in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gateway {
    /// The development gateway of this repository.
    StandIn,
    /// The APISIX installed in this folder.
    Apisix(PathBuf),
}

/// What is to be started, and where things are.
#[derive(Debug)]
pub struct Plan {
    /// What outlives a run: the cluster, keys, accounts.
    pub data: PathBuf,
    /// Sockets and rendered configuration of one run. A short path: a Unix
    /// socket's address is at most 107 bytes.
    pub run: PathBuf,
    /// The repository's `apisix-conf`.
    pub configuration: PathBuf,
    /// Where PostgreSQL is.
    pub database: Database,
    /// Where claims are kept, if not in the database.
    pub claims: Option<String>,
    /// What stands in front.
    pub gateway: Gateway,
    /// The API's port on 127.0.0.1.
    pub gateway_port: u16,
    /// The issuer's port on 127.0.0.1.
    pub issuer_port: u16,
    /// Whether the postgres family is served: rows, in the control plane's own cluster.
    pub postgres: bool,
    /// The mongo family, if it is served.
    pub mongo: Option<Documents>,
    /// Whether the issuer signs whatever a test asks for.
    pub mint: bool,
    /// A folder in which a test arms fault points of the handlers.
    pub faults: Option<PathBuf>,
    /// What the runner's file says besides, or instead: merged into it member by member.
    pub runner: Value,
    /// The same of the handlers' file.
    pub handlers: Value,
}

impl Plan {
    /// The API's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    /// `iss` of every token: the issuer's realm.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}/realms/{REALM}", self.issuer_port)
    }

    /// The file of accounts, which must be there before the start.
    #[must_use]
    pub fn accounts(&self) -> PathBuf {
        self.data.join("accounts.yaml")
    }
}

/// The realm of the development issuer.
pub const REALM: &str = "postern";
/// `aud` of every token.
pub const AUDIENCE: &str = "postern-api";

/// All of it, running.
#[derive(Debug)]
pub struct Services {
    // Dropped, and stopped, in this order: nobody is left waiting for somebody gone.
    gateway: Process,
    handlers: Process,
    issuer: Process,
    mongo: Option<Mongo>,
    postgres: Option<Cluster>,
    plan: Plan,
    addresses: Addresses,
}

/// What has been found out on the way.
#[derive(Debug)]
struct Addresses {
    database: String,
    mongo: Option<String>,
    handlers: Port,
    handlers_admin: Port,
    runner_admin: Port,
}

/// Told of each server that answers: its name, its process, and how long it took.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u32, Duration) -> Result<()>;

impl Services {
    /// Starts everything in order, telling `progress` of each.
    ///
    /// # Errors
    /// Something did not start: which one, and the end of its log.
    pub async fn start(plan: Plan, progress: Progress<'_>) -> Result<Self> {
        for folder in [&plan.data, &plan.run] {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        keys::write_missing(&plan.data)?;
        let (postgres, database) = match &plan.database {
            Database::Url(url) => (None, url.clone()),
            Database::Private(durability) => {
                let start = Instant::now();
                let port = Port::free()?;
                let mut cluster = Cluster::start(&plan.data, port.number(), *durability).await?;
                progress("postgres", cluster.process().id(), start.elapsed())?;
                let url = cluster.url();
                (Some(cluster), url)
            }
        };
        let (mongo, documents) = match &plan.mongo {
            None => (None, None),
            Some(Documents::Url(url)) => (None, Some(url.clone())),
            Some(Documents::Private) => {
                let start = Instant::now();
                let mut mongo = Mongo::kept(&plan.data.join("mongo")).await?;
                progress("mongod", mongo.process().id(), start.elapsed())?;
                let url = mongo.url();
                (Some(mongo), Some(url))
            }
        };
        let addresses = Addresses {
            database,
            mongo: documents,
            handlers: Port::free()?,
            handlers_admin: Port::free()?,
            runner_admin: Port::free()?,
        };
        let issuer = timed(progress, start_issuer(&plan)).await?;
        let handlers = timed(progress, start_handlers(&plan, &addresses)).await?;
        let gateway = timed(progress, start_gateway(&plan, &addresses)).await?;
        Ok(Self {
            gateway,
            handlers,
            issuer,
            mongo,
            postgres,
            plan,
            addresses,
        })
    }

    /// What was started.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The URL of the control plane's database.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.addresses.database
    }

    /// The handlers' own address, past the gateway.
    #[must_use]
    pub fn handlers_url(&self) -> String {
        format!("http://{}", self.addresses.handlers.address())
    }

    /// The runner's admin endpoint.
    #[must_use]
    pub fn runner_admin_url(&self) -> String {
        format!("http://{}", self.addresses.runner_admin.address())
    }

    /// The file of the keys that open contexts, every family's.
    #[must_use]
    pub fn opening_keys(&self) -> PathBuf {
        keys::opening(&self.plan.data)
    }

    /// The file of the keys that seal kept outcomes.
    #[must_use]
    pub fn outcome_keys(&self) -> PathBuf {
        keys::outcomes(&self.plan.data)
    }

    /// The file of the keys that seal contexts.
    #[must_use]
    pub fn master_keys(&self) -> PathBuf {
        keys::master(&self.plan.data)
    }

    /// The handlers' process, to be killed by a test.
    pub fn handlers(&mut self) -> &mut Process {
        &mut self.handlers
    }

    /// The gateway's process, whose child is the runner.
    pub fn gateway(&mut self) -> &mut Process {
        &mut self.gateway
    }

    /// Starts the handlers again after they were killed.
    ///
    /// # Errors
    /// They do not answer.
    pub async fn restart_handlers(&mut self) -> Result<()> {
        self.handlers.kill()?;
        self.handlers = start_handlers(&self.plan, &self.addresses).await?;
        Ok(())
    }

    /// kill -9 of the gateway with its runner, and a new one.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn restart_gateway(&mut self) -> Result<()> {
        self.gateway.kill()?;
        self.gateway = start_gateway(&self.plan, &self.addresses).await?;
        Ok(())
    }

    /// Fails when one of them has ended: which, and the end of its log.
    ///
    /// # Errors
    /// As said.
    pub fn all_alive(&mut self) -> Result<()> {
        let cluster = self.postgres.as_mut().map(Cluster::process);
        let mongo = self.mongo.as_mut().map(Mongo::process);
        let others = [&mut self.issuer, &mut self.handlers, &mut self.gateway];
        for process in others.into_iter().chain(cluster).chain(mongo) {
            if let Some(status) = process.ended()? {
                bail!("{} ended ({status}):\n{}", process.name(), process.tail());
            }
        }
        Ok(())
    }

    /// The ends of all logs, for a failure's message.
    #[must_use]
    pub fn logs(&self) -> String {
        [&self.gateway, &self.handlers, &self.issuer]
            .map(|process| format!("--- {}\n{}\n", process.name(), process.tail()))
            .concat()
    }

    /// Stops everything cleanly, the gateway first.
    ///
    /// # Errors
    /// Something had to be killed; the rest is stopped all the same.
    pub async fn stop(mut self) -> Result<()> {
        let gentle = match self.plan.gateway {
            Gateway::StandIn => Signal::TERM,
            // nginx's fast shutdown is SIGTERM; QUIT lets requests finish.
            Gateway::Apisix(_) => Signal::QUIT,
        };
        let gateway = self.gateway.stop(gentle, STOP_LIMIT).await;
        let handlers = self.handlers.stop(Signal::TERM, STOP_LIMIT).await;
        let issuer = self.issuer.stop(Signal::TERM, STOP_LIMIT).await;
        let mongo = match self.mongo.take() {
            Some(mongo) => mongo.stop().await,
            None => Ok(()),
        };
        let postgres = match self.postgres.take() {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        };
        gateway.and(handlers).and(issuer).and(mongo).and(postgres)
    }
}

async fn timed(
    progress: Progress<'_>,
    starting: impl Future<Output = Result<Process>>,
) -> Result<Process> {
    let start = Instant::now();
    let process = starting.await?;
    progress(process.name(), process.id(), start.elapsed())?;
    Ok(process)
}

async fn start_issuer(plan: &Plan) -> Result<Process> {
    let mut command = Command::new(binary("dev-issuer")?);
    command
        .args(["--listen", &format!("127.0.0.1:{}", plan.issuer_port)])
        .arg("--accounts")
        .arg(plan.accounts())
        .arg("--keys")
        .arg(plan.data.join("issuer-keys"));
    if plan.mint {
        command.arg("--mint");
    }
    let mut issuer = Process::spawn("issuer", command, &plan.data, Leave::Killed)?;
    let keys = format!("{}/protocol/openid-connect/certs", plan.issuer());
    answers(&mut issuer, &keys).await?;
    Ok(issuer)
}

async fn start_handlers(plan: &Plan, addresses: &Addresses) -> Result<Process> {
    let file = configuration::handlers(plan, addresses)?;
    let mut command = Command::new(binary("postern-handlers")?);
    command.arg("--config").arg(file);
    let mut handlers = Process::spawn("handlers", command, &plan.data, Leave::Killed)?;
    let ready = format!("http://{}/readyz", addresses.handlers_admin.address());
    answers(&mut handlers, &ready).await?;
    Ok(handlers)
}

async fn start_gateway(plan: &Plan, addresses: &Addresses) -> Result<Process> {
    let rendered = configuration::gateway(plan, addresses)?;
    let command = match &plan.gateway {
        Gateway::Apisix(home) => apisix::command(home, &rendered)?,
        Gateway::StandIn => {
            let mut command = Command::new(binary("standin-gateway")?);
            command
                .arg("--config")
                .arg(&rendered.config)
                .arg("--apisix-yaml")
                .arg(&rendered.routes);
            command
        }
    };
    let mut gateway = Process::spawn("gateway", command, &plan.data, Leave::Killed)?;
    // Ready once it has the issuer's keys and the directory.
    let runner = format!("http://{}/readyz", addresses.runner_admin.address());
    answers(&mut gateway, &runner).await?;
    answers(&mut gateway, &format!("{}/health", plan.url())).await?;
    Ok(gateway)
}

/// Waits until `url` answers 200.
async fn answers(process: &mut Process, url: &str) -> Result<()> {
    let http = Http::from_address(None);
    process
        .ready(START_LIMIT, async || {
            let reply = http.get(url).await?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(())
        })
        .await
}

/// Writes a file for nobody else to read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
