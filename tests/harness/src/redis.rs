//! Redis: one server, or a cluster of six nodes (three with slots, a replica each).
//!
//! Nothing is kept on disk: who restarts a server finds it empty, which is the worst
//! that losing one can mean. A server that is paused holds its connections and answers
//! nothing, which is worse to a client than one that is gone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::distr::{Alphanumeric, SampleString as _};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::ports::Port;
use crate::process::{Leave, Process};
use crate::services::write_private;
use crate::{temporary_folder, wait_for};

const START_LIMIT: Duration = Duration::from_secs(20);
/// Nodes tell each other of the slots by gossip, a few a second.
const CLUSTER_LIMIT: Duration = Duration::from_secs(60);
/// Two replicas could not be told from none, and three primaries are the least there is.
const NODES: usize = 6;

/// A running server.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: Port,
    /// Held: nodes of a cluster speak to each other on a second port.
    _bus: Option<Port>,
    /// Where it speaks TLS.
    tls: Option<Port>,
    password: String,
    file: PathBuf,
    // Dropped, and removed, after the server has ended.
    folder: TempDir,
}

impl Redis {
    /// Starts a server with a password of its own, on a port of its own.
    ///
    /// # Errors
    /// Redis is not installed, or does not start; the message shows its log.
    pub async fn start() -> Result<Self> {
        Self::launch(password(), None, None).await
    }

    /// The same, which speaks TLS too, with a certificate of this authority.
    ///
    /// # Errors
    /// As [`Redis::start`]; it is built without TLS.
    pub async fn start_with_tls(authority: &Authority) -> Result<Self> {
        Self::launch(password(), None, Some(authority)).await
    }

    async fn launch(
        password: String,
        bus: Option<Port>,
        authority: Option<&Authority>,
    ) -> Result<Self> {
        let folder = temporary_folder("postern-redis")?;
        let port = Port::free()?;
        let mut settings = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", port.number()),
            format!("requirepass {password}"),
            format!("masterauth {password}"),
            format!("dir {}", folder.path().display()),
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
        ];
        if let Some(bus) = &bus {
            settings.extend([
                "cluster-enabled yes".to_owned(),
                format!("cluster-port {}", bus.number()),
                "cluster-node-timeout 2000".to_owned(),
            ]);
        }
        let mut tls = None;
        if let Some(authority) = authority {
            let (port, own) = (Port::free()?, authority.identity(folder.path(), "redis")?);
            settings.extend([
                format!("tls-port {}", port.number()),
                format!("tls-cert-file {}", own.certificate.display()),
                format!("tls-key-file {}", own.key.display()),
                format!("tls-ca-cert-file {}", own.certificate.display()),
                "tls-auth-clients no".to_owned(),
            ]);
            tls = Some(port);
        }
        let file = folder.path().join("redis.conf");
        write_private(&file, &(settings.join("\n") + "\n"))?;
        Ok(Self {
            process: run(&file, folder.path(), port.address(), &password).await?,
            port,
            _bus: bus,
            tls,
            password,
            file,
            folder,
        })
    }

    /// `redis://:<password>@127.0.0.1:<port>`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://:{}@{}", self.password, self.address())
    }

    /// `rediss://:<password>@127.0.0.1:<port>`
    ///
    /// # Errors
    /// It was started without TLS.
    pub fn tls_url(&self) -> Result<String> {
        let port = self.tls.as_ref().context("started without TLS")?;
        Ok(format!("rediss://:{}@{}", self.password, port.address()))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on after [`Redis::pause`].
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Kills it with all it knows.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, empty, on the same port, killing it first where it still runs.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.ended()?.is_none() {
            self.process.kill()?;
        }
        let folder = self.folder.path();
        self.process = run(&self.file, folder, self.address(), &self.password).await?;
        Ok(())
    }
}

/// Six nodes that know each other; every slot is served and has a replica.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts the nodes and makes a cluster of them.
    ///
    /// # Errors
    /// A node does not start, or they do not find each other.
    pub async fn start() -> Result<Self> {
        let password = password();
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(Redis::launch(password.clone(), Some(Port::free()?), None).await?);
        }
        meet(&nodes, &password)?;
        wait_for(
            "the cluster to serve every slot",
            CLUSTER_LIMIT,
            async || {
                for node in &nodes {
                    let state = ask(node.address(), &password, "CLUSTER INFO").await?;
                    ensure!(state.contains("cluster_state:ok"), "{state}");
                    let known = format!("cluster_known_nodes:{NODES}");
                    ensure!(state.contains(&known), "{state}");
                }
                let first = nodes.first().context("a cluster has nodes")?;
                let all = ask(first.address(), &password, "CLUSTER NODES").await?;
                let replicas = all.lines().filter(|line| line.contains("slave")).count();
                ensure!(replicas == NODES / 2, "{all}");
                Ok(())
            },
        )
        .await?;
        Ok(Self { nodes })
    }

    /// One URL a node; any of them leads to the others.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The nodes, to be paused or killed.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }
}

fn password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 24)
}

async fn run(file: &Path, folder: &Path, address: SocketAddr, password: &str) -> Result<Process> {
    let mut command = Command::new("redis-server");
    command.arg(file);
    let mut process = Process::spawn("redis", command, folder, Leave::Killed)
        .context("Redis is needed: apt-get install redis-server")?;
    process
        .ready(START_LIMIT, async || {
            ask(address, password, "PING").await.map(drop)
        })
        .await?;
    Ok(process)
}

/// Introduces the nodes to each other.
fn meet(nodes: &[Redis], password: &str) -> Result<()> {
    let output = Command::new("redis-cli")
        .env("REDISCLI_AUTH", password)
        .args(["--cluster", "create"])
        .args(nodes.iter().map(|node| node.address().to_string()))
        .args(["--cluster-replicas", "1", "--cluster-yes"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run redis-cli")?;
    ensure!(
        output.status.success(),
        "redis-cli --cluster create: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Sends one command as a person would by hand, and gives the answer's text.
async fn ask(address: SocketAddr, password: &str, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let lines = format!("AUTH {password}\r\n{command}\r\nQUIT\r\n");
    stream.write_all(lines.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if let Some(error) = answer.lines().find(|line| line.starts_with('-')) {
        bail!("{command}: {error}");
    }
    Ok(answer)
}
