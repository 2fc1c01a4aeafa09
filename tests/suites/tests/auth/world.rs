//! A stack whose handlers stand before a Keycloak, and whose runner trusts its realms.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use postern_harness::api::Client;
use postern_harness::http::{Http, Reply};
use postern_harness::keycloak::{Keycloak, Realm, User};
use postern_harness::services::{AUDIENCE, Plan};
use postern_harness::stack::{Stack, Tenant};
use postern_harness::token::{Token, unique};
use postern_harness::wait_for;
use postern_suites::described::described;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// A realm takes seconds, one after the other; a busy machine takes its time.
const REALM_LIMIT: Duration = Duration::from_secs(180);
/// Within this every runner knows of a change.
pub(crate) const KNOWN: Duration = Duration::from_secs(5);

/// Of the platform's own `root`.
pub(crate) const ROOT_PASSWORD: &str = "password-of-root";

/// Tries of one name that a test may make at once.
pub(crate) const BURST: usize = 30;

/// Keycloak and a stack before it.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) keycloak_url: String,
}

impl World {
    /// That of this test process.
    pub(crate) async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<World, String>> = OnceCell::const_new();
        let start = async || Self::before(Keycloak::shared().await?).await;
        SHARED
            .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
            .await
            .as_ref()
            .map_err(|told| anyhow!("{told}"))
    }

    /// A stack before this server.
    pub(crate) async fn before(keycloak: &Keycloak) -> Result<Self> {
        let admin = keycloak.admin().await?;
        let client = format!("postern-handlers-{}", unique());
        let secret = admin.service_account(&client).await?;
        let platform = format!("platform-{}", unique());
        let root = User::new("root", ROOT_PASSWORD, &["platform_admin"]);
        admin.create(&Realm::new(&platform).user(root)).await?;
        let url = keycloak.url();
        let stack = Stack::start_with(|plan| {
            let secret_file = plan.data.join("keycloak-secret");
            std::fs::write(&secret_file, secret).unwrap();
            plan.handlers = json!({
                "auth": {
                    "keycloak": {"url": url, "clientId": client, "secretFile": secret_file},
                    "realms": {"platform": platform},
                    "attempts": {"rate": 60, "burst": BURST},
                },
            });
            plan.runner = json!({"plugins": {"jwt": {"issuers": issuers(plan, &url, &platform)}}});
        })
        .await?;
        described(&stack).await?;
        Ok(Self {
            stack,
            keycloak_url: url,
        })
    }

    /// A tenant of the `growth` plan with its realm.
    pub(crate) async fn tenant(&self, name: &str) -> Result<Home<'_>> {
        let home = self.tenant_without_realm(name).await?;
        home.is_there(&self.keycloak_url).await?;
        Ok(home)
    }

    /// One whose realm may not be there yet.
    pub(crate) async fn tenant_without_realm(&self, name: &str) -> Result<Home<'_>> {
        let tenant = self.stack.with_tenant(name).await?;
        Ok(Home {
            realm: format!("tenant-{}", tenant.slug),
            tenant,
        })
    }

    /// Asks for a token as JSON, without a token.
    pub(crate) async fn token(&self, body: Value) -> Result<Reply> {
        self.stack.anonymous().post("/v1/auth/token", &body).await
    }
}

/// The development issuer, the platform's realm, and every realm of a tenant.
fn issuers(plan: &Plan, keycloak: &str, platform: &str) -> Value {
    json!([
        {
            "issuer": plan.issuer(),
            "audiences": [AUDIENCE],
            "jwksUri": format!("{}/protocol/openid-connect/certs", plan.issuer()),
        },
        {"issuer": format!("{keycloak}/realms/{platform}"), "audiences": [AUDIENCE]},
        {
            "issuer": format!("{keycloak}/realms/tenant-{{slug}}"),
            "allow": ["*"],
            "audiences": [AUDIENCE],
        },
    ])
}

/// A tenant and its realm.
pub(crate) struct Home<'w> {
    pub(crate) tenant: Tenant<'w>,
    pub(crate) realm: String,
}

impl Home<'_> {
    /// `/v1/iam/realms/<realm>/<rest>`
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/iam/realms/{}/{rest}", self.realm)
    }

    /// Waits until the realm is open, asking Keycloak itself: the API limits who asks often.
    pub(crate) async fn is_there(&self, keycloak: &str) -> Result<()> {
        let http = Http::from_address(None);
        let realm = format!("{keycloak}/realms/{}", self.realm);
        wait_for("the tenant's realm", REALM_LIMIT, async || {
            let reply = http.get(&realm).await?;
            if reply.status != 200 {
                // Keycloak works on it: who asks all the time keeps it from that.
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            reply.expect(200).map(drop)
        })
        .await
    }

    /// Somebody with a password that is theirs for good, which no API of ours gives.
    pub(crate) async fn user(
        &self,
        keycloak: &Keycloak,
        name: &str,
        roles: &[&str],
    ) -> Result<String> {
        let password = unique();
        let admin = keycloak.admin().await?;
        let realm = Realm::of_tenant(&self.tenant.slug, &self.tenant.id);
        admin
            .add_user(&realm, &User::new(name, &password, roles))
            .await?;
        Ok(password)
    }

    /// A log-in's body.
    pub(crate) fn log_in(&self, name: &str, password: &str) -> Value {
        json!({
            "grantType": "password",
            "tenant": self.tenant.slug,
            "username": name,
            "password": password,
        })
    }

    /// Asks for roles and a pin of a user.
    pub(crate) async fn give(&self, user: &str, given: &Value) -> Result<Reply> {
        let path = self.path(&format!("users/{user}/roles"));
        let call = self.tenant.admin.call(http::Method::PUT, &path);
        call.json(given).await
    }

    /// A user as the API lists it.
    pub(crate) async fn listed(&self, username: &str) -> Result<Value> {
        let users = self.tenant.admin.get(&self.path("users")).await?;
        let users = users.expect(200)?.at("/data")?;
        let mut users = users.as_array().context("no list")?.iter();
        let found = users.find(|user| user["username"] == username);
        Ok(found.with_context(|| format!("no {username}"))?.clone())
    }

    /// A client that acts for itself and was given this: its id and secret.
    pub(crate) async fn robot(&self, scopes: &[&str], given: &Value) -> Result<(String, String)> {
        let id = format!("robot-{}", unique());
        let body = json!({"clientId": id, "grantTypes": ["client_credentials"], "scopes": scopes});
        let made = self
            .tenant
            .admin
            .post(&self.path("clients"), &body)
            .await?
            .expect(201)?;
        let user = made.text_at("/serviceAccountUserId")?;
        self.give(&user, given).await?.expect(200)?;
        Ok((id, made.text_at("/clientSecret")?))
    }
}

/// A client of the gateway with the access token of an answer.
pub(crate) fn bearer(client: &Client, tokens: &Reply) -> Result<Client> {
    Ok(client.with_token(Some(tokens.text_at("/access_token")?)))
}

/// The admin of another tenant.
pub(crate) async fn stranger(stack: &Stack) -> Result<Client> {
    let other = stack.with_tenant("stranger").await?;
    let admin = Token::of_tenant(&other.id, "tenant_admin");
    stack.client(&admin).await.context("no token")
}
