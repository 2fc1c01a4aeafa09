//! Scopes and roles: the table of the API's "Identity and authorization",
//! written out here once more, so that a slip in the routes table shows.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_harness::api::{Call, Client};
use postern_harness::stack::{Stack, Tenant, Workspace};
use postern_harness::token::Token;
use serde_json::json;

use super::{inside, stack};

const PLATFORM_WRITE: &[&str] = &["superadmin", "platform_admin"];
const PLATFORM_READ: &[&str] = &["superadmin", "platform_admin", "platform_operator"];
const TENANT_ADMIN: &[&str] = &["superadmin", "platform_admin", "tenant_admin"];
const TENANT_READ: &[&str] = &[
    "superadmin",
    "platform_admin",
    "platform_operator",
    "tenant_admin",
    "tenant_operator",
];
const WORKSPACE_WRITE: &[&str] = &[
    "superadmin",
    "platform_admin",
    "tenant_admin",
    "workspace_admin",
];
const EVERYBODY: &[&str] = &[
    "superadmin",
    "platform_admin",
    "platform_operator",
    "tenant_admin",
    "tenant_operator",
    "workspace_admin",
    "workspace_operator",
];
const IAM_READ: &[&str] = &[
    "superadmin",
    "platform_admin",
    "tenant_admin",
    "tenant_operator",
];
const DATA_WRITE: &[&str] = &["tenant_admin", "workspace_admin"];
const DATA_READ: &[&str] = &[
    "tenant_admin",
    "workspace_admin",
    "tenant_operator",
    "workspace_operator",
];

/// Method, path, scope, roles. `{t}` and `{w}` stand for the caller's own.
type Row = (Method, &'static str, &'static str, &'static [&'static str]);

fn table() -> Vec<Row> {
    use Method as M;
    vec![
        (M::GET, "/v1/platform/info", "platform:read", EVERYBODY),
        (
            M::GET,
            "/v1/platform/openapi.json",
            "platform:read",
            EVERYBODY,
        ),
        (M::GET, "/v1/platform/audit", "platform:read", PLATFORM_READ),
        (M::POST, "/v1/tenants", "tenants:write", PLATFORM_WRITE),
        (M::GET, "/v1/tenants", "tenants:read", TENANT_READ),
        (M::GET, "/v1/tenants/{t}", "tenants:read", TENANT_READ),
        (M::PATCH, "/v1/tenants/{t}", "tenants:write", TENANT_ADMIN),
        (
            M::DELETE,
            "/v1/tenants/{t}",
            "tenants:write",
            PLATFORM_WRITE,
        ),
        (M::GET, "/v1/tenants/{t}/audit", "tenants:read", TENANT_READ),
        (M::GET, "/v1/tenants/{t}/usage", "tenants:read", TENANT_READ),
        (M::POST, "/v1/workspaces", "workspaces:write", TENANT_ADMIN),
        (M::GET, "/v1/workspaces", "workspaces:read", EVERYBODY),
        (M::GET, "/v1/workspaces/{w}", "workspaces:read", EVERYBODY),
        (
            M::PATCH,
            "/v1/workspaces/{w}",
            "workspaces:write",
            WORKSPACE_WRITE,
        ),
        (
            M::DELETE,
            "/v1/workspaces/{w}",
            "workspaces:write",
            TENANT_ADMIN,
        ),
        (M::GET, "/v1/iam/realms", "iam:read", IAM_READ),
        (
            M::POST,
            "/v1/iam/realms/r/clients",
            "iam:write",
            TENANT_ADMIN,
        ),
        (
            M::GET,
            "/v1/postgres/{w}/rows/t",
            "postgres:read",
            DATA_READ,
        ),
        (
            M::POST,
            "/v1/postgres/{w}/rows/t",
            "postgres:write",
            DATA_WRITE,
        ),
        (
            M::DELETE,
            "/v1/postgres/{w}/rows/t/1",
            "postgres:write",
            DATA_WRITE,
        ),
        (
            M::GET,
            "/v1/mongo/{w}/collections/c/documents",
            "mongo:read",
            DATA_READ,
        ),
        (
            M::POST,
            "/v1/mongo/{w}/collections/c/aggregate",
            "mongo:read",
            DATA_READ,
        ),
        (
            M::PUT,
            "/v1/mongo/{w}/collections/c/documents/1",
            "mongo:write",
            DATA_WRITE,
        ),
        (
            M::POST,
            "/v1/events/{w}/publish",
            "events:publish",
            DATA_WRITE,
        ),
        (
            M::GET,
            "/v1/events/{w}/topics",
            "events:subscribe",
            DATA_READ,
        ),
        (
            M::POST,
            "/v1/functions/{w}/actions",
            "functions:write",
            DATA_WRITE,
        ),
        (
            M::GET,
            "/v1/functions/{w}/actions",
            "functions:read",
            DATA_READ,
        ),
        (
            M::POST,
            "/v1/functions/{w}/actions/a/invoke",
            "functions:invoke",
            DATA_READ,
        ),
        (
            M::PUT,
            "/v1/storage/{w}/objects/a/b",
            "storage:write",
            DATA_WRITE,
        ),
        (
            M::GET,
            "/v1/storage/{w}/objects/a/b",
            "storage:read",
            DATA_READ,
        ),
    ]
}

