//! Revoked tokens: refused within a second, whoever revoked them and where.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use postern_harness::api::headers;
use postern_harness::http::{Http, Reply};
use postern_harness::stack::Stack;
use postern_harness::token::unique;
use postern_harness::wait_for;
use postern_platform::revocation::{Revoked, revoke};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::liar::Liar;
use super::signer::{P256, claims_of};
use super::{World, claims, judge, trusting};

const WITHIN: Duration = Duration::from_secs(1);

fn in_an_hour() -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)
}

/// How long after now a token is refused as revoked.
async fn until_refused(stack: &Stack, token: &str) -> Result<Duration> {
    let start = Instant::now();
    let refused = async || {
        let error = judge(stack, token).await?.refused(401, "TOKEN_INVALID")?;
        ensure!(error["message"].to_string().contains("revoked"), "{error}");
        Ok(())
    };
    wait_for("the token to be refused", WITHIN, refused).await?;
    Ok(start.elapsed())
}

#[tokio::test]
async fn what_a_handler_revokes_every_runner_refuses_within_a_second() -> Result<()> {
    let world = World::shared().await?;
    let pool = PgPool::connect(world.stack.database_url()?).await?;
    let mut slowest = Duration::ZERO;
    for claim in ["jti", "sid", "sub"] {
        // A service account has no session, and its subject is every test's.
        let (key, issuer) = liar_key(world)?;
        let mut own = claims(&issuer);
        own["jti"] = json!(format!("jti-{claim}"));
        own["sid"] = json!(format!("sid-{claim}"));
        let token = key.sign(&own)?;
        let taken = async || world.judge(&token).await?.expect(200).map(drop);
        wait_for("the token to be taken", super::SOON, taken).await?;
        let value = own[claim].as_str().unwrap();
        let revoked = match claim {
            "jti" => Revoked::Token(value),
            "sid" => Revoked::Session(value),
            _ => Revoked::Subject(value),
        };
        revoke(&pool, &issuer, revoked, in_an_hour()).await?;
        slowest = slowest.max(until_refused(&world.stack, &token).await?);
        // Others of the same issuer are not meant.
        world
            .judge(&key.sign(&claims(&issuer))?)
            .await?
            .expect(200)?;
    }
    println!("refused after {slowest:?} at the latest");
    Ok(())
}

/// A key that issuer two publishes from now on, beside what it has.
fn liar_key(world: &World) -> Result<(P256, String)> {
    let key = P256::new(&unique())?;
    let (issuer, _) = &world.two;
    issuer.publish(key.public());
    Ok((key, issuer.url()))
}

#[tokio::test]
async fn a_token_of_keycloak_is_revoked_by_its_jti() -> Result<()> {
    let world = World::shared().await?;
    let pool = PgPool::connect(world.stack.database_url()?).await?;
    let (token, other) = (world.token().await?, world.token().await?);
    world.judge(&token).await?.expect(200)?;
    let own = claims_of(&token)?;
    let text = |name: &str| own[name].as_str().unwrap_or_default().to_owned();
    revoke(
        &pool,
        &text("iss"),
        Revoked::Token(&text("jti")),
        in_an_hour(),
    )
    .await?;
    until_refused(&world.stack, &token).await?;
    world.judge(&other).await?.expect(200)?;
    Ok(())
}

async fn order(stack: &Stack, order: &Value) -> Result<Reply> {
    send(stack, "application/json", order).await
}

async fn send(stack: &Stack, media_type: &str, order: &Value) -> Result<Reply> {
    let url = format!("{}/revocations", stack.runner_admin_url()?);
    let headers = headers(&[("content-type", media_type)])?;
    let body = Bytes::from(order.to_string());
    let http = Http::from_address(None);
    http.send(&Method::POST, &url, &headers, body).await
}

#[tokio::test]
async fn what_an_operator_revokes_holds_at_once_and_after_a_kill() -> Result<()> {
    let key = P256::new("k")?;
    let issuer = Liar::publishing(&[key.public()])?;
    let mut stack = trusting(&[issuer.settings()], json!({})).await?;
    let mut own = claims(&issuer.url());
    own["sid"] = json!("s1");
    let (token, other) = (key.sign(&own)?, key.sign(&claims(&issuer.url()))?);
    judge(&stack, &token).await?.expect(200)?;
    let told = order(&stack, &json!({"issuer": issuer.url(), "sid": "s1"}))
        .await?
        .expect(200)?;
    ensure!(told.body.starts_with(b"revoked everywhere"), "{told:?}");
    judge(&stack, &token).await?.refused(401, "TOKEN_INVALID")?;
    order(&stack, &json!({"issuer": issuer.url()}))
        .await?
        .expect(400)?;
    // What a page in a browser could send.
    let form = json!({"issuer": issuer.url(), "sid": "s2"});
    send(&stack, "text/plain", &form).await?.expect(415)?;

    // A runner that starts lets nobody in before it knows who is revoked.
    stack.services()?.restart_gateway().await?;
    judge(&stack, &token).await?.refused(401, "TOKEN_INVALID")?;
    judge(&stack, &other).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn without_the_directory_nobody_is_let_in_at_the_start_and_for_so_long_later() -> Result<()> {
    const STALENESS: Duration = Duration::from_secs(3);
    let key = P256::new("k")?;
    let issuer = Liar::publishing(&[key.public()])?;
    let settings = issuer.settings();
    let mut stack = Stack::start_with(move |plan| {
        plan.runner = json!({"plugins": {"jwt": {
            "issuers": [settings],
            "revocations": {"maxStalenessSeconds": STALENESS.as_secs()},
        }}});
    })
    .await?;
    let token = key.sign(&claims(&issuer.url()))?;
    judge(&stack, &token).await?.expect(200)?;
    stack.services()?.handlers().kill()?;
    let left = Instant::now();
    let unknown = async || {
        let error = judge(&stack.from_outside(), &token)
            .await?
            .refused(503, "BACKEND_UNAVAILABLE")?;
        ensure!(error["message"].to_string().contains("revoked"), "{error}");
        Ok(())
    };
    wait_for("revocations to be too old", super::SOON, unknown).await?;
    let took = left.elapsed();
    let bounds = STALENESS - Duration::from_millis(500)..STALENESS + Duration::from_secs(3);
    ensure!(bounds.contains(&took), "after {took:?}");
    stack.services()?.restart_handlers().await?;
    let back = async || {
        judge(&stack.from_outside(), &token)
            .await?
            .expect(200)
            .map(drop)
    };
    wait_for("the token to be taken again", super::SOON, back).await
}
