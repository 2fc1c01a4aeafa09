//! The tenants and workspaces that requests come from and are about, made once, and the
//! request of a route.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_contract::routes::Segment;
use postern_contract::{Family, Route, TenantId, WorkspaceId, routes};
use postern_harness::api::{Call, Client};
use postern_harness::services::Plan;
use postern_harness::stack::{self, Stack};
use postern_harness::token::Token;
use postern_harness::wait_for;
use postern_suites::database;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::SOON;
use crate::rules::{Asked, Bearer, Tenant, Workspace, has};

/// Who and what there is.
pub(crate) struct World {
    pub(crate) stack: &'static Stack,
    /// The families that this deployment serves.
    pub(crate) on: BTreeSet<Family>,
    tenants: Vec<(Tenant, String)>,
    /// Realms of tenants, by the handlers' template.
    realms: Vec<(Tenant, String)>,
    workspaces: Vec<(Workspace, String)>,
    /// The workspace that lacks just this capability.
    lacking: BTreeMap<String, String>,
    /// Words that belong to one tenant: ids, slugs, names.
    words: Vec<(Tenant, String)>,
}

/// The world of this test process.
pub(crate) async fn world() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    let make = async || World::of(stack().await?).await;
    WORLD
        .get_or_init(async || make().await.expect("the world is made"))
        .await
}

/// A stack with as many families on as can be without their backends: there is no
/// Keycloak at that address.
async fn stack() -> Result<&'static Stack> {
    static STACK: OnceCell<Stack> = OnceCell::const_new();
    let more = |plan: &mut Plan| {
        let secret = plan.data.join("keycloak-secret");
        plan.handlers = json!({"auth": {"keycloak": {
            "url": "http://127.0.0.1:9", "clientId": "postern-handlers", "secretFile": secret,
        }}});
        std::fs::write(&secret, "no secret").expect("the stack's folder can be written");
    };
    STACK
        .get_or_try_init(async || Stack::start_with(more).await)
        .await
}

/// Every capability that a route asks for.
fn capabilities() -> BTreeSet<&'static str> {
    let asked = routes()
        .all()
        .iter()
        .map(|route| route.capability.as_deref());
    asked.flatten().collect()
}

impl World {
    /// Makes everybody and everything in a stack.
    pub(crate) async fn of(stack: &'static Stack) -> Result<Self> {
        let admin = stack.platform_admin().await?;
        let info = admin.get("/v1/platform/info").await?.expect(200)?;
        let on: BTreeSet<Family> = serde_json::from_value(info.at("/families")?)?;
        let mut world = Self {
            stack,
            on,
            tenants: vec![(Tenant::Nobody, TenantId::new().to_string())],
            realms: vec![(Tenant::Nobody, realm("nobody-at-all"))],
            workspaces: vec![(Workspace::Nobodys, WorkspaceId::new().to_string())],
            lacking: BTreeMap::new(),
            words: Vec::new(),
        };
        let every: Vec<&str> = capabilities().into_iter().collect();

        let own = world
            .tenant(Tenant::Own, "enterprise", "quillfeather")
            .await?;
        for (workspace, name) in [
            (Workspace::Whole, "brambleholt"),
            (Workspace::Asleep, "drowsewell"),
            (Workspace::Provisioning, "dawnscaffold"),
            (Workspace::Gone, "ashenfall"),
        ] {
            world.workspace(workspace, &own, name, &every).await?;
        }
        for capability in &every {
            let rest: Vec<&str> = every.iter().copied().filter(|c| c != capability).collect();
            let name = format!("no-{capability}");
            let made = own.with_workspace(&name, &rest).await?;
            ready(&own, &made).await?;
            world.lacking.insert((*capability).to_owned(), made.id);
        }
        let other = world
            .tenant(Tenant::Other, "enterprise", "zanzibarion")
            .await?;
        world
            .workspace(Workspace::Others, &other, "hoardkeep", &every)
            .await?;
        let asleep = world
            .tenant(Tenant::Asleep, "growth", "slumbergate")
            .await?;
        world
            .workspace(Workspace::OfAsleep, &asleep, "pillowmere", &every)
            .await?;
        world.tenant(Tenant::Small, "starter", "thimbleton").await?;
        world.bring_about(&admin, &own).await?;
        Ok(world)
    }

