//! Tenants and workspaces beyond what the e2e suite asks through the gateway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use postern_contract::AuditId;
use serde_json::json;

use crate::support::{Caller, Deployment, Request, code, make_tenant, tenant, text};

#[tokio::test]
async fn reads_have_validators_and_heads() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let path = format!("/v1/tenants/{}", make_tenant(&deployment, &server).await);
    let get = || Request::new(&admin, Method::GET, &path);
    let seen = get().send(&deployment, &server).await.expect(200).unwrap();
    let etag = seen.header("etag").unwrap().to_owned();
    let again = get()
        .header("if-none-match", &etag)
        .send(&deployment, &server)
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), Some(etag.as_str()));
    let head = Request::new(&admin, Method::HEAD, &path)
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(
        head.header("content-length"),
        Some(seen.body.len().to_string().as_str())
    );
    assert!(head.body.is_empty());
    let rename = |etag: &str| {
        Request::new(&admin, Method::PATCH, &path)
            .json(&json!({"displayName": etag}))
            .header("if-match", etag)
    };
    let renamed = rename(&etag)
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    assert_ne!(renamed.header("etag"), Some(etag.as_str()));
    assert_eq!(
        code(&rename(&etag).send(&deployment, &server).await),
        (412, "PRECONDITION_FAILED".into())
    );
}

/// Events are kept for `auditDays`; the sweep takes what is older, however much it is.
#[tokio::test]
async fn old_events_of_the_audit_trail_are_removed() {
    let deployment = Deployment::new().await;
    let more = json!({"idempotency": {"sweepMs": 50}, "auditDays": 2});
    let server = deployment.serve_with("a", &more).await;
    make_tenant(&deployment, &server).await;
    let day = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let least = |age: Duration| AuditId::least_of(u64::try_from((now - age).as_millis()).unwrap());
    // A day old, and more than two batches that are three days old.
    sqlx::query(
        "INSERT INTO postern.audit_event (id, actor, action, outcome, correlation_id, client_address)
         SELECT left($2, 16) || lpad(n::text, 14, '0'), 'a', 'b', 'done', 'c', 'd' FROM generate_series(1, 2500) n
         UNION ALL VALUES ($1, 'a', 'b', 'done', 'c', 'd')",
    )
    .bind(least(day).to_string())
    .bind(least(3 * day).to_string())
    .execute(&deployment.pool)
    .await
    .unwrap();
    let swept = async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM postern.audit_event")
            .fetch_one(&deployment.pool)
            .await?;
        anyhow::ensure!(left == 2, "{left} are left");
        Ok(())
    };
    postern_harness::wait_for("the sweep", Duration::from_secs(10), swept)
        .await
        .unwrap();
}

#[tokio::test]
async fn large_answers_are_compressed_on_request() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let get = || Request::new(&admin, Method::GET, "/v1/platform/openapi.json");
    let plain = get().send(&deployment, &server).await.expect(200).unwrap();
    let small = get()
        .header("accept-encoding", "gzip")
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.body.len() < plain.body.len() / 2);
    assert!(small.header("etag").unwrap().starts_with("W/"));
    assert_eq!(plain.json().unwrap()["openapi"], "3.1.0");
}

#[tokio::test]
async fn health_names_each_backend() {
    let deployment = Deployment::new().await;
    let own_claims = json!({"claims": {"url": deployment.database}});
    let server = deployment.serve_with("a", &own_claims).await;
    let nobody = Caller {
        subject: String::new(),
        ..Caller::platform("none")
    };
    let health = Request::new(&nobody, Method::GET, "/v1/platform/health")
        .send(&deployment, &server)
        .await;
    let health = health.expect(200).unwrap().json().unwrap();
    let names: Vec<_> = health["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["name"].clone())
        .collect();
    assert_eq!(
        names,
        [json!("controlPlane"), json!("postgres"), json!("claims")]
    );
    let alive = Request::new(&nobody, Method::GET, "/health")
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(alive.json().unwrap()["status"], "ok");
}

#[tokio::test]
async fn a_denial_by_the_handler_is_in_the_trail() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let id = make_tenant(&deployment, &server).await;
    let own = Caller::of_tenant(&id, "tenant_admin");
    let path = format!("/v1/tenants/{id}");
    let denied = Request::new(&own, Method::PATCH, &path).json(&json!({"plan": "growth"}));
    assert_eq!(
        code(&denied.send(&deployment, &server).await),
        (403, "ROLE_DENIED".into())
    );
    let trail = format!("{path}/audit?action=tenants.update&actor={}", own.subject);
    let trail = Request::new(&own, Method::GET, &trail)
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    let event = &trail.json().unwrap()["data"][0];
    assert_eq!(
        (event["outcome"].clone(), event["code"].clone()),
        (json!("denied"), json!("ROLE_DENIED"))
    );
    assert_eq!(
        (event["resource"].clone(), event["clientAddress"].clone()),
        (json!(id), json!("192.0.2.7"))
    );
}

#[tokio::test]
async fn a_pinned_token_does_nothing_beyond_its_workspace() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let id = make_tenant(&deployment, &server).await;
    let own = Caller::of_tenant(&id, "tenant_admin");
    let workspace = json!({"slug": "dev", "displayName": "Dev", "capabilities": []});
    let made = Request::new(&own, Method::POST, "/v1/workspaces")
        .json(&workspace)
        .send(&deployment, &server)
        .await;
    let workspace_id = text(&made.expect(201).unwrap(), "/id");
    let pinned = Caller::of_tenant(&id, "tenant_admin").pinned_to(&workspace_id);
    let more = json!({"slug": "more", "displayName": "More", "capabilities": []});
    for request in [
        Request::new(&pinned, Method::POST, "/v1/workspaces").json(&more),
        Request::new(
            &pinned,
            Method::DELETE,
            &format!("/v1/workspaces/{workspace_id}"),
        ),
        Request::new(&pinned, Method::PATCH, &format!("/v1/tenants/{id}"))
            .json(&json!({"displayName": "x"})),
    ] {
        assert_eq!(
            code(&request.send(&deployment, &server).await),
            (403, "PERMISSION_DENIED".into())
        );
    }
}

#[tokio::test]
async fn two_requests_never_share_the_last_place_of_a_plan() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let id = make_tenant(&deployment, &server).await;
    let own = Caller::of_tenant(&id, "tenant_admin");
    let posts = (0..8).map(|n| {
        let body = json!({"slug": format!("dev-{n}"), "displayName": "Dev", "capabilities": []});
        Request::new(&own, Method::POST, "/v1/workspaces")
            .json(&body)
            .send(&deployment, &server)
    });
    let mut statuses: Vec<_> = futures::future::join_all(posts)
        .await
        .iter()
        .map(|reply| reply.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 201, 403, 403, 403, 403, 403]);
}

#[tokio::test]
async fn a_taken_slug_leaves_nothing_behind() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let body = tenant();
    let post = || Request::new(&admin, Method::POST, "/v1/tenants").json(&body);
    post().send(&deployment, &server).await.expect(201).unwrap();
    assert_eq!(
        code(&post().send(&deployment, &server).await),
        (409, "TENANT_SLUG_TAKEN".into())
    );
    let (tenants, events): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM postern.tenant), (SELECT count(*) FROM postern.audit_event)",
    )
    .fetch_one(&deployment.pool)
    .await
    .unwrap();
    assert_eq!((tenants, events), (1, 1));
}
