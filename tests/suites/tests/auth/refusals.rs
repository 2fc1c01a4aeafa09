//! Credentials that are no good: nobody learns which part of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::HeaderMap;
use postern_harness::http::Reply;
use postern_harness::keycloak::Keycloak;
use postern_harness::token::unique;
use serde_json::{Value, json};

use crate::world::{BURST, Home, World};

/// Of each kind.
const CALLS: usize = 200;
/// At once: two cores hash one password in 140 ms, and the others wait for it.
const AT_ONCE: usize = 2;
const USERS: usize = 10;

/// Without what differs between any two answers.
fn comparable(reply: &Reply) -> Result<(HeaderMap, Value)> {
    let mut headers = reply.headers.clone();
    for name in ["date", "x-correlation-id"] {
        headers.remove(name);
    }
    // How much is left of a limit depends on who asked before.
    for (name, value) in &mut headers {
        if name.as_str().contains("ratelimit") {
            *value = "…".parse()?;
        }
    }
    let mut body = reply.json()?;
    for field in ["correlationId", "timestamp"] {
        body["error"][field] = Value::Null;
    }
    Ok((headers, body))
}

#[tokio::test]
async fn every_refusal_looks_the_same() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("alike").await?;
    let password = home.user(Keycloak::shared().await?, "ada", &[]).await?;
    let invited = json!({"email": "invited@example.com"});
    home.tenant
        .admin
        .post(&home.path("users"), &invited)
        .await?
        .expect(201)?;
    let with = |name: &str, value: &str| {
        let mut body = home.log_in("ada", &password);
        body[name] = json!(value);
        body
    };
    let wrong = world.token(home.log_in("ada", "wrong")).await?;
    wrong.refused(401, "INVALID_CREDENTIALS")?;
    assert_eq!(wrong.one("cache-control")?, "no-store");
    assert!(wrong.one("www-authenticate")?.starts_with("Bearer"));
    for (what, body) in [
        ("an unknown user", home.log_in("nobody", "wrong")),
        (
            "who has no password",
            home.log_in("invited@example.com", "wrong"),
        ),
        ("an unknown tenant", with("tenant", "no-such-tenant")),
        ("an unknown client", with("clientId", "no-such-client")),
        (
            "a client's wrong secret",
            json!({"grantType": "client_credentials", "tenant": home.tenant.slug,
            "clientId": "postern", "clientSecret": "wrong"}),
        ),
        (
            "a made-up code",
            json!({"grantType": "authorization_code", "tenant": home.tenant.slug, "code": "x.y.z",
            "redirectUri": "http://127.0.0.1/", "codeVerifier": "v".repeat(43)}),
        ),
        (
            "a made-up refresh token",
            json!({"grantType": "refresh_token", "tenant": home.tenant.slug, "refreshToken": "x.y.z"}),
        ),
        ("an unknown scope", with("scope", "no-such-scope")),
    ] {
        let reply = world.token(body).await?;
        assert_eq!(reply.status, 401, "{what}: {reply:?}");
        assert_eq!(comparable(&reply)?, comparable(&wrong)?, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("times").await?;
    for at in 0..USERS {
        home.user(Keycloak::shared().await?, &format!("user-{at}"), &[])
            .await?;
    }
    let home = &home;
    let timed = async |name: String| -> Result<Duration> {
        // From an address of its own: a limit's answer would be a fast one.
        let client = world.stack.anonymous();
        let began = Instant::now();
        let reply = client
            .post("/v1/auth/token", &home.log_in(&name, "wrong"))
            .await?;
        let took = began.elapsed();
        reply.refused(401, "INVALID_CREDENTIALS")?;
        Ok(took)
    };
    // Turn by turn, so that whatever else the machine does meets both alike.
    let pairs: Vec<(Duration, Duration)> = stream::iter(0..CALLS)
        .map(|at| async move {
            let wrong = timed(format!("user-{}", at % USERS)).await?;
            let unknown = timed(format!("nobody-{}", unique())).await?;
            anyhow::Ok((wrong, unknown))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let wrong = median(pairs.iter().map(|(wrong, _)| *wrong).collect());
    let unknown = median(pairs.iter().map(|(_, unknown)| *unknown).collect());
    println!("medians of {CALLS}: wrong password {wrong:?}, unknown user {unknown:?}");
    let (less, more) = (wrong.min(unknown), wrong.max(unknown));
    assert!(
        more.as_secs_f64() <= less.as_secs_f64() * 1.1,
        "{wrong:?} and {unknown:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_name_is_limited_whatever_address_asks() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("guessed").await?;
    let home: &Home<'_> = &home;
    let guess = async |_| -> Result<Reply> {
        let body = json!({"grantType": "client_credentials", "tenant": home.tenant.slug,
            "clientId": "guessed", "clientSecret": unique()});
        // Each from an address of its own.
        world.token(body).await
    };
    let replies: Vec<Reply> = stream::iter(0..BURST + 10)
        .map(guess)
        .buffer_unordered(10)
        .try_collect()
        .await?;
    let (limited, refused): (Vec<&Reply>, Vec<&Reply>) =
        replies.iter().partition(|reply| reply.status == 429);
    assert!(
        !limited.is_empty(),
        "{BURST} guesses and ten more all passed"
    );
    for reply in limited {
        reply.refused(429, "RATE_LIMITED")?;
        assert!(reply.one("retry-after")?.parse::<u32>()? >= 1);
    }
    assert!(refused.len() >= BURST);
    for reply in refused {
        reply.refused(401, "INVALID_CREDENTIALS")?;
    }
    Ok(())
}
