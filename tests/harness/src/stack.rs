//! The stack a suite runs against, and who uses it.
//!
//! By default it is started: everything, on free ports, with data in a folder of
//! its own. With `GATEWAY_URL` the suite speaks to a gateway that runs already,
//! such as a real APISIX with the routes of `apisix-conf`:
//!
//! | variable | value |
//! |---|---|
//! | `GATEWAY_URL` | base URL of the API |
//! | `ISSUER_URL` | `iss` of a `dev-issuer --mint` that the runner there trusts |
//! | `ISSUER_AUDIENCE` | `aud` of its tokens (`postern-api`) |
//!
//! With `APISIX_HOME` the stack is started all the same, but with the real APISIX
//! installed in that folder as its gateway (`openresty` is looked for on the PATH).
//!
//! A test makes its own tenants and is a subject of its own, so tests share a
//! stack and still never meet. Those that kill something start one for themselves.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use ::http::{HeaderMap, Method};
use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::api::{Client, Witness};
use crate::http::{Http, Reply};
use crate::ports::Port;
use crate::postgres::Durability;
use crate::services::{AUDIENCE, Database, Gateway, Plan, REALM, Services};
use crate::token::{Token, unique};
use crate::{temporary_folder, wait_for};

/// How long a busy machine may take to make a tenant or a workspace.
const MADE: Duration = Duration::from_secs(30);

/// A running API with an issuer that signs what tests ask for.
#[derive(Debug)]
pub struct Stack {
    url: String,
    issuer: String,
    audience: String,
    witness: OnceLock<Witness>,
    own: Option<Own>,
}

/// What a stack that was started here holds.
#[derive(Debug)]
struct Own {
    services: Services,
    faults: PathBuf,
    folder: TempDir,
    _ports: [Port; 2],
}

impl Stack {
    /// The stack of this test process, started when the first test asks for it.
    ///
    /// # Errors
    /// It did not start; every test that asks is told the same.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<Stack, String>> = OnceCell::const_new();
        let start = async || match std::env::var("GATEWAY_URL") {
            Ok(url) => Self::elsewhere(url),
            Err(_) => Self::start().await,
        };
        SHARED
            .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
            .await
            .as_ref()
            .map_err(|told| anyhow!("{told}"))
    }

    /// A stack of the caller's own.
    ///
    /// # Errors
    /// Something does not start: which, and the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(|_| {}).await
    }

    /// A stack of the caller's own, of which something is different.
    ///
    /// # Errors
    /// Something does not start: which, and the end of its log.
    pub async fn start_with(change: impl FnOnce(&mut Plan)) -> Result<Self> {
        let folder = temporary_folder("postern")?;
        let ports = [Port::free()?, Port::free()?];
        let [gateway, issuer] = &ports;
        let faults = folder.path().join("faults");
        std::fs::create_dir_all(&faults)?;
        let data = folder.path().join("data");
        std::fs::create_dir_all(&data)?;
        let mut plan = Plan {
            data,
            run: folder.path().join("run"),
            configuration: repository()?.join("apisix-conf"),
            database: Database::Private(Durability::Volatile),
            claims: None,
            gateway: match std::env::var_os("APISIX_HOME") {
                Some(home) => Gateway::Apisix(home.into()),
                None => Gateway::StandIn,
            },
            gateway_port: gateway.number(),
            issuer_port: issuer.number(),
            postgres: false,
            mongo: None,
            mint: true,
            faults: Some(faults.clone()),
            runner: json!({}),
            handlers: json!({}),
        };
        change(&mut plan);
        let accounts = json!({"realm": REALM, "audience": AUDIENCE, "tokenSeconds": 3600});
        std::fs::write(plan.accounts(), accounts.to_string())?;
        let (url, issuer) = (plan.url(), plan.issuer());
        let services = Services::start(plan, &mut |_, _, _| Ok(())).await?;
        Ok(Self {
            url,
            issuer,
            audience: AUDIENCE.to_owned(),
            witness: OnceLock::new(),
            own: Some(Own {
                services,
                faults,
                folder,
                _ports: ports,
            }),
        })
    }

    /// The same API to those who speak to it while its processes come and go.
    #[must_use]
    pub fn from_outside(&self) -> Self {
        Self {
            url: self.url.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            witness: self.witness.clone(),
            own: None,
        }
    }

    fn elsewhere(url: String) -> Result<Self> {
        let issuer = std::env::var("ISSUER_URL").context("GATEWAY_URL needs ISSUER_URL too")?;
        Ok(Self {
            url,
            issuer,
            audience: std::env::var("ISSUER_AUDIENCE").unwrap_or_else(|_| AUDIENCE.to_owned()),
            witness: OnceLock::new(),
            own: None,
        })
    }

    /// The API's base URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The processes, to be killed or looked at.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn services(&mut self) -> Result<&mut Services> {
        Ok(&mut self.own_mut()?.services)
    }

    /// The URL of the control plane's database.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn database_url(&self) -> Result<&str> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.database_url())
    }

    /// The handlers' own URL, past the gateway.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn handlers_url(&self) -> Result<String> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.handlers_url())
    }

    /// The runner's admin endpoint.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn runner_admin_url(&self) -> Result<String> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.runner_admin_url())
    }

    /// The file of the keys with which the runner seals contexts.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn master_keys(&self) -> Result<PathBuf> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.master_keys())
    }

    /// The file of the keys that open contexts.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn opening_keys(&self) -> Result<PathBuf> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.opening_keys())
    }

    /// The file of the keys that seal kept outcomes.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn outcome_keys(&self) -> Result<PathBuf> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.services.outcome_keys())
    }

    /// The folder in which fault points of the handlers are armed.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn faults(&self) -> Result<&Path> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(&own.faults)
    }

    /// The stack's folder, with all its logs under `data`.
    ///
    /// # Errors
    /// The stack runs elsewhere.
    pub fn folder(&self) -> Result<&Path> {
        let own = self.own.as_ref().context("this stack runs elsewhere")?;
        Ok(own.folder.path())
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        self.own
            .as_ref()
            .map_or_else(String::new, |own| own.services.logs())
    }

    fn own_mut(&mut self) -> Result<&mut Own> {
        self.own.as_mut().context("this stack runs elsewhere")
    }

    /// Who looks at every exchange of the clients that are made from now on; the first
    /// one stays.
    pub fn watched_by(&self, witness: Witness) {
        drop(self.witness.set(witness));
    }

    /// Somebody without a token.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        Client::new(&self.url, None).watched(self.witness.get().cloned())
    }

    /// Somebody with this token.
    ///
    /// # Errors
    /// The issuer does not sign it.
    pub async fn client(&self, token: &Token) -> Result<Client> {
        let token = self.sign(token).await?;
        Ok(self.anonymous().with_token(Some(token)))
    }

    /// A platform admin.
    ///
    /// # Errors
    /// The issuer does not answer.
    pub async fn platform_admin(&self) -> Result<Client> {
        self.client(&Token::platform("platform_admin")).await
    }

    /// The signed token.
    ///
    /// # Errors
    /// The issuer does not sign it.
    pub async fn sign(&self, token: &Token) -> Result<String> {
        let mut headers = HeaderMap::new();
        crate::http::append(&mut headers, "content-type", b"application/json")?;
        let order = Bytes::from(token.order(&self.issuer, &self.audience)?);
        Http::from_address(None)
            .send(
                &Method::POST,
                &format!("{}/mint", self.issuer),
                &headers,
                order,
            )
            .await?
            .expect(200)?
            .text_at("/token")
    }

    /// A tenant of the `growth` plan, whose slug begins with `name`.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn with_tenant(&self, name: &str) -> Result<Tenant<'_>> {
        self.with_tenant_of("growth", name).await
    }

    /// A tenant of this plan, whose slug begins with `name`.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn with_tenant_of(&self, plan: &str, name: &str) -> Result<Tenant<'_>> {
        let slug = format!("{name}-{}", unique());
        let body = json!({
            "slug": slug,
            "displayName": name,
            "plan": plan,
            "adminEmail": format!("admin@{name}.example.com"),
        });
        let made = made(&self.platform_admin().await?, "/v1/tenants", &body).await?;
        let id = made.text_at("/id")?;
        let admin = self.client(&Token::of_tenant(&id, "tenant_admin")).await?;
        Ok(Tenant {
            stack: self,
            id,
            slug,
            made: made.json()?,
            admin,
        })
    }
}

