//! A real Keycloak: one server process with a home, a database and a port of its own.
//!
//! ```text
//! installation (once a clone) → a home that points into it → java → admin REST
//! ```
//!
//! `kc.sh` is left out when it runs: killed with -9 it would leave its `java` behind.
//! The database is a file in the home, so a server that is started again has its
//! realms, keys and sessions as before.

mod admin;
mod installation;
mod realm;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::http::Http;
use crate::ports::Port;
use crate::process::{Leave, Process};
use crate::temporary_folder;

pub use admin::{Admin, Tokens};
pub use realm::{Realm, User};

/// A cold start makes the database (16 s on two idle cores); others build meanwhile.
const START_LIMIT: Duration = Duration::from_secs(180);
const STOP_LIMIT: Duration = Duration::from_secs(20);

const ADMIN_NAME: &str = "admin";
const ADMIN_PASSWORD: &str = "admin-of-the-tests";

/// Whole: `kc.sh` would otherwise have its own, with a collector that clashes.
const JAVA_OPTIONS: [&str; 3] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx512m"];

/// The client of every realm that is made here, and its secret.
pub const CLIENT: (&str, &str) = (realm::CLIENT, realm::CLIENT_SECRET);

/// What `kc.sh` adds to any options, as of 26.7.
const KEYCLOAK_JAVA_OPTIONS: [&str; 9] = [
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "-Duser.language=en",
    "-Duser.country=US",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Dpicocli.disable.closures=true",
];

/// A running server.
#[derive(Debug)]
pub struct Keycloak {
    process: Process,
    port: Port,
    installation: PathBuf,
    folder: TempDir,
}

impl Keycloak {
    /// The server of this test process, started when the first test asks for it.
    ///
    /// # Errors
    /// It did not start; every test that asks is told the same.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<Keycloak, String>> = OnceCell::const_new();
        let start = async || Self::start().await.map_err(|error| format!("{error:#}"));
        SHARED
            .get_or_init(start)
            .await
            .as_ref()
            .map_err(|told| anyhow!("{told}"))
    }

    /// A server of the caller's own, with nothing in it but the realm `master`.
    /// The first start in a clone downloads and builds it (1 to 2 min).
    ///
    /// # Errors
    /// It cannot be installed or does not start; the message shows its log.
    pub async fn start() -> Result<Self> {
        let installation = installation::find().await?;
        let folder = temporary_folder("postern-keycloak")?;
        let port = Port::free()?;
        let home = folder.path().join("home");
        installation::link(&installation, &home)?;
        let process = spawn(&home, &port, folder.path())?;
        let mut keycloak = Self {
            process,
            port,
            installation,
            folder,
        };
        keycloak.answers().await?;
        Ok(keycloak)
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// `iss` of a realm's tokens.
    #[must_use]
    pub fn issuer(&self, realm: &str) -> String {
        format!("{}/realms/{realm}", self.url())
    }

    /// The process: to be stopped, continued or killed by a test.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The installation it runs from.
    #[must_use]
    pub fn installation(&self) -> &Path {
        &self.installation
    }

    /// Starts it again, killing it first if it still runs.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        let home = self.folder.path().join("home");
        self.process = spawn(&home, &self.port, self.folder.path())?;
        self.answers().await
    }

    /// Its administrator, who makes realms, clients and users.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self) -> Result<Admin> {
        Admin::log_in(&self.url(), ADMIN_NAME, ADMIN_PASSWORD).await
    }

    /// Tokens of a user, by the password grant.
    ///
    /// # Errors
    /// Keycloak refuses.
    pub async fn log_in(&self, realm: &Realm, name: &str, password: &str) -> Result<Tokens> {
        let form = [
            ("grant_type", "password"),
            ("client_id", realm::CLIENT),
            ("client_secret", realm::CLIENT_SECRET),
            ("username", name),
            ("password", password),
            ("scope", "openid"),
        ];
        admin::tokens(&Http::from_address(None), &self.issuer(realm.name()), &form).await
    }

    /// Tokens of the realm's own client, by the client credentials grant.
    ///
    /// # Errors
    /// Keycloak refuses.
    pub async fn service_account(&self, realm: &Realm) -> Result<Tokens> {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", realm::CLIENT),
            ("client_secret", realm::CLIENT_SECRET),
        ];
        admin::tokens(&Http::from_address(None), &self.issuer(realm.name()), &form).await
    }

    /// Ends it cleanly.
    ///
    /// # Errors
    /// It had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop(Signal::TERM, STOP_LIMIT).await
    }

    /// It refuses while it starts, and answers 503 while it imports.
    async fn answers(&mut self) -> Result<()> {
        let master = self.issuer("master");
        let http = Http::from_address(None);
        self.process
            .ready(START_LIMIT, async || {
                let reply = http.get(&master).await?;
                ensure!(reply.status == 200, "{reply:?}");
                Ok(())
            })
            .await
    }
}

/// Starts `java` as `kc.sh start --optimized` would.
fn spawn(home: &Path, port: &Port, logs: &Path) -> Result<Process> {
    let home_text = home.to_str().context("the folder is not UTF-8")?;
    let mut command = Command::new(installation::java());
    command
        .args(JAVA_OPTIONS)
        .args(KEYCLOAK_JAVA_OPTIONS)
        .arg(format!("-Dkc.home.dir={home_text}"))
        .arg(format!("-Djboss.server.config.dir={home_text}/conf"))
        .args(["-cp", &format!("{home_text}/lib/quarkus-run.jar")])
        .arg("io.quarkus.bootstrap.runner.QuarkusEntryPoint")
        .args(["start", "--optimized", "--cache=local"])
        .args(["--http-enabled=true", "--http-host=127.0.0.1"])
        .arg(format!("--http-port={}", port.number()))
        .arg(format!("--hostname=http://{}", port.address()))
        // H2 writes half a second after a commit otherwise, and a kill loses it.
        .arg(format!(
            "--db-url=jdbc:h2:file:{home_text}/data/keycloak;NON_KEYWORDS=VALUE;WRITE_DELAY=0"
        ))
        .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMIN_NAME)
        .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
    Process::spawn("keycloak", command, logs, Leave::Killed)
}
