//! Tokens that are given up, and tokens that are only claimed to be somebody's.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::try_join_all;
use postern_harness::api::{Client, headers};
use postern_harness::http::{Http, Reply};
use postern_harness::keycloak::Keycloak;
use postern_harness::services::AUDIENCE;
use postern_harness::token::unique;
use postern_harness::wait_for;
use postern_runner::testkit::request;
use postern_suites::runner::Runner;
use postern_wire::message::{Action, Message};
use serde_json::{Value, json};

use crate::world::{Home, KNOWN, World, bearer};

async fn revoke(world: &World, body: Value) -> Result<Reply> {
    let reply = world
        .stack
        .anonymous()
        .post("/v1/auth/revoke", &body)
        .await?;
    if reply.status == 200 {
        assert_eq!(reply.json()?, json!({}));
        assert_eq!(reply.one("cache-control")?, "no-store");
    }
    Ok(reply)
}

async fn ends(client: &Client) -> Result<()> {
    wait_for("the token to be refused", KNOWN, async || {
        let reply = client.get("/v1/workspaces").await?;
        ensure!(reply.status == 401, "{reply:?}");
        Ok(())
    })
    .await
}

/// A second runner on the same directory, of another gateway.
async fn second_runner(world: &World) -> Result<Runner> {
    let directory = world.stack.folder()?.join("run/directory.sock");
    Runner::start(&json!({
        "jwt": {"issuers": [{
            "issuer": format!("{}/realms/tenant-{{slug}}", world.keycloak_url),
            "allow": ["*"],
            "audiences": [AUDIENCE],
        }]},
        "authorize": {"directory": format!("unix:{}", directory.display())},
    }))
    .await
}

/// The status with which a runner by itself refuses a token; none: it takes it.
async fn refusal(runner: &Runner, token: &str) -> Result<Option<u16>> {
    let (mut gateway, route) = runner.asking(&[("jwt", "{}")]).await?;
    let asked = request("GET", "/v1/workspaces").header("Authorization", format!("Bearer {token}"));
    match gateway.call(route, &asked).await? {
        Message::HttpReqCallResp {
            action: Some(Action::Stop(stop)),
            ..
        } => Ok(Some(stop.status)),
        Message::HttpReqCallResp { .. } => Ok(None),
        other => anyhow::bail!("answered {other:?}"),
    }
}

async fn ends_at(runner: &Runner, token: &str) -> Result<()> {
    wait_for("the second runner to refuse it", KNOWN, async || {
        let refused = refusal(runner, token).await?;
        ensure!(refused == Some(401), "{refused:?}");
        Ok(())
    })
    .await
}

/// Whoever revokes, and wherever: each runner is told.
#[tokio::test]
async fn a_token_ends_at_every_runner() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("everywhere").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let runner = second_runner(world).await?;
    let taken = async || -> Result<(String, Client)> {
        let (tokens, client) = log_in(world, &home, &password).await?;
        let token = tokens.text_at("/access_token")?;
        // A tenant that the directory has only just told of may take a moment.
        wait_for("the second runner to take it", KNOWN, async || {
            let refused = refusal(&runner, &token).await?;
            ensure!(refused.is_none(), "{refused:?}");
            Ok(())
        })
        .await?;
        Ok((token, client))
    };
    // By the API, whose runner is the first.
    let (token, client) = taken().await?;
    revoke(world, json!({"token": token})).await?.expect(200)?;
    ends_at(&runner, &token).await?;
    ends(&client).await?;

    // By an operator, at the second.
    let (token, client) = taken().await?;
    let claims = token.split('.').nth(1).context("a token has three parts")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let order = json!({"issuer": claims["iss"], "sid": claims["sid"]}).to_string();
    let url = format!("{}/revocations", runner.admin_url());
    let told = Http::from_address(None)
        .send(
            &http::Method::POST,
            &url,
            &headers(&[("content-type", "application/json")])?,
            Bytes::from(order),
        )
        .await?
        .expect(200)?;
    ensure!(told.body.starts_with(b"revoked everywhere"), "{told:?}");
    ends_at(&runner, &token).await?;
    ends(&client).await
}

/// Tokens of somebody, and a client with the access token.
async fn log_in(world: &World, home: &Home<'_>, password: &str) -> Result<(Reply, Client)> {
    let tokens = world
        .token(home.log_in("ada", password))
        .await?
        .expect(200)?;
    let client = bearer(&world.stack.anonymous(), &tokens)?;
    client.get("/v1/workspaces").await?.expect(200)?;
    Ok((tokens, client))
}

