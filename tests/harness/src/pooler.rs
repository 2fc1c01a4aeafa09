//! PgBouncer in transaction mode, in front of a PostgreSQL: a connection of its clients is
//! one of the server's for as long as a transaction lasts, and another one's afterwards.
//!
//! Debian's knows no prepared statements. It refuses to run as root, so root runs it as
//! whoever runs PostgreSQL.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::ports::Port;
use crate::postgres::{Owner, accepts_logins};
use crate::process::{Leave, Process};
use crate::services::write_private;
use crate::temporary_folder;

const START_LIMIT: Duration = Duration::from_secs(20);
/// Where Debian installs it; root's PATH alone leads there.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// A running pooler.
#[derive(Debug)]
pub struct Pooler {
    process: Process,
    port: Port,
    server: SocketAddr,
    file: PathBuf,
    // Dropped, and removed, after the pooler has ended.
    folder: TempDir,
}

impl Pooler {
    /// Starts one in front of `server`, for these users with their passwords there. Each
    /// has `connections` of the server at most.
    ///
    /// # Errors
    /// PgBouncer is not installed, or does not start; the message shows its log.
    pub async fn start(
        server: SocketAddr,
        users: &[(&str, &str)],
        connections: usize,
    ) -> Result<Self> {
        let folder = temporary_folder("postern-pooler")?;
        let (port, owner) = (Port::free()?, Owner::find()?);
        let (file, accounts) = (
            folder.path().join("pgbouncer.ini"),
            folder.path().join("users.txt"),
        );
        let lines = users
            .iter()
            .map(|(user, password)| format!("\"{user}\" \"{password}\"\n"));
        write_private(&accounts, &lines.collect::<String>())?;
        let settings = [
            "[databases]".to_owned(),
            format!("* = host={} port={}", server.ip(), server.port()),
            "[pgbouncer]".to_owned(),
            "listen_addr = 127.0.0.1".to_owned(),
            format!("listen_port = {}", port.number()),
            "unix_socket_dir =".to_owned(),
            "pool_mode = transaction".to_owned(),
            "auth_type = scram-sha-256".to_owned(),
            format!("auth_file = {}", accounts.display()),
            format!("default_pool_size = {connections}"),
            // The control plane's driver sends it.
            "ignore_startup_parameters = extra_float_digits".to_owned(),
            "max_client_conn = 500".to_owned(),
            // A server that was away is tried again at once, not after 15 s, and who waits
            // for a connection is told after 5 s, not after 120.
            "server_login_retry = 0.2".to_owned(),
            "query_wait_timeout = 5".to_owned(),
        ];
        write_private(&file, &(settings.join("\n") + "\n"))?;
        for path in [&file, &accounts] {
            owner.own(path)?;
        }
        Ok(Self {
            process: run(&folder, &file, port.address()).await?,
            port,
            server,
            file,
            folder,
        })
    }

    /// A URL of the server's, through the pooler.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address().to_string())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Kills it with every connection that it has.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// kill -9, and a new one on the same port.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.process = run(&self.folder, &self.file, self.address()).await?;
        Ok(())
    }
}

async fn run(folder: &TempDir, file: &PathBuf, address: SocketAddr) -> Result<Process> {
    let debian = PathBuf::from(DEBIAN);
    let program = if debian.is_file() {
        debian
    } else {
        PathBuf::from("pgbouncer")
    };
    let mut command = Owner::find()?.command(&program);
    command.arg(file);
    let mut process = Process::spawn("pgbouncer", command, folder.path(), Leave::Killed)
        .context("PgBouncer is needed: apt-get install pgbouncer")?;
    let ready = process.ready(START_LIMIT, async || accepts_logins(address).await);
    ready.await?;
    Ok(process)
}
