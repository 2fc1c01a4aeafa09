//! From the outbox to schemas and roles.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Caller, Deployment, Request, Server, make_tenant, text};

const SOON: Duration = Duration::from_secs(10);

async fn make(
    deployment: &Deployment,
    server: &Server,
    tenant: &str,
    capabilities: &[&str],
) -> (Caller, String) {
    let own = Caller::of_tenant(tenant, "tenant_admin");
    let body = json!({"slug": "dev", "displayName": "Dev", "capabilities": capabilities});
    let made = Request::new(&own, Method::POST, "/v1/workspaces")
        .json(&body)
        .send(deployment, server)
        .await;
    (own, text(&made.expect(201).unwrap(), "/id"))
}

async fn get(deployment: &Deployment, server: &Server, caller: &Caller, id: &str) -> Value {
    let path = format!("/v1/workspaces/{id}");
    Request::new(caller, Method::GET, &path)
        .send(deployment, server)
        .await
        .expect(200)
        .unwrap()
        .json()
        .unwrap()
}

async fn becomes(
    deployment: &Deployment,
    server: &Server,
    caller: &Caller,
    id: &str,
    wanted: fn(&Value) -> bool,
) -> Value {
    let look = async || {
        let found = get(deployment, server, caller, id).await;
        anyhow::ensure!(wanted(&found), "it is {found}");
        Ok(found)
    };
    postern_harness::wait_for("the workspace", SOON, look)
        .await
        .unwrap()
}

fn name(id: &str) -> String {
    format!("ws_{}", id.trim_start_matches("wks_").to_lowercase())
}

async fn count(deployment: &Deployment, sql: &'static str, bind: &str) -> i64 {
    sqlx::query_scalar(sql)
        .bind(bind)
        .fetch_one(&deployment.pool)
        .await
        .unwrap()
}

const SCHEMAS: &str = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
const ROLES: &str = "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '%' AND NOT rolcanlogin AND NOT rolbypassrls";

#[tokio::test]
async fn a_workspace_gets_its_schema_and_roles_and_turns_active() {
    let deployment = Deployment::new().await;
    let login = format!("data_{}", postern_harness::token::unique().to_lowercase());
    let more = json!({"provisioning": {"postgres": {"dataLogin": login}}});
    let server = deployment.serve_with("a", &more).await;
    let tenant = make_tenant(&deployment, &server).await;
    let (own, id) = make(&deployment, &server, &tenant, &["postgres", "mongo"]).await;
    let active = becomes(&deployment, &server, &own, &id, |w| w["status"] == "active").await;
    // Mongo has no backend here: it waits, and does not hold the workspace up.
    assert_eq!(active["capabilities"], json!(["postgres", "mongo"]));
    assert_eq!(active["pendingCapabilities"], json!(["mongo"]));
    let schema = name(&id);
    assert_eq!(count(&deployment, SCHEMAS, &schema).await, 1);
    assert_eq!(count(&deployment, ROLES, &schema).await, 2);
    // The login role inherits nothing: only as the workspace's role does it get in.
    let mut db = deployment.pool.begin().await.unwrap();
    for (sql, allowed) in [
        (
            format!("SET LOCAL ROLE {schema}_owner; CREATE TABLE {schema}.t (n int)"),
            true,
        ),
        (
            format!("SET LOCAL ROLE {schema}_data; INSERT INTO {schema}.t VALUES (1)"),
            true,
        ),
        (
            format!("SET LOCAL ROLE {schema}_data; CREATE TABLE {schema}.u (n int)"),
            false,
        ),
        (
            format!("SET LOCAL ROLE {schema}_data; SELECT * FROM postern.tenant"),
            false,
        ),
        (
            format!("SET LOCAL ROLE {schema}_owner; SELECT * FROM postern_idempotency.record"),
            false,
        ),
        (
            format!("SET LOCAL ROLE {login}; SELECT * FROM {schema}.t"),
            false,
        ),
        (
            format!(
                "SET LOCAL SESSION AUTHORIZATION {login}; SET LOCAL ROLE {schema}_data; SELECT * FROM {schema}.t"
            ),
            true,
        ),
    ] {
        sqlx::raw_sql("SAVEPOINT try")
            .execute(&mut *db)
            .await
            .unwrap();
        let tried = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()))
            .execute(&mut *db)
            .await;
        assert_eq!(tried.is_ok(), allowed, "{sql}: {tried:?}");
        let after = if allowed {
            "RESET ROLE; RELEASE SAVEPOINT try"
        } else {
            "ROLLBACK TO SAVEPOINT try"
        };
        sqlx::raw_sql(after).execute(&mut *db).await.unwrap();
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_by_whoever_is_there() {
    let deployment = Deployment::new().await;
    let server = deployment
        .serve_with(
            "a",
            &json!({"provisioning": {"postgres": {"url": "postgres://u:p@127.0.0.1:1/none"}}}),
        )
        .await;
    let tenant = make_tenant(&deployment, &server).await;
    let (own, id) = make(&deployment, &server, &tenant, &["postgres"]).await;
    let failed = async || {
        let error: Option<String> = sqlx::query_scalar("SELECT last_error FROM postern.outbox")
            .fetch_one(&deployment.pool)
            .await?;
        anyhow::ensure!(error.is_some(), "nothing failed yet");
        Ok(())
    };
    postern_harness::wait_for("a failed attempt", SOON, failed)
        .await
        .unwrap();
    assert_eq!(
        get(&deployment, &server, &own, &id).await["status"],
        "provisioning"
    );
    drop(server);
    let (one, _two) = (deployment.serve("b").await, deployment.serve("c").await);
    becomes(&deployment, &one, &own, &id, |w| w["status"] == "active").await;
    assert_eq!(count(&deployment, SCHEMAS, &name(&id)).await, 1);
}