/// A tenant made for one test.
#[derive(Debug)]
pub struct Tenant<'a> {
    stack: &'a Stack,
    /// `tnt_…`
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// The resource as the API answered when it was made.
    pub made: Value,
    /// Its admin.
    pub admin: Client,
}

impl Tenant<'_> {
    /// `/v1/tenants/<id>`
    #[must_use]
    pub fn path(&self) -> String {
        format!("/v1/tenants/{}", self.id)
    }

    /// Somebody of this tenant with this role.
    ///
    /// # Errors
    /// The issuer does not answer.
    pub async fn member(&self, role: &str) -> Result<Client> {
        self.stack.client(&Token::of_tenant(&self.id, role)).await
    }

    /// A workspace, whose slug begins with `name`.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn with_workspace(&self, name: &str, capabilities: &[&str]) -> Result<Workspace> {
        let slug = format!("{name}-{}", unique());
        let body = json!({
            "tenantId": self.id,
            "slug": slug,
            "displayName": name,
            "capabilities": capabilities,
        });
        let made = made(&self.admin, "/v1/workspaces", &body).await?;
        Ok(Workspace {
            id: made.text_at("/id")?,
            slug,
            made: made.json()?,
        })
    }
}

/// Makes a resource as a client is told to: where a busy machine has it refused for the
/// moment (503), once more with the same key.
async fn made(client: &Client, path: &str, body: &Value) -> Result<Reply> {
    let key = unique();
    wait_for(path, MADE, async || {
        let reply = client.post(path, body).key(&key).await?;
        ensure!(reply.status != 503, "{reply:?}");
        Ok(reply)
    })
    .await?
    .expect(201)
}

/// A workspace made for one test.
#[derive(Debug)]
pub struct Workspace {
    /// `wks_…`
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// The resource as the API answered when it was made.
    pub made: Value,
}

impl Workspace {
    /// `/v1/workspaces/<id>`
    #[must_use]
    pub fn path(&self) -> String {
        format!("/v1/workspaces/{}", self.id)
    }
}

/// The root of the repository this was built from.
fn repository() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("no folder around tests/harness")
}