#[tokio::test]
async fn either_token_ends_the_session() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("ends").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let (_, other) = log_in(world, &home, &password).await?;
    for name in ["access_token", "refresh_token"] {
        let (tokens, client) = log_in(world, &home, &password).await?;
        let token = tokens.text_at(&format!("/{name}"))?;
        revoke(world, json!({"token": token, "tokenTypeHint": name}))
            .await?
            .expect(200)?;
        ends(&client).await?;
        let refresh =
            json!({"tenant": home.tenant.slug, "refreshToken": tokens.text_at("/refresh_token")?});
        let refreshed = world
            .stack
            .anonymous()
            .post("/v1/auth/refresh", &refresh)
            .await?;
        refreshed.refused(401, "INVALID_CREDENTIALS")?;
        // Once more: there is nothing left to end.
        revoke(world, json!({"token": token})).await?.expect(200)?;
    }
    other.get("/v1/workspaces").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_clients_own_token_ends_alone() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("alone").await?;
    let reads = json!({"roles": ["tenant_operator"]});
    let (id, secret) = home.robot(&["workspaces:read"], &reads).await?;
    let body = json!({"grantType": "client_credentials", "tenant": home.tenant.slug,
        "clientId": id, "clientSecret": secret});
    let first = world.token(body.clone()).await?.expect(200)?;
    let second = world.token(body).await?.expect(200)?;
    let [first_client, second_client] = [
        bearer(&world.stack.anonymous(), &first)?,
        bearer(&world.stack.anonymous(), &second)?,
    ];
    revoke(world, json!({"token": first.text_at("/access_token")?}))
        .await?
        .expect(200)?;
    ends(&first_client).await?;
    second_client.get("/v1/workspaces").await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_confidential_clients_refresh_token_needs_the_client() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("secretive").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let client =
        json!({"clientId": "backend", "grantTypes": ["password"], "scopes": ["workspaces:read"]});
    let made = home
        .tenant
        .admin
        .post(&home.path("clients"), &client)
        .await?
        .expect(201)?;
    let secret = made.text_at("/clientSecret")?;
    let mut log_in = home.log_in("ada", &password);
    log_in["clientId"] = json!("backend");
    log_in["clientSecret"] = json!(secret);
    let tokens = world.token(log_in).await?.expect(200)?;
    let ada = bearer(&world.stack.anonymous(), &tokens)?;
    let token = tokens.text_at("/refresh_token")?;
    for (given, answer) in [
        (None, 401),
        (Some("wrong"), 401),
        (Some(secret.as_str()), 200),
    ] {
        ada.get("/v1/workspaces").await?.expect(200)?;
        let body =
            json!({"token": token, "clientId": given.map(|_| "backend"), "clientSecret": given});
        revoke(world, body).await?.expect(answer)?;
    }
    ends(&ada).await
}

/// What an acknowledged token was signed with is known, whoever names keys that are none.
#[tokio::test]
async fn what_is_acknowledged_ends_also_while_keys_are_invented() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("invented").await?;
    let keycloak = Keycloak::shared().await?;
    let password = home.user(keycloak, "ada", &["tenant_admin"]).await?;
    let invented = || {
        let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let header = part(json!({"alg": "RS256", "kid": unique()}));
        let issuer = format!("{}/realms/{}", world.keycloak_url, home.realm);
        let claims = part(json!({"iss": issuer, "typ": "Bearer", "exp": 4_000_000_000_u32}));
        revoke(world, json!({"token": format!("{header}.{claims}.c2ln")}))
    };
    let replies = try_join_all((0..20).map(|_| invented())).await?;
    // Who asked Keycloak knows; the others came while it was asked, or just after.
    let (known, unknown): (Vec<_>, Vec<_>) = replies.iter().partition(|one| one.status == 200);
    ensure!(!known.is_empty() && !unknown.is_empty(), "{replies:?}");
    for reply in unknown {
        reply.refused(503, "BACKEND_UNAVAILABLE")?;
        assert!(reply.one("retry-after")?.parse::<u32>()? >= 1);
    }

    keycloak
        .admin()
        .await?
        .rotate_keys(&home.realm, "RS256")
        .await?;
    let (tokens, client) = log_in(world, &home, &password).await?;
    let token = tokens.text_at("/access_token")?;
    wait_for("a key that was made since", KNOWN, async || {
        let reply = revoke(world, json!({"token": token})).await?;
        reply.expect(200).map(drop)
    })
    .await?;
    ends(&client).await
}

#[tokio::test]
async fn nobody_ends_what_they_do_not_hold() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("forged").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let (tokens, client) = log_in(world, &home, &password).await?;
    let spoilt = |name: &str| -> Result<String> {
        let token = tokens.text_at(&format!("/{name}"))?;
        let (front, signature) = token.rsplit_once('.').unwrap();
        let signature: String = signature.chars().rev().collect();
        Ok(format!("{front}.{signature}"))
    };
    for token in [
        spoilt("access_token")?,
        spoilt("refresh_token")?,
        "no token".into(),
        "a.b.c".into(),
        client.token().unwrap_or_default().replace('.', ""),
    ] {
        revoke(world, json!({"token": token})).await?.expect(200)?;
    }
    for body in [
        json!({}),
        json!({"token": 7}),
        json!({"token": ""}),
        json!({"token": "t", "other": 1}),
    ] {
        revoke(world, body)
            .await?
            .refused(400, "VALIDATION_ERROR")?;
    }
    // Longer than a revocation needs to be known.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    client.get("/v1/workspaces").await?.expect(200)?;
    Ok(())
}