struct World<'a> {
    stack: &'a Stack,
    tenant: Tenant<'a>,
    workspace: Workspace,
}

impl World<'_> {
    async fn new() -> Result<World<'static>> {
        let stack = stack().await;
        let tenant = stack.with_tenant("roles").await?;
        let every = ["postgres", "mongo", "kafka", "functions", "storage"];
        let workspace = tenant.with_workspace("dev", &every).await?;
        // Requests for data wait for the workspace.
        let admin = &tenant.admin;
        postern_harness::wait_for("the workspace to be active", super::SOON, async || {
            let reply = admin
                .get(&format!("/v1/postgres/{}/tables", workspace.id))
                .await?;
            reply.refused(503, "FAMILY_UNAVAILABLE").map(drop)
        })
        .await?;
        Ok(World {
            stack,
            tenant,
            workspace,
        })
    }

    /// A token with this role, of the kind such a role comes on.
    fn token(&self, role: &str) -> Token {
        match role.split_once('_') {
            Some(("tenant", _)) => Token::of_tenant(&self.tenant.id, role),
            Some(("workspace", _)) => {
                Token::of_tenant(&self.tenant.id, role).pinned_to(&self.workspace.id)
            }
            _ => Token::platform(role),
        }
    }

    /// The request of a row, such that it has no effect where it is allowed.
    fn call(&self, client: &Client, (method, path, ..): &Row) -> Call {
        let path = path
            .replace("{t}", &self.tenant.id)
            .replace("{w}", &self.workspace.id);
        let call = client.call(method.clone(), &path).set("if-match", "\"0\"");
        match *method {
            Method::POST | Method::PATCH | Method::PUT => call.json(&json!({})),
            _ => call,
        }
    }
}

