//! A runner by itself. Its chain is `rate-limit` alone, so its callers are addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use postern_harness::process::Process;
use postern_harness::wait_for;
use postern_runner::testkit::{Gateway, request};
use postern_suites::runner;
use postern_wire::message::{Action, Message};
use serde_json::{Value, json};

pub(super) struct Runner(runner::Runner);

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
        let plugins = json!({"rate-limit": settings});
        Ok(Self(runner::Runner::start(&plugins).await?))
    }

    /// The same, once its store answers.
    pub(super) async fn with_store(settings: &Value) -> Result<Self> {
        let runner = Self::start(settings).await?;
        runner.store_is(1.0).await?;
        Ok(runner)
    }

    pub(super) fn process(&self) -> &Process {
        &self.0.process
    }

    pub(super) fn workers(&self) -> Result<Vec<String>> {
        self.0.workers()
    }

    pub(super) fn log(&self) -> String {
        self.0.process.tail()
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
        self.0.metric(begin).await
    }

    pub(super) async fn asking(&self, conf: &Value) -> Result<Asking> {
        let conf = conf.to_string();
        let (gateway, token) = self.0.asking(&[("rate-limit", &conf)]).await?;
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
