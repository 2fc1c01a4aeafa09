//! A runner is reloaded while its issuers are away: the next worker goes on with their keys.

use std::time::Instant;

use anyhow::{Result, ensure};
use postern_harness::services::AUDIENCE;
use postern_runner::testkit::request;
use postern_suites::runner::Runner;
use postern_wire::message::Message;
use rustix::process::Signal;
use serde_json::json;

use super::liar::{Liar, Manner};
use super::signer::P256;
use super::{SOON, claims};

const REALMS: usize = 30;

#[tokio::test]
async fn a_reload_refuses_nobody_whose_issuer_is_away() -> Result<()> {
    let key = P256::new("k")?;
    let issuer = Liar::publishing(&[key.public()])?;
    let realm = |slug: &str| format!("{}/realms/tenant-{slug}", issuer.url());
    let runner = Runner::start(&json!({"jwt": {"issuers": [
        issuer.settings(),
        {
            "issuer": realm("{slug}"),
            "allow": ["*"],
            "jwksUri": format!("{}/certs", realm("{slug}")),
            "audiences": [AUDIENCE],
        },
    ]}}))
    .await?;
    let mut names = vec![issuer.url()];
    names.extend((0..REALMS).map(|n| realm(&n.to_string())));
    let tokens = names.iter().map(|name| {
        let mut claims = claims(name);
        if *name != issuer.url() {
            claims["tenant_id"] = json!("tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV");
        }
        Ok(format!("Bearer {}", key.sign(&claims)?))
    });
    let tokens = tokens.collect::<Result<Vec<_>>>()?;
    let (mut gateway, conf) = runner.asking(&[("jwt", "{}")]).await?;
    let mut all_pass = async || -> Result<()> {
        for token in &tokens {
            let request = request("GET", "/v1/platform/info").header("Authorization", token);
            let answer = gateway.call(conf, &request).await?;
            let passed = matches!(&answer, Message::HttpReqCallResp { action: None, .. });
            ensure!(passed, "{answer:?}");
        }
        Ok(())
    };
    all_pass().await?;
    issuer.set(Manner::Closes);
    for _ in 0..3 {
        let before = runner.workers()?;
        runner.process.signal(Signal::HUP)?;
        let end = Instant::now() + SOON;
        loop {
            all_pass().await?;
            let now = runner.workers()?;
            if now.len() == 1 && now != before {
                break;
            }
            ensure!(Instant::now() < end, "no other worker: {now:?}");
        }
        all_pass().await?;
    }
    Ok(())
}