    async fn tenant(
        &mut self,
        tenant: Tenant,
        plan: &str,
        name: &str,
    ) -> Result<stack::Tenant<'static>> {
        let made = self.stack.with_tenant_of(plan, name).await?;
        self.tenants.push((tenant, made.id.clone()));
        self.realms.push((tenant, realm(&made.slug)));
        // Slugs and addresses begin with the name.
        let words = [made.id.to_lowercase(), name.to_owned()];
        self.words.extend(words.map(|word| (tenant, word)));
        Ok(made)
    }

    async fn workspace(
        &mut self,
        workspace: Workspace,
        tenant: &stack::Tenant<'_>,
        name: &str,
        capabilities: &[&str],
    ) -> Result<()> {
        let made = tenant.with_workspace(name, capabilities).await?;
        ready(tenant, &made).await?;
        let (owner, _) = self
            .tenants
            .iter()
            .find(|(_, id)| *id == tenant.id)
            .context("a tenant of the world")?;
        let words = [made.id.to_lowercase(), name.to_owned()];
        self.words.extend(words.map(|word| (*owner, word)));
        self.workspaces.push((workspace, made.id));
        Ok(())
    }

    /// The states that resources are not made in, and that runners know of them.
    async fn bring_about(&self, admin: &Client, own: &stack::Tenant<'_>) -> Result<()> {
        let path = |workspace| format!("/v1/workspaces/{}", self.workspace_id(workspace));
        let suspended = json!({"status": "suspended"});
        own.admin
            .patch(&path(Workspace::Asleep), &suspended)
            .await?
            .expect(200)?;
        own.admin
            .delete(&path(Workspace::Gone))
            .await?
            .expect(200)?;
        let mut db = database::connect(self.stack).await?;
        sqlx::query("UPDATE postern.workspace SET status = 'provisioning' WHERE id = $1")
            .bind(self.workspace_id(Workspace::Provisioning))
            .execute(&mut db)
            .await?;
        let asleep = format!("/v1/tenants/{}", self.tenant_id(Tenant::Asleep));
        admin.patch(&asleep, &suspended).await?.expect(200)?;

        let data = routes().all().iter().find(|route| {
            route.capability.is_some()
                && route.method == Method::GET
                && !self.on.contains(&route.family)
        });
        let data = data.or_else(|| {
            routes()
                .all()
                .iter()
                .find(|route| route.capability.is_some())
        });
        let data = data.context("a route that asks for a capability")?;
        for workspace in [Workspace::Asleep, Workspace::Gone, Workspace::Provisioning] {
            let asked = Asked {
                workspace,
                ..Asked::rightly(data)
            };
            self.known(data, &asked).await?;
        }
        let asked = Asked {
            of: Some(Tenant::Asleep),
            ..Asked::rightly(data)
        };
        self.known(data, &asked).await
    }

    /// Waits until a request is answered as it must be.
    async fn known(&self, route: &Route, asked: &Asked) -> Result<()> {
        let expected = crate::rules::verdict(route, asked, &self.on);
        wait_for("a change to be known", SOON, async || {
            let reply = self
                .call(route, asked, &self.path(route, asked))
                .await?
                .await?;
            crate::walk::answered(&reply, expected).map_err(anyhow::Error::msg)
        })
        .await
    }

    pub(crate) fn tenant_id(&self, tenant: Tenant) -> &str {
        let found = self.tenants.iter().find(|(known, _)| *known == tenant);
        found
            .map(|(_, id)| id.as_str())
            .expect("every tenant is made")
    }

    pub(crate) fn realm(&self, tenant: Tenant) -> &str {
        let found = self.realms.iter().find(|(known, _)| *known == tenant);
        found
            .map(|(_, realm)| realm.as_str())
            .expect("every tenant is made")
    }

    pub(crate) fn workspace_id(&self, workspace: Workspace) -> &str {
        let found = self
            .workspaces
            .iter()
            .find(|(known, _)| *known == workspace);
        found
            .map(|(_, id)| id.as_str())
            .expect("every workspace is made")
    }

    /// The path and query of a route's request.
    pub(crate) fn path(&self, route: &Route, asked: &Asked) -> String {
        let mut path = String::new();
        for segment in &route.segments {
            path.push('/');
            path.push_str(&match segment {
                Segment::Literal(text) => text.clone(),
                Segment::Param(name) => self.param(name, route, asked),
                Segment::Tail(_) => "folder/thing".to_owned(),
            });
        }
        if let Some(tenant) = asked.query {
            path.push_str("?tenantId=");
            path.push_str(self.tenant_id(tenant));
        }
        path
    }

    /// A parameter's value: the id that the case names, or a name of nothing.
    pub(crate) fn param(&self, name: &str, route: &Route, asked: &Asked) -> String {
        match name {
            "tenantId" => self.tenant_id(asked.tenant).to_owned(),
            "realmId" => self.realm(asked.tenant).to_owned(),
            "workspaceId" => match (asked.workspace, &route.capability) {
                (Workspace::Lacking, Some(capability)) => self.lacking[capability].clone(),
                (workspace, _) => self.workspace_id(workspace).to_owned(),
            },
            other => format!("no-such-{}", other.to_lowercase()),
        }
    }

    /// The request of a route such that it has no effect where it is let in: it is for a
    /// version that no resource has, and its body is empty.
    pub(crate) async fn call(&self, route: &Route, asked: &Asked, path: &str) -> Result<Call> {
        let bearer = match asked.bearer {
            Bearer::Nothing => None,
            Bearer::Nonsense => Some("nonsense".to_owned()),
            _ => Some(self.stack.sign(&self.token(route, asked)).await?),
        };
        let client = Client::new(self.stack.url(), bearer);
        let call = client.call(route.method.clone(), path);
        Ok(shaped(call, route))
    }

    pub(crate) fn token(&self, route: &Route, asked: &Asked) -> Token {
        let token = match asked.of {
            None => Token::platform(asked.role),
            Some(tenant) => Token::of_tenant(self.tenant_id(tenant), asked.role),
        };
        let token = match asked.pinned {
            Some(workspace) => token.pinned_to(self.workspace_id(workspace)),
            None => token,
        };
        let token = match &route.scope {
            Some(scope) if !asked.scope => token.without_scope(scope),
            _ => token,
        };
        match asked.bearer {
            Bearer::Expired => token.expired_for(3600),
            // Under the name of a key that the issuer has.
            Bearer::Forged => token.signed("foreign", "RS256").key_id(Some("rsa")),
            Bearer::Elsewhere => token.claim("aud", json!("somebody-else")),
            Bearer::Good | Bearer::Nothing | Bearer::Nonsense => token,
        }
    }

    /// A text without the names of realms, which whoever asks for one says.
    pub(crate) fn without_realms(&self, text: String) -> String {
        let names = self.realms.iter().map(|(_, name)| name);
        names.fold(text, |text, name| text.replace(name, ""))
    }

    /// Words in an answer that the caller has no business to read: another tenant's, and
    /// not said by the caller itself.
    pub(crate) fn leaks(&self, asked: &Asked, said: &str, answer: &str) -> Vec<&str> {
        let (said, answer) = (said.to_lowercase(), answer.to_lowercase());
        self.words
            .iter()
            .filter(|(tenant, _)| Some(*tenant) != asked.of)
            .map(|(_, word)| word.as_str())
            .filter(|word| answer.contains(word) && !said.contains(word))
            .collect()
    }
}

