//! A runner by itself, asked over its socket as a gateway asks it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_harness::http::Http;
use postern_harness::ports::Port;
use postern_harness::process::{Leave, Process, binary};
use postern_harness::temporary_folder;
use postern_runner::testkit::Gateway;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

const LIMIT: Duration = Duration::from_secs(20);

/// A process that no gateway has started.
#[derive(Debug)]
pub struct Runner {
    /// Itself.
    pub process: Process,
    admin: Port,
    socket: PathBuf,
    _folder: TempDir,
}

impl Runner {
    /// Starts one, whose file has these `plugins`, and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready: the end of its log says why.
    pub async fn start(plugins: &Value) -> Result<Self> {
        let mut runner = Self::launch(plugins)?;
        let http = Http::from_address(None);
        let ready = format!("{}/readyz", runner.admin_url());
        let answers = async || http.get(&ready).await?.expect(200).map(drop);
        runner.process.ready(LIMIT, answers).await?;
        Ok(runner)
    }

    /// The same without the wait.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch(plugins: &Value) -> Result<Self> {
        let (folder, admin) = (temporary_folder("postern-runner")?, Port::free()?);
        let socket = folder.path().join("runner.sock");
        let config = folder.path().join("runner.yaml");
        let file = json!({
            "admin": {"listen": admin.address().to_string()},
            "plugins": plugins,
        });
        std::fs::write(&config, file.to_string())?;
        let mut command = Command::new(binary("postern-runner")?);
        command.env(
            "APISIX_LISTEN_ADDRESS",
            format!("unix:{}", socket.display()),
        );
        command.arg("--config").arg(&config);
        let process = Process::spawn("runner", command, folder.path(), Leave::Killed)?;
        Ok(Self {
            process,
            admin,
            socket,
            _folder: folder,
        })
    }

    /// Its admin endpoint.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin.address())
    }

    /// The processes that serve: one, and while it is replaced two.
    ///
    /// # Errors
    /// It has ended.
    pub fn workers(&self) -> Result<Vec<String>> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(children.split_whitespace().map(str::to_owned).collect())
    }

    /// The sum of all rows of a metric whose name and labels begin so.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, begin: &str) -> Result<f64> {
        let url = format!("{}/metrics", self.admin_url());
        let reply = Http::from_address(None).get(&url).await?.expect(200)?;
        let text = String::from_utf8(reply.body.to_vec())?;
        let rows = text.lines().filter(|line| line.starts_with(begin));
        rows.map(|row| {
            let (_, value) = row.rsplit_once(' ').context("a row without a value")?;
            Ok(value.parse::<f64>()?)
        })
        .sum()
    }

    /// A connection of a gateway, with the token of a route's `conf`.
    ///
    /// # Errors
    /// It refuses the configuration.
    pub async fn asking(&self, conf: &[(&str, &str)]) -> Result<(Gateway, u32)> {
        let mut gateway = Gateway::over(UnixStream::connect(&self.socket).await?);
        let token = gateway.prepare(&format!("route#{conf:?}"), conf).await?;
        Ok((gateway, token))
    }
}