#[tokio::test]
async fn each_route_is_open_to_its_roles_and_to_no_other() -> Result<()> {
    let world = World::new().await?;
    for role in EVERYBODY {
        let client = world.stack.client(&world.token(role)).await?;
        for row in table() {
            let reply = world.call(&client, &row).await?;
            let (method, path, _, roles) = &row;
            let what = || format!("{role}: {method} {path}");
            if roles.contains(role) {
                ensure!(
                    !matches!(reply.status, 401 | 403 | 404 | 405 | 500),
                    "{} is not let in: {reply:?}",
                    what()
                );
            } else {
                let error = reply.refused(403, "ROLE_DENIED").with_context(what)?;
                let message = error["message"].to_string();
                ensure!(
                    message.contains(roles[0]),
                    "{}: {message} names no role",
                    what()
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn each_route_needs_its_scope() -> Result<()> {
    let world = World::new().await?;
    for row in table() {
        let (method, path, scope, roles) = &row;
        let token = world.token(roles[roles.len() - 1]);
        let client = world.stack.client(&token.without_scope(scope)).await?;
        let reply = world.call(&client, &row).await?;
        let error = reply
            .refused(403, "SCOPE_DENIED")
            .with_context(|| format!("{method} {path} without {scope}"))?;
        let message = error["message"].to_string();
        ensure!(message.contains(scope), "{message} does not name {scope}");
    }
    let token = Token::platform("superadmin").scopes("");
    let reply = world.stack.client(&token).await?.get("/v1/tenants").await?;
    reply.refused(403, "SCOPE_DENIED")?;
    Ok(())
}

#[tokio::test]
async fn a_role_of_another_kind_of_token_means_nothing() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let posing = stack
        .client(&Token::of_tenant(&acme.id, "superadmin"))
        .await?;
    posing
        .get("/v1/platform/audit")
        .await?
        .refused(403, "ROLE_DENIED")?;
    posing
        .post("/v1/tenants", &json!({}))
        .await?
        .refused(403, "ROLE_DENIED")?;
    let nowhere = stack.client(&Token::platform("tenant_admin")).await?;
    nowhere
        .get("/v1/tenants")
        .await?
        .refused(403, "ROLE_DENIED")?;
    nowhere
        .get(&acme.path())
        .await?
        .refused(403, "ROLE_DENIED")?;
    Ok(())
}

/// Whoever administers a tenant's realm writes what it likes into its tokens.
#[tokio::test]
async fn nor_does_it_beside_a_role_that_does() -> Result<()> {
    let stack = stack().await;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &[]).await?;
    let roles = json!({"roles": ["tenant_admin", "superadmin", "workspace_admin"]});
    let token = Token::of_tenant(&acme.id, "tenant_admin").claim("realm_access", roles);
    let posing = stack.client(&token).await?;
    for changes in [
        json!({"plan": "enterprise"}),
        json!({"status": "suspended"}),
    ] {
        let reply = posing.patch(&acme.path(), &changes).await?;
        reply.refused(403, "ROLE_DENIED")?;
    }
    posing.get(&dev.path()).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn a_tenants_admin_changes_its_name_and_metadata_only() -> Result<()> {
    let acme = stack().await.with_tenant("acme").await?;
    for body in [
        json!({"plan": "enterprise"}),
        json!({"status": "suspended"}),
        json!({"displayName": "Renamed", "plan": "enterprise"}),
    ] {
        let reply = acme.admin.patch(&acme.path(), &body).await?;
        let error = reply.refused(403, "ROLE_DENIED")?;
        ensure!(
            error["message"].to_string().contains("platform_admin"),
            "{error}"
        );
    }
    let still = acme.admin.get(&acme.path()).await?.expect(200)?.json()?;
    assert_eq!(still, acme.made);
    let body = json!({"displayName": "Renamed", "metadata": {"team": "blue"}});
    let changed = acme.admin.patch(&acme.path(), &body).await?.expect(200)?;
    assert_eq!(changed.text_at("/displayName")?, "Renamed");
    assert_eq!(changed.text_at("/metadata/team")?, "blue");
    Ok(())
}

#[tokio::test]
async fn what_a_workspace_lacks_or_is_decides_over_its_data() -> Result<()> {
    let world = World::new().await?;
    let acme = &world.tenant;
    let bare = acme.with_workspace("bare", &[]).await?;
    let rows = |id: &str| format!("/v1/postgres/{id}/rows/t");
    let reply = acme.admin.get(&rows(&bare.id)).await?;
    let error = reply.refused(403, "CAPABILITY_DISABLED")?;
    ensure!(error["message"].to_string().contains("postgres"), "{error}");
    for family in [
        "mongo/{w}/collections",
        "events/{w}/topics",
        "functions/{w}/actions",
        "storage/{w}/objects",
    ] {
        let path = format!("/v1/{}", family.replace("{w}", &bare.id));
        acme.admin
            .get(&path)
            .await?
            .refused(403, "CAPABILITY_DISABLED")?;
    }

    let seen = async |what: &str, status: u16, code: &str| {
        postern_harness::wait_for(what, super::SOON, async || {
            let reply = acme.admin.get(&rows(&world.workspace.id)).await?;
            reply.refused(status, code).map(drop)
        })
        .await
    };
    let path = world.workspace.path();
    acme.admin
        .patch(&path, &json!({"status": "suspended"}))
        .await?
        .expect(200)?;
    seen("the suspension", 403, "WORKSPACE_SUSPENDED").await?;
    // Where its state changes it can still be seen and changed.
    acme.admin.get(&path).await?.expect(200)?;
    acme.admin
        .patch(&path, &json!({"status": "active"}))
        .await?
        .expect(200)?;
    seen("the end of the suspension", 503, "FAMILY_UNAVAILABLE").await?;
    acme.admin.delete(&path).await?.expect(200)?;
    seen("the end of the workspace", 404, "WORKSPACE_NOT_FOUND").await
}

#[tokio::test]
async fn a_workspace_that_is_not_ready_says_when_to_come_back() -> Result<()> {
    let stack = inside().await;
    let acme = stack.with_tenant("acme").await?;
    let dev = acme.with_workspace("dev", &["mongo"]).await?;
    let mut db = postern_suites::database::connect(stack).await?;
    sqlx::query("UPDATE postern.workspace SET status = 'provisioning' WHERE id = $1")
        .bind(&dev.id)
        .execute(&mut db)
        .await?;
    postern_harness::wait_for("the change to be seen", super::SOON, async || {
        let reply = acme
            .admin
            .get(&format!("/v1/mongo/{}/collections", dev.id))
            .await?;
        reply.refused(409, "WORKSPACE_PROVISIONING")?;
        reply.one("retry-after").map(drop)
    })
    .await
}

#[tokio::test]
async fn a_suspended_tenant_is_shut_out_and_its_platform_is_not() -> Result<()> {
    let world = World::new().await?;
    let (acme, stack) = (&world.tenant, world.stack);
    let admin = stack.platform_admin().await?;
    let status = async |status: &str| -> Result<()> {
        admin
            .patch(&acme.path(), &json!({"status": status}))
            .await?
            .expect(200)?;
        Ok(())
    };
    let paths = [
        acme.path(),
        "/v1/workspaces".to_owned(),
        format!("/v1/postgres/{}/rows/t", world.workspace.id),
        "/v1/iam/realms".to_owned(),
    ];
    status("suspended").await?;
    for path in &paths {
        postern_harness::wait_for("the suspension to be seen", super::SOON, async || {
            acme.admin
                .get(path)
                .await?
                .refused(403, "TENANT_SUSPENDED")
                .map(drop)
        })
        .await?;
    }
    let body =
        json!({"tenantId": acme.id, "slug": "late", "displayName": "Late", "capabilities": []});
    admin
        .post("/v1/workspaces", &body)
        .await?
        .refused(403, "TENANT_SUSPENDED")?;
    admin.get(&acme.path()).await?.expect(200)?;
    status("active").await?;
    postern_harness::wait_for(
        "the end of the suspension to be seen",
        super::SOON,
        async || acme.admin.get(&acme.path()).await?.expect(200).map(drop),
    )
    .await
}

#[tokio::test]
async fn identity_is_part_of_larger_plans() -> Result<()> {
    let stack = stack().await;
    let small = stack.with_tenant_of("starter", "small").await?;
    let reply = small.admin.get("/v1/iam/realms").await?;
    reply.refused(403, "PLAN_CAPABILITY_REQUIRED")?;
    for plan in ["growth", "regulated", "enterprise"] {
        let large = stack.with_tenant_of(plan, "large").await?;
        let reply = large.admin.get("/v1/iam/realms").await?;
        reply.refused(503, "FAMILY_UNAVAILABLE")?;
    }
    // A plan that grows is heard of.
    let admin = stack.platform_admin().await?;
    admin
        .patch(&small.path(), &json!({"plan": "growth"}))
        .await?
        .expect(200)?;
    postern_harness::wait_for("the plan to be seen", super::SOON, async || {
        let reply = small.admin.get("/v1/iam/realms").await?;
        reply.refused(503, "FAMILY_UNAVAILABLE").map(drop)
    })
    .await
}