/// A call with what its route asks for besides the token.
pub(crate) fn shaped(call: Call, route: &Route) -> Call {
    if !route.is_mutation() {
        return call;
    }
    let call = call.set("if-match", "\"0\"");
    if route.method == Method::DELETE {
        return call;
    }
    let media_type = route
        .media_types
        .first()
        .map_or("application/json", String::as_str);
    let media_type = if media_type == "*/*" {
        "text/plain"
    } else {
        media_type
    };
    call.json(&Value::Object(serde_json::Map::new()))
        .set("content-type", media_type)
}

/// Waits until a workspace is active and its capabilities can be used.
async fn ready(tenant: &stack::Tenant<'_>, workspace: &stack::Workspace) -> Result<()> {
    let path = workspace.path();
    wait_for("a workspace to be active", SOON, async || {
        let reply = tenant.admin.get(&path).await?.expect(200)?;
        ensure!(reply.text_at("/status")? == "active", "{reply:?}");
        Ok(())
    })
    .await
}

/// The parameter that says which tenant a request is about.
pub(crate) fn names_a_tenant(route: &Route) -> Option<&'static str> {
    ["tenantId", "workspaceId", "realmId"]
        .into_iter()
        .find(|name| has(route, name))
}

fn realm(slug: &str) -> String {
    format!("tenant-{slug}")
}
