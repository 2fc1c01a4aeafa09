//! Rate limits. Each test has a subject and an address of its own.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_harness::api::{Call, Client};
use postern_harness::http::Reply;
use postern_harness::token::{Token, unique};
use postern_harness::wait_for;
use serde_json::json;

use super::{ANY, stack};

fn number(reply: &Reply, name: &str) -> Result<u64> {
    let text = reply.one(name)?;
    text.parse().with_context(|| format!("{name}: {text}"))
}

/// What every answer after a limiter tells: rate and what is left.
fn state(reply: &Reply) -> Result<(u64, u64)> {
    let (limit, left) = (
        number(reply, "x-ratelimit-limit")?,
        number(reply, "x-ratelimit-remaining")?,
    );
    let reset = number(reply, "x-ratelimit-reset")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(
        now <= reset + 1 && reset <= now + 61,
        "it is {now}, reset says {reset}"
    );
    let (policy, current) = (reply.one("ratelimit-policy")?, reply.one("ratelimit")?);
    ensure!(policy.contains(&format!(";q={limit};w=60")), "{policy}");
    ensure!(current.contains(&format!(";r={left};t=")), "{current}");
    ensure!(
        policy.starts_with('"') && current.starts_with('"'),
        "{policy} {current}"
    );
    Ok((limit, left))
}

#[tokio::test]
async fn each_route_counts_in_its_profile() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &["kafka", "mongo"]).await?;
    let (events, documents) = (
        format!("/v1/events/{}/publish", dev.id),
        format!("/v1/mongo/{}/collections", dev.id),
    );
    // Of the platform, of the tenant, or of nobody.
    let rows: [(Token, Method, &str, u64, u64); 10] = [
        (Token::platform("superadmin"), Method::GET, ANY, 240, 60),
        (
            Token::platform("superadmin"),
            Method::GET,
            "/v1/platform/audit",
            240,
            60,
        ),
        (
            Token::platform("superadmin"),
            Method::GET,
            "/v1/tenants",
            240,
            60,
        ),
        (
            Token::platform("superadmin"),
            Method::POST,
            "/v1/tenants",
            120,
            30,
        ),
        (
            Token::platform("superadmin"),
            Method::GET,
            "/v1/workspaces",
            240,
            60,
        ),
        (
            Token::platform("superadmin"),
            Method::POST,
            "/v1/workspaces",
            120,
            30,
        ),
        (
            Token::of_tenant(&acme.id, "tenant_admin"),
            Method::GET,
            "/v1/iam/realms",
            240,
            60,
        ),
        (
            Token::of_tenant(&acme.id, "tenant_admin"),
            Method::POST,
            &events,
            600,
            150,
        ),
        (
            Token::of_tenant(&acme.id, "tenant_admin"),
            Method::GET,
            &documents,
            240,
            60,
        ),
        // A refusal after the limiter tells as well.
        (
            Token::platform("nobody"),
            Method::GET,
            "/v1/tenants",
            240,
            60,
        ),
    ];
    for (token, method, path, rate, burst) in rows {
        let client = stack.client(&token).await?;
        let call = || {
            let call = client.call(method.clone(), path);
            if method == Method::POST {
                call.json(&json!({}))
            } else {
                call
            }
        };
        let (limit, left) = state(&call().await?).with_context(|| path.to_owned())?;
        assert_eq!((limit, left), (rate, burst - 1), "{method} {path}");
        let (_, left) = state(&call().await?)?;
        ensure!(
            left == burst - 2 || left == burst - 1,
            "{left} of {burst} are left"
        );
    }
    for (method, path, rate, burst) in [
        (Method::GET, "/health", 300, 80),
        (Method::GET, "/v1/platform/health", 300, 80),
        (Method::POST, "/v1/auth/token", 180, 40),
    ] {
        let nobody = stack.anonymous();
        let call = nobody.call(method.clone(), path);
        let call = if method == Method::POST {
            call.json(&json!({}))
        } else {
            call
        };
        assert_eq!(state(&call.await?)?, (rate, burst - 1), "{path}");
    }
    Ok(())
}

/// Sends requests until one is refused: how many passed, and the refusal.
async fn exhaust(mut call: impl FnMut() -> Call) -> Result<(u64, Reply, Duration)> {
    let start = Instant::now();
    for passed in 0..1_000 {
        let reply = call().await?;
        if reply.status == 429 {
            return Ok((passed, reply, start.elapsed()));
        }
    }
    anyhow::bail!("a thousand requests passed")
}

