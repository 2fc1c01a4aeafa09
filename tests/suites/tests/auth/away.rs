//! Keycloak stopped, and killed: everybody is told so, in bounded time, and it passes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::keycloak::Keycloak;
use postern_harness::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::World;

/// `auth.keycloak.timeoutMs`, and some.
const BOUND: Duration = Duration::from_secs(7);
const BACK: Duration = Duration::from_secs(60);

/// What the health route says of Keycloak. It is not required: the status stays 200.
async fn keycloak_is(client: &Client) -> Result<Value> {
    let health = client.get("/v1/platform/health").await?.expect(200)?;
    let backends = health.at("/backends")?;
    let mut backends = backends.as_array().into_iter().flatten();
    let keycloak = backends.find(|backend| backend["name"] == "keycloak");
    Ok(keycloak.context("Keycloak is not listed")?["status"].clone())
}

#[tokio::test]
async fn keycloak_away_is_told_in_bounded_time() -> Result<()> {
    let mut keycloak = Keycloak::start().await?;
    let world = World::before(&keycloak).await?;
    let home = world.tenant("away").await?;
    let password = home.user(&keycloak, "ada", &["tenant_admin"]).await?;
    let log_in = home.log_in("ada", &password);
    let tokens = world.token(log_in.clone()).await?.expect(200)?;
    assert_eq!(keycloak_is(&world.stack.anonymous()).await?, "up");

    let away = async |what: &str| -> Result<()> {
        let client = json!({"clientId": "robot", "grantTypes": ["client_credentials"]});
        let began = Instant::now();
        let anonymous = world.stack.anonymous();
        let token = anonymous.post("/v1/auth/token", &log_in);
        let list = home.tenant.admin.get("/v1/iam/realms");
        let made = home.tenant.admin.post(&home.path("clients"), &client);
        let revoked = json!({"token": tokens.text_at("/refresh_token")?});
        let revoked = anonymous.post("/v1/auth/revoke", &revoked);
        let calls = [token, list, made, revoked].map(IntoFuture::into_future);
        let answers: Vec<Result<Reply>> = join_all(calls).await;
        for reply in answers {
            let reply = reply?;
            reply.refused(503, "BACKEND_UNAVAILABLE")?;
            assert!(reply.one("retry-after")?.parse::<u32>()? >= 1, "{what}");
        }
        assert!(began.elapsed() < BOUND, "{what}: {:?}", began.elapsed());
        assert_eq!(keycloak_is(&anonymous).await?, "down", "{what}");
        // What needs no Keycloak goes on.
        anonymous
            .get("/v1/auth/signups/policy")
            .await?
            .expect(200)?;
        home.tenant.admin.get("/v1/workspaces").await?.expect(200)?;
        Ok(())
    };
    let back = async |what: &str| {
        wait_for(what, BACK, async || {
            let reply = world.token(log_in.clone()).await?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(())
        })
        .await
    };
    keycloak.process().signal(Signal::STOP)?;
    away("stopped").await?;
    keycloak.process().signal(Signal::CONT)?;
    back("Keycloak to go on").await?;

    keycloak.process().kill()?;
    away("killed").await?;
    // A tenant that is made meanwhile gets its realm later.
    let late = world.tenant_without_realm("late").await?;
    keycloak.restart().await?;
    back("Keycloak to come back").await?;
    late.is_there(&keycloak.url()).await
}
