//! Log-ins in each way there is, and the whole chain with the tokens they give.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::Method;
use postern_harness::api::headers;
use postern_harness::http::Http;
use postern_harness::keycloak::{CLIENT, Keycloak};
use postern_harness::token::unique;
use serde_json::json;

use crate::world::{ROOT_PASSWORD, World, bearer};

#[tokio::test]
async fn a_tenants_people_log_in_and_work() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("people").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let tokens = world
        .token(home.log_in("ada", &password))
        .await?
        .expect(200)?;
    assert_eq!(tokens.one("cache-control")?, "no-store");
    assert_eq!(tokens.one("pragma")?, "no-cache");
    assert_eq!(tokens.text_at("/token_type")?, "Bearer");
    let answered: Vec<String> = tokens
        .json()?
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    for name in ["session_state", "not-before-policy"] {
        assert!(!answered.iter().any(|one| one == name), "{answered:?}");
    }

    // The token names the tenant: the caller need not.
    let ada = bearer(&world.stack.anonymous(), &tokens)?;
    let body = json!({"slug": "made-by-ada", "displayName": "A", "capabilities": []});
    let made = ada.post("/v1/workspaces", &body).await?.expect(201)?;
    assert_eq!(made.text_at("/tenantId")?, home.tenant.id);
    ada.get("/v1/tenants").await?.expect(200)?;

    let refreshed =
        json!({"tenant": home.tenant.slug, "refreshToken": tokens.text_at("/refresh_token")?});
    let refreshed = world
        .stack
        .anonymous()
        .post("/v1/auth/refresh", &refreshed)
        .await?
        .expect(200)?;
    assert_eq!(refreshed.one("cache-control")?, "no-store");
    let ada = bearer(&ada, &refreshed)?;
    ada.get("/v1/workspaces").await?.expect(200)?;

    // No role, no right; whoever the client is.
    let password = home.user(Keycloak::shared().await?, "bob", &[]).await?;
    let tokens = world
        .token(home.log_in("bob", &password))
        .await?
        .expect(200)?;
    let bob = bearer(&ada, &tokens)?;
    bob.get("/v1/workspaces")
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}

#[tokio::test]
async fn the_platforms_people_have_a_realm_apart() -> Result<()> {
    let world = World::shared().await?;
    let (id, secret) = CLIENT;
    let log_in = |tenant: Option<&str>| {
        json!({"grantType": "password", "tenant": tenant, "username": "root", "password": ROOT_PASSWORD,
            "clientId": id, "clientSecret": secret})
    };
    let tokens = world.token(log_in(None)).await?.expect(200)?;
    let root = bearer(&world.stack.anonymous(), &tokens)?;
    let body = json!({"slug": format!("by-root-{}", unique()), "displayName": "R", "plan": "starter",
        "adminEmail": "a@example.com"});
    let made = root.post("/v1/tenants", &body).await?.expect(201)?;
    root.get(&format!("/v1/tenants/{}", made.text_at("/id")?))
        .await?
        .expect(200)?;
    let other = log_in(Some("nobody-here"));
    world
        .token(other)
        .await?
        .refused(401, "INVALID_CREDENTIALS")?;
    Ok(())
}

#[tokio::test]
async fn a_client_acts_for_itself() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("robots").await?;
    let reads = json!({"roles": ["tenant_operator"]});
    let (id, secret) = home.robot(&["workspaces:read"], &reads).await?;
    let anonymous = world.stack.anonymous();
    let json = json!({"grantType": "client_credentials", "tenant": home.tenant.slug,
        "clientId": id, "clientSecret": secret});
    let by_json = anonymous.post("/v1/auth/token", &json).await?.expect(200)?;

    // As any OAuth library does it: a form, and the client in the header.
    let form = format!("grant_type=client_credentials&tenant={}", home.tenant.slug);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    let by_form = anonymous
        .call(Method::POST, "/v1/auth/token")
        .body(form.clone())
        .set("content-type", "application/x-www-form-urlencoded")
        .set("authorization", &basic)
        .await?
        .expect(200)?;
    for tokens in [&by_json, &by_form] {
        let robot = bearer(&anonymous, tokens)?;
        robot.get("/v1/workspaces").await?.expect(200)?;
        robot
            .get("/v1/tenants")
            .await?
            .refused(403, "SCOPE_DENIED")?;
    }
    let both = format!("{form}&client_secret=x");
    let refused = anonymous
        .call(Method::POST, "/v1/auth/token")
        .body(both)
        .set("content-type", "application/x-www-form-urlencoded")
        .set("authorization", &basic)
        .await?;
    refused.refused(400, "VALIDATION_ERROR")?;
    Ok(())
}

const CALLBACK: &str = "http://127.0.0.1/callback";