#[tokio::test]
async fn a_capability_can_come_later() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let tenant = make_tenant(&deployment, &server).await;
    let (own, id) = make(&deployment, &server, &tenant, &[]).await;
    assert_eq!(
        get(&deployment, &server, &own, &id).await["status"],
        "active"
    );
    let patch = json!({"capabilities": ["postgres"]});
    let path = format!("/v1/workspaces/{id}");
    let patched = Request::new(&own, Method::PATCH, &path)
        .json(&patch)
        .send(&deployment, &server)
        .await;
    assert_eq!(
        patched.expect(200).unwrap().json().unwrap()["status"],
        "active"
    );
    becomes(&deployment, &server, &own, &id, |w| {
        w["pendingCapabilities"] == json!([])
    })
    .await;
    assert_eq!(count(&deployment, SCHEMAS, &name(&id)).await, 1);
}

#[tokio::test]
async fn what_ended_is_destroyed_after_its_purge_date_and_not_before() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let tenant = make_tenant(&deployment, &server).await;
    let (own, id) = make(&deployment, &server, &tenant, &["postgres"]).await;
    becomes(&deployment, &server, &own, &id, |w| w["status"] == "active").await;
    let ended = Request::new(&own, Method::DELETE, &format!("/v1/workspaces/{id}"))
        .send(&deployment, &server)
        .await;
    assert!(text(&ended.expect(200).unwrap(), "/purgeAfter") > text_now());
    assert_eq!(count(&deployment, SCHEMAS, &name(&id)).await, 1);
    sqlx::query("UPDATE postern.outbox SET due_at = now() WHERE step = 'purge'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    let purged = async || {
        let left = count(&deployment, SCHEMAS, &name(&id)).await
            + count(&deployment, ROLES, &name(&id)).await;
        anyhow::ensure!(left == 0, "{left} are left");
        Ok(())
    };
    postern_harness::wait_for("the purge", SOON, purged)
        .await
        .unwrap();
}

fn text_now() -> String {
    postern_contract::envelope::timestamp(jiff::Timestamp::now())
}
