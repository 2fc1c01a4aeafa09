//! A runner by itself, asked over its socket as a gateway asks it. Its chain is
//! `rate-limit` alone, so its callers are addresses.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use postern_harness::http::Http;
use postern_harness::ports::Port;
use postern_harness::process::{Leave, Process, binary};
use postern_harness::{temporary_folder, wait_for};
use postern_runner::testkit::{Gateway, request};
use postern_wire::message::{Action, Message};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Runner {
    pub(super) process: Process,
    admin: Port,
    socket: PathBuf,
    _folder: TempDir,
}

/// A connection of a gateway for one configuration of `rate-limit`.
pub(super) struct Asking {
    gateway: Gateway,
    token: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Limited,
    Unavailable,
}

impl Runner {
    /// Starts one; `settings` are its section `rate-limit`.
    pub(super) async fn start(settings: &Value) -> Result<Self> {
        let (folder, admin) = (temporary_folder("postern-limits")?, Port::free()?);
        let socket = folder.path().join("runner.sock");
        let config = folder.path().join("runner.yaml");
        let file = json!({
            "admin": {"listen": admin.address().to_string()},
            "plugins": {"rate-limit": settings},
        });
        std::fs::write(&config, file.to_string())?;
        let mut command = Command::new(binary("postern-runner")?);
        command.env(
            "APISIX_LISTEN_ADDRESS",
            format!("unix:{}", socket.display()),
        );
        command.arg("--config").arg(&config);
        let process = Process::spawn("runner", command, folder.path(), Leave::Killed)?;
        let mut runner = Self {
            process,
            admin,
            socket,
            _folder: folder,
        };
        let http = Http::from_address(None);
        let ready = format!("http://{}/readyz", runner.admin.address());
        let answers = async || http.get(&ready).await?.expect(200).map(drop);
        runner.process.ready(LIMIT, answers).await?;
        Ok(runner)
    }

    /// The same, once its store answers.
    pub(super) async fn with_store(settings: &Value) -> Result<Self> {
        let runner = Self::start(settings).await?;
        runner.store_is(1.0).await?;
        Ok(runner)
    }

    pub(super) async fn store_is(&self, up: f64) -> Result<()> {
        wait_for(
            "the store to be up or down",
            Duration::from_secs(60),
            async || {
                let now = self.metric("postern_limit_store_up").await?;
                ensure!(now == up, "postern_limit_store_up is {now}");
                Ok(())
            },
        )
        .await
    }

    /// The sum of all rows of a metric whose name and labels begin so.
    pub(super) async fn metric(&self, begin: &str) -> Result<f64> {
        let url = format!("http://{}/metrics", self.admin.address());
        let reply = Http::from_address(None).get(&url).await?.expect(200)?;
        let text = String::from_utf8(reply.body.to_vec())?;
        let rows = text.lines().filter(|line| line.starts_with(begin));
        rows.map(|row| {
            let (_, value) = row.rsplit_once(' ').context("a row without a value")?;
            Ok(value.parse::<f64>()?)
        })
        .sum()
    }

    pub(super) async fn asking(&self, conf: &Value) -> Result<Asking> {
        let mut gateway = Gateway::over(UnixStream::connect(&self.socket).await?);
        let conf = conf.to_string();
        let token = gateway
            .prepare(&format!("route#{conf}"), &[("rate-limit", &conf)])
            .await?;
        Ok(Asking { gateway, token })
    }
}

impl Asking {
    pub(super) async fn ask(&mut self, from: Ipv4Addr) -> Result<Verdict> {
        let request = request("GET", "/health").src_ip(from);
        match self.gateway.call(self.token, &request).await? {
            Message::HttpReqCallResp { action: None, .. } => Ok(Verdict::Passed),
            Message::HttpReqCallResp {
                action: Some(Action::Stop(stop)),
                ..
            } => match stop.status {
                429 => Ok(Verdict::Limited),
                503 => Ok(Verdict::Unavailable),
                status => bail!("answered {status}"),
            },
            other => bail!("answered {other:?}"),
        }
    }

    /// Asks so often; how many passed.
    pub(super) async fn passed(&mut self, from: Ipv4Addr, times: u32) -> Result<u32> {
        let mut passed = 0;
        for _ in 0..times {
            passed += u32::from(self.ask(from).await? == Verdict::Passed);
        }
        Ok(passed)
    }
}

/// The section `rate-limit` with a store; a decision may wait long for it, so that a
/// busy machine is no reason to go without.
pub(super) fn store(url: &str, mode: &str) -> Value {
    json!({"redis": {"url": url, "mode": mode, "timeoutMs": 1000}})
}