#[tokio::test]
async fn a_code_is_good_once_and_for_who_asked() -> Result<()> {
    let world = World::shared().await?;
    let home = world.tenant("codes").await?;
    let password = home
        .user(Keycloak::shared().await?, "ada", &["tenant_admin"])
        .await?;
    let client = json!({"clientId": "app", "publicClient": true, "redirectUris": [CALLBACK],
        "grantTypes": ["authorization_code"], "scopes": ["workspaces:read"]});
    let made = home
        .tenant
        .admin
        .post(&home.path("clients"), &client)
        .await?
        .expect(201)?;
    assert!(made.json()?.get("clientSecret").is_none());

    let verifier = "a-verifier-of-forty-three-characters-at-least-0";
    let exchange = |code: &str, verifier: &str| {
        json!({"grantType": "authorization_code", "tenant": home.tenant.slug, "clientId": "app",
            "code": code, "redirectUri": CALLBACK, "codeVerifier": verifier})
    };
    let issuer = format!("{}/realms/{}", world.keycloak_url, home.realm);
    let code = code(&issuer, verifier, &password).await?;
    let tokens = world.token(exchange(&code, verifier)).await?.expect(200)?;
    let ada = bearer(&world.stack.anonymous(), &tokens)?;
    ada.get("/v1/workspaces").await?.expect(200)?;
    world
        .token(exchange(&code, verifier))
        .await?
        .refused(401, "INVALID_CREDENTIALS")?;

    let code = self::code(&issuer, verifier, &password).await?;
    let other = verifier.replace('a', "b");
    world
        .token(exchange(&code, &other))
        .await?
        .refused(401, "INVALID_CREDENTIALS")?;
    Ok(())
}

/// What a browser does: Keycloak's page, its form, and the way back.
async fn code(issuer: &str, verifier: &str, password: &str) -> Result<String> {
    let http = Http::from_address(None);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest);
    let page = format!(
        "{issuer}/protocol/openid-connect/auth?client_id=app&response_type=code&scope=openid\
         &redirect_uri={CALLBACK}&code_challenge={challenge}&code_challenge_method=S256"
    );
    let page = http.get(&page).await?.expect(200)?;
    let cookies: Vec<&str> = page
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    let text = String::from_utf8_lossy(&page.body);
    let action = text
        .split("action=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let action = action
        .context("the page has no form")?
        .replace("&amp;", "&");
    let headers = headers(&[
        ("content-type", "application/x-www-form-urlencoded"),
        ("cookie", &cookies.join("; ")),
    ])?;
    let form = format!("username=ada&password={password}");
    let back = http
        .send(&Method::POST, &action, &headers, form.into())
        .await?
        .expect(302)?;
    let location = back.one("location")?;
    let code = location.split("code=").nth(1).context("there is no code")?;
    Ok(code.split('&').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_is_malformed_never_reaches_keycloak() -> Result<()> {
    let world = World::shared().await?;
    for (body, field) in [
        (json!({}), "grantType"),
        (json!({"grantType": "implicit"}), "grantType"),
        (
            json!({"grantType": "password", "username": "a"}),
            "password",
        ),
        (
            json!({"grantType": "password", "username": "a", "password": ""}),
            "password",
        ),
        (
            json!({"grantType": "password", "username": "a", "password": "p\u{0}"}),
            "password",
        ),
        (
            json!({"grantType": "password", "username": "a", "password": "p", "tenant": "../master"}),
            "tenant",
        ),
        (
            json!({"grantType": "password", "username": "a", "password": "p", "realm": "master"}),
            "realm",
        ),
        (json!({"grantType": "client_credentials"}), "clientSecret"),
        (
            json!({"grantType": "authorization_code", "code": "c", "redirectUri": "r", "codeVerifier": "v"}),
            "codeVerifier",
        ),
        (json!({"grantType": "refresh_token"}), "refreshToken"),
    ] {
        let error = world
            .token(body.clone())
            .await?
            .refused(400, "VALIDATION_ERROR")?;
        let details = error["details"].to_string();
        assert!(
            details.contains(&format!("\"{field}\"")),
            "{body}: {details}"
        );
    }
    let anonymous = world.stack.anonymous();
    let post = |text: &str, media: &str| {
        anonymous
            .call(Method::POST, "/v1/auth/token")
            .body(text.to_owned())
            .set("content-type", media)
    };
    let form = "application/x-www-form-urlencoded";
    for (text, media) in [
        ("[]", "application/json"),
        ("null", "application/json"),
        ("{\"grantType\":", "application/json"),
        ("grant_type=password&grant_type=password", form),
        ("grant_type=%ff", form),
        ("", form),
    ] {
        post(text, media).await?.refused(400, "VALIDATION_ERROR")?;
    }
    post("<a/>", "application/xml")
        .await?
        .refused(415, "UNSUPPORTED_MEDIA_TYPE")?;
    Ok(())
}

#[tokio::test]
async fn the_signup_policy_is_told() -> Result<()> {
    let world = World::shared().await?;
    let policy = world
        .stack
        .anonymous()
        .get("/v1/auth/signups/policy")
        .await?
        .expect(200)?;
    assert_eq!(
        policy.json()?,
        json!({"mode": "invite", "allowedDomains": []})
    );
    Ok(())
}
