//! Who is let in: tokens (API, "Every request", `Authorization`).

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use postern_harness::api::Client;
use postern_harness::http::{Http, Reply};
use postern_harness::token::Token;
use postern_harness::wait_for;
use postern_suites::envelope::refused_by_anyone;
use serde_json::{Value, json};

use super::{ANY, SOON, stack};

async fn client(token: Token) -> Result<Client> {
    stack().await.client(&token).await
}

fn admin() -> Token {
    Token::platform("platform_admin")
}

fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// A 401 that says with which error, as RFC 6750 has it.
fn unauthorized(reply: &Reply, code: &str) -> Result<()> {
    reply.refused(401, code)?;
    let challenge = reply.one("www-authenticate")?;
    ensure!(
        challenge.starts_with("Bearer ") && challenge.contains("error=\""),
        "the challenge is {challenge}"
    );
    Ok(())
}

#[tokio::test]
async fn every_algorithm_of_the_contract_is_accepted() -> Result<()> {
    for (key, algorithm) in [
        ("rsa", "RS256"),
        ("rsa-any", "RS256"),
        ("rsa-any", "RS384"),
        ("rsa-any", "RS512"),
        ("rsa-any", "PS256"),
        ("rsa-any", "PS384"),
        ("rsa-any", "PS512"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("ed25519", "EdDSA"),
    ] {
        let reply = client(admin().signed(key, algorithm))
            .await?
            .get(ANY)
            .await?;
        ensure!(reply.status == 200, "{key} {algorithm}: {reply:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_token_nobody_gets_in() -> Result<()> {
    let nobody = stack().await.anonymous();
    for path in [
        ANY,
        "/v1/tenants",
        "/v1/workspaces/x",
        "/v1/iam/realms",
        "/v1/postgres/x/tables",
    ] {
        let reply = nobody.get(path).await?;
        unauthorized(&reply, "TOKEN_MISSING")?;
        // As the contract has it; RFC 6750, 3.1 would leave the error out here.
        let challenge = reply.one("www-authenticate")?;
        ensure!(
            challenge.contains("error=\"invalid_request\""),
            "{challenge}"
        );
    }
    // What is not a bearer token is none, or a bad one.
    for value in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "Token abc", ""] {
        let reply = nobody.get(ANY).set("authorization", value).await?;
        unauthorized(&reply, "TOKEN_MISSING")
            .or_else(|_| unauthorized(&reply, "TOKEN_INVALID"))
            .with_context(|| format!("{value:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn the_scheme_is_read_whatever_its_case() -> Result<()> {
    let admin = client(admin()).await?;
    for scheme in ["bearer", "BEARER"] {
        let value = format!("{scheme} {}", admin.token().unwrap());
        admin
            .get(ANY)
            .set("authorization", &value)
            .await?
            .expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_in_the_query_is_none() -> Result<()> {
    let token = stack().await.sign(&admin()).await?;
    let nobody = stack().await.anonymous();
    let reply = nobody.get(&format!("{ANY}?access_token={token}")).await?;
    unauthorized(&reply, "TOKEN_MISSING")
}

#[tokio::test]
async fn clocks_may_differ_by_half_a_minute() -> Result<()> {
    client(admin().expired_for(10))
        .await?
        .get(ANY)
        .await?
        .expect(200)?;
    let expired = client(admin().expired_for(60)).await?.get(ANY).await?;
    unauthorized(&expired, "TOKEN_EXPIRED")?;
    let starts_in = |seconds| client(admin().claim("nbf", json!(seconds_from_now(seconds))));
    starts_in(15).await?.get(ANY).await?.expect(200)?;
    unauthorized(&starts_in(120).await?.get(ANY).await?, "TOKEN_INVALID")
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() -> Result<()> {
    for (what, token) in [
        (
            "another issuer",
            admin().claim("iss", json!("https://issuer.example.com")),
        ),
        ("no issuer", admin().without("iss")),
        (
            "another audience",
            admin().claim("aud", json!("somebody-else")),
        ),
        (
            "other audiences",
            admin().claim("aud", json!(["somebody-else", "nobody"])),
        ),
        ("no audience", admin().without("aud")),
        ("no expiry", admin().without("exp")),
        (
            "an expiry that is text",
            admin().claim("exp", json!("tomorrow")),
        ),
        (
            "a start that is text",
            admin().claim("nbf", json!("yesterday")),
        ),
        ("no subject", admin().without("sub")),
        ("a subject that is a number", admin().claim("sub", json!(7))),
        (
            "a tenant that is a list",
            admin().claim("tenant_id", json!([])),
        ),
    ] {
        let reply = client(token).await?.get(ANY).await?;
        unauthorized(&reply, "TOKEN_INVALID").with_context(|| what.to_owned())?;
    }
    let several = admin().claim("aud", json!(["somebody-else", "postern-api"]));
    client(several).await?.get(ANY).await?.expect(200)?;
    Ok(())
}

fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// The issuer's published RSA key.
async fn public_key(token: &str) -> Result<Value> {
    let claims = token.split('.').nth(1).context("a token has claims")?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims)?)?;
    let issuer = claims["iss"].as_str().context("it has an issuer")?;
    let url = format!("{issuer}/protocol/openid-connect/certs");
    let keys = Http::from_address(None)
        .get(&url)
        .await?
        .expect(200)?
        .json()?;
    let keys = keys["keys"].as_array().cloned().unwrap_or_default();
    let rsa = keys.into_iter().find(|key| key["kid"] == "rsa");
    rsa.context("the issuer publishes the key rsa")
}

/// The old trick: a verifier that takes the header's word for the algorithm
/// checks an HMAC with the public key for its secret.
#[tokio::test]
async fn the_public_key_is_no_secret() -> Result<()> {
    let stack = stack().await;
    let good = stack.sign(&admin()).await?;
    let claims = good.split('.').nth(1).context("a token has claims")?;
    let key = public_key(&good).await?;
    let modulus = key["n"].as_str().context("an RSA key has a modulus")?;
    let der = BASE64.decode(modulus)?;
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64_STANDARD.encode(&der)
    );
    let secrets = [
        der,
        modulus.as_bytes().to_vec(),
        key.to_string().into_bytes(),
        pem.into_bytes(),
    ];
    for secret in secrets {
        for (name, algorithm) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let header = encode(&json!({"alg": name, "kid": "rsa", "typ": "JWT"}));
            let signed = format!("{header}.{claims}");
            let tag = hmac::sign(&hmac::Key::new(algorithm, &secret), signed.as_bytes());
            let token = format!("{signed}.{}", BASE64.encode(tag));
            let reply = stack.anonymous().with_token(Some(token)).get(ANY).await?;
            unauthorized(&reply, "TOKEN_INVALID")?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn signatures_that_do_not_hold_are_refused() -> Result<()> {
    let stack = stack().await;
    let good = stack.sign(&admin()).await?;
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the token has not three parts");
    };
    let other = encode(&json!({"sub": "root", "realm_access": {"roles": ["superadmin"]}}));
    let with = |header: Value| format!("{}.{claims}.{signature}", encode(&header));
    let sign = async |token: Token| stack.sign(&token).await;
    let foreign = || admin().signed("foreign", "RS256");
    for (what, token) in [
        ("other claims", format!("{header}.{other}.{signature}")),
        ("no signature", format!("{header}.{claims}.")),
        (
            "half a signature",
            format!("{header}.{claims}.{}", &signature[..signature.len() / 2]),
        ),
        ("two parts", format!("{header}.{claims}")),
        ("four parts", format!("{good}.{signature}")),
        (
            "algorithm none",
            format!("{}.{claims}.", encode(&json!({"alg": "none"}))),
        ),
        (
            "algorithm none of a kid",
            with(json!({"alg": "none", "kid": "rsa"})),
        ),
        ("no algorithm", with(json!({"kid": "rsa"}))),
        (
            "an algorithm nobody knows",
            with(json!({"alg": "XX256", "kid": "rsa"})),
        ),
        (
            "another algorithm",
            with(json!({"alg": "RS512", "kid": "rsa-any"})),
        ),
        (
            "a kid that nobody has",
            with(json!({"alg": "RS256", "kid": "nobody"})),
        ),
        (
            "a kid that is a path",
            with(json!({"alg": "RS256", "kid": "../../etc/passwd"})),
        ),
        (
            "a key of its own",
            with(json!({"alg": "RS256", "jwk": public_key(&good).await?})),
        ),
        ("rubbish", "rubbish".to_owned()),
        ("dots", "..".to_owned()),
        ("rubbish in three parts", "a.b.c".to_owned()),
        ("a foreign key", sign(foreign()).await?),
        (
            "a foreign key of no name",
            sign(foreign().key_id(None)).await?,
        ),
        (
            "a foreign key under a known name",
            sign(foreign().key_id(Some("rsa"))).await?,
        ),
        (
            "a key of another kind under a known name",
            sign(admin().signed("p256", "ES256").key_id(Some("rsa"))).await?,
        ),
        (
            "an algorithm for which the key is not published",
            sign(admin().signed("rsa", "PS256")).await?,
        ),
    ] {
        let reply = stack.anonymous().with_token(Some(token)).get(ANY).await?;
        unauthorized(&reply, "TOKEN_INVALID").with_context(|| what.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_as_long_as_a_book_is_refused() -> Result<()> {
    let stack = stack().await;
    let long = admin().claim("padding", json!("x".repeat(40_000)));
    let reply = stack.client(&long).await?.get(ANY).await?;
    let codes = ["HEADERS_TOO_LARGE", "VALIDATION_ERROR", "TOKEN_INVALID"];
    refused_by_anyone(&reply, &[400, 401, 431], &codes)?;
    // One of some length is read like any other.
    let roles: Vec<String> = (0..100)
        .map(|n| format!("role-of-some-length-{n}"))
        .collect();
    let many = admin().claim("realm_access", json!({"roles": roles}));
    stack.client(&many).await?.get(ANY).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_token_that_was_good_once_is_not_good_for_ever() -> Result<()> {
    // It is in the cache of verified tokens when its leeway ends.
    let soon = client(admin().expired_for(28)).await?;
    soon.get(ANY).await?.expect(200)?;
    wait_for("the token to expire", SOON, async || {
        unauthorized(&soon.get(ANY).await?, "TOKEN_EXPIRED")
    })
    .await
}
