//! Tokens: a real Keycloak whose keys rotate, issuers that lie, tokens that are forged and
//! tokens that were revoked.
//!
//! They share one Keycloak and one stack, whose runner trusts a realm of it by name, the
//! realms of tenants by a template, and two issuers of the test's own ([`liar`]). What
//! takes an issuer away has its own.

mod forged;
mod issuers;
mod liar;
mod outage;
mod reload;
mod revoked;
mod rotation;
mod signer;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use http::Method;
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::keycloak::{Keycloak, Realm};
use postern_harness::services::AUDIENCE;
use postern_harness::stack::Stack;
use postern_harness::token::{ALL_SCOPES, unique};
use postern_harness::wait_for;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use liar::Liar;
use signer::P256;

/// A request that everybody with a token may make.
const ANY: &str = "/v1/platform/info";
/// How long something may take that is not what a test measures.
const SOON: Duration = Duration::from_secs(15);

/// `fetch.refreshSeconds` of the shared stack.
const REFRESH: Duration = Duration::from_secs(2);
/// `fetch.graceSeconds`.
const GRACE: Duration = Duration::from_secs(2);
/// `fetch.waitMs`: while one test rotates keys another has Keycloak make some, and its
/// answers take long.
const WAIT: Duration = Duration::from_secs(5);

/// What the tests share.
struct World {
    keycloak: &'static Keycloak,
    /// The platform's realm, trusted by name.
    realm: Realm,
    stack: Stack,
    /// Two issuers whose keys have the same name.
    one: (Liar, P256),
    two: (Liar, P256),
}

impl World {
    async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<World, String>> = OnceCell::const_new();
        let start = async || Self::start().await.map_err(|error| format!("{error:#}"));
        SHARED
            .get_or_init(start)
            .await
            .as_ref()
            .map_err(|told| anyhow!("{told}"))
    }

    async fn start() -> Result<Self> {
        let keycloak = Keycloak::shared().await?;
        let realm = Realm::new(&format!("policies-{}", unique()));
        keycloak.admin().await?.create(&realm).await?;
        let liar = || -> Result<_> {
            let key = P256::new("same")?;
            Ok((Liar::publishing(&[key.public()])?, key))
        };
        let (one, two) = (liar()?, liar()?);
        let stack = trusting(
            &[
                json!({"issuer": keycloak.issuer(realm.name()), "audiences": [AUDIENCE]}),
                json!({
                    "issuer": keycloak.issuer("tenant-{slug}"),
                    "allow": ["*"],
                    "audiences": [AUDIENCE],
                }),
                one.0.settings(),
                two.0.settings(),
            ],
            json!({
                "refreshSeconds": REFRESH.as_secs(),
                "minRefreshSeconds": 1,
                "graceSeconds": GRACE.as_secs(),
                "unknownKeyMs": 300,
                "unknownKeySeconds": 1,
                "unknownIssuerSeconds": 1,
                "waitMs": WAIT.as_millis(),
            }),
        )
        .await?;
        Ok(Self {
            keycloak,
            realm,
            stack,
            one,
            two,
        })
    }

    /// Makes a realm. One after the other: each has keys made, which takes Keycloak a
    /// while where others want the processor too.
    async fn create(&self, realm: &Realm) -> Result<()> {
        static TURN: Mutex<()> = Mutex::const_new(());
        let _turn = TURN.lock().await;
        let admin = self.keycloak.admin().await?;
        if admin.create(realm).await.is_ok() {
            return Ok(());
        }
        // It goes on when nobody waits any more.
        let path = format!("/{}", realm.name());
        let made = async || {
            let reply = admin.call(Method::GET, &path, None).await?;
            reply.expect(200).map(drop)
        };
        wait_for("the realm", Duration::from_secs(60), made).await
    }

    /// A token of the platform's realm.
    async fn token(&self) -> Result<String> {
        Ok(self.keycloak.service_account(&self.realm).await?.access)
    }

    /// What the API says to a token.
    async fn judge(&self, token: &str) -> Result<Reply> {
        judge(&self.stack, token).await
    }
}

/// A stack whose runner trusts these issuers besides its own.
async fn trusting(issuers: &[Value], fetch: Value) -> Result<Stack> {
    let issuers = issuers.to_vec();
    Stack::start_with(move |plan| {
        let own = json!({
            "issuer": plan.issuer(),
            "audiences": [AUDIENCE],
            "jwksUri": format!("{}/protocol/openid-connect/certs", plan.issuer()),
        });
        let all: Vec<_> = std::iter::once(own).chain(issuers).collect();
        plan.runner = json!({"plugins": {"jwt": {"issuers": all, "fetch": fetch}}});
    })
    .await
}

async fn judge(stack: &Stack, token: &str) -> Result<Reply> {
    Client::new(stack.url(), Some(token.to_owned()))
        .get(ANY)
        .await
}

/// Claims of a platform token of this issuer, by a subject of its own.
fn claims(issuer: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    json!({
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": unique(),
        "iat": now,
        "exp": now + 600,
        "scope": ALL_SCOPES,
        "realm_access": {"roles": ["platform_operator"]},
    })
}