/// A refusal names its policy and says when to come back.
fn limited(reply: &Reply) -> Result<()> {
    reply.refused(429, "RATE_LIMITED")?;
    ensure!(number(reply, "retry-after")? >= 1, "{reply:?}");
    let (_, left) = state(reply)?;
    ensure!(left == 0, "{left} are left");
    Ok(())
}

#[tokio::test]
async fn what_is_beyond_the_burst_is_refused() -> Result<()> {
    let stack = stack().await;
    let token = Token::platform("platform_admin");
    let admin = stack.client(&token).await?;
    // The same subject from another address and with another token is the same.
    let again = stack
        .client(&token.clone().claim("jti", json!(unique())))
        .await?;
    let mut turn = [&admin, &again].into_iter().cycle();
    let (passed, refused, took) = exhaust(|| {
        let client = turn.next().unwrap_or(&admin);
        client.get("/v1/tenants?limit=1")
    })
    .await?;
    limited(&refused)?;
    let most = 60 + (240 * took.as_millis()).div_ceil(60_000) + 1;
    ensure!(
        passed >= 60 && u128::from(passed) <= most,
        "{passed} passed in {took:?}"
    );
    // Of the same subject: other profiles. Of the same profile: other subjects, and
    // the same subject of another tenant.
    admin.get("/v1/workspaces?limit=1").await?.expect(200)?;
    stack
        .platform_admin()
        .await?
        .get("/v1/tenants?limit=1")
        .await?
        .expect(200)?;
    let acme = stack.with_tenant("acme").await?;
    let namesake = Token::of_tenant(&acme.id, "tenant_admin").claim("sub", json!(token.subject()));
    let namesake = stack.client(&namesake).await?;
    namesake.get("/v1/tenants").await?.expect(200)?;
    // Asking all the while does not push the end away.
    wait_for("the bucket to fill", Duration::from_secs(5), async || {
        admin
            .get("/v1/tenants?limit=1")
            .await?
            .expect(200)
            .map(drop)
    })
    .await
}

#[tokio::test]
async fn what_was_refused_did_nothing() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    let reader = stack.platform_admin().await?;
    let new = || {
        let slug = format!("limited-{}", unique());
        json!({"slug": slug, "displayName": "L", "plan": "regulated", "adminEmail": "a@limited.example.com"})
    };
    // On a slow machine the bucket may have a place again: then that was another tenant.
    let refused = async || {
        exhaust(|| admin.post("/v1/tenants", &json!({}))).await?;
        let (body, key) = (new(), unique());
        let reply = admin.post("/v1/tenants", &body).key(&key).await?;
        limited(&reply)?;
        Ok((body, key))
    };
    let (body, key) = wait_for("a refusal", Duration::from_secs(30), refused).await?;
    let made = wait_for(
        "a place in the bucket",
        Duration::from_secs(10),
        async || {
            let reply = admin.post("/v1/tenants", &body).key(&key).await?;
            if reply.status == 429 {
                limited(&reply).unwrap();
            }
            reply.expect(201)
        },
    )
    .await?;
    ensure!(made.header("x-idempotency-replayed").is_none(), "{made:?}");
    let found = reader
        .get(&format!("/v1/tenants/{}", made.text_at("/id")?))
        .await?;
    assert_eq!(found.expect(200)?.text_at("/slug")?, body["slug"]);
    Ok(())
}

#[tokio::test]
async fn without_a_token_the_address_is_limited() -> Result<()> {
    let stack = stack().await;
    let nobody = stack.anonymous();
    let (passed, refused, _) = exhaust(|| nobody.get("/health")).await?;
    limited(&refused)?;
    ensure!(passed >= 80, "{passed} passed");
    stack.anonymous().get("/health").await?.expect(200)?;
    Ok(())
}

/// Bad tokens cost a signature check each: the address is limited before that.
#[tokio::test]
async fn an_address_is_limited_before_any_signature() -> Result<()> {
    let stack = stack().await;
    let forger = stack.anonymous().with_token(Some("a.b.c".to_owned()));
    let attack = async |forger: &Client| -> Result<Reply> {
        for _ in 0..1_000 {
            let reply = forger.get(ANY).await?;
            if reply.status == 429 {
                return Ok(reply);
            }
            reply.refused(401, "TOKEN_INVALID")?;
        }
        anyhow::bail!("a thousand forgeries by one of sixteen passed")
    };
    let all = futures::future::join_all((0..16).map(|_| attack(&forger))).await;
    for refused in all {
        limited(&refused?)?;
    }
    // Whoever comes from elsewhere is not.
    stack.platform_admin().await?.get(ANY).await?.expect(200)?;
    Ok(())
}
