//! Exactly once: one effect a key, whatever is killed and when.

use std::time::Duration;

use http::Method;
use postern_claims::{Claim as Held, ClaimStore, Holder, LEASE};
use postern_context::Claim;
use postern_contract::Family;
use postern_contract::idempotency::{IdempotencyKey, Scope};
use postern_harness::http::Reply;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Caller, Deployment, Request, Server, code, make_tenant, tenant};

fn post(caller: &Caller, key: &str, body: &Value) -> Request {
    Request::new(caller, Method::POST, "/v1/tenants")
        .key(key)
        .json(body)
}

/// A tenant made, or replayed, under this key.
async fn made(
    deployment: &Deployment,
    server: &Server,
    caller: &Caller,
    key: &str,
    body: &Value,
) -> Reply {
    let reply = post(caller, key, body).send(deployment, server).await;
    reply.expect(201).unwrap()
}

async fn tenants(deployment: &Deployment) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM postern.tenant")
        .fetch_one(&deployment.pool)
        .await
        .unwrap()
}

async fn forget_claims(deployment: &Deployment) {
    sqlx::query("DELETE FROM postern_claims.claim")
        .execute(&deployment.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_retry_replays_byte_for_byte() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let first = made(&deployment, &server, &admin, "abc", &body).await;
    assert_eq!(first.header("x-idempotency-replayed"), None);
    forget_claims(&deployment).await;
    // The quoted form is the same key.
    let again = made(&deployment, &server, &admin, "\"abc\"", &body).await;
    assert_eq!(again.header("x-idempotency-replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    // Somebody else's key of the same name is another key.
    let other = post(&Caller::platform("platform_admin"), "abc", &tenant());
    assert_eq!(
        other
            .send(&deployment, &server)
            .await
            .header("x-idempotency-replayed"),
        None
    );
    assert_eq!(tenants(&deployment).await, 2);
}

#[tokio::test]
async fn a_key_is_good_for_one_request() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    made(&deployment, &server, &admin, "k", &tenant()).await;
    let reply = post(&admin, "k", &tenant())
        .send(&deployment, &server)
        .await;
    assert_eq!(code(&reply), (422, "IDEMPOTENCY_KEY_REUSED".into()));
}

#[tokio::test]
async fn a_verdict_on_the_data_is_kept_and_anything_else_is_not() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    made(&deployment, &server, &admin, "one", &body).await;
    let taken = post(&admin, "two", &body).send(&deployment, &server).await;
    assert_eq!(code(&taken), (409, "TENANT_SLUG_TAKEN".into()));
    sqlx::query("UPDATE postern.tenant SET slug = 'elsewhere'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    let again = post(&admin, "two", &body).send(&deployment, &server).await;
    assert_eq!(again.header("x-idempotency-replayed"), Some("true"));
    assert_eq!(again.body, taken.body);
    // A malformed body decided nothing: the key is free.
    assert_eq!(
        post(&admin, "three", &json!({}))
            .send(&deployment, &server)
            .await
            .status,
        400
    );
    made(&deployment, &server, &admin, "three", &tenant()).await;
}

#[tokio::test]
async fn an_expired_record_counts_as_absent() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    made(&deployment, &server, &admin, "k", &tenant()).await;
    let kept = "SELECT coalesce(sum(bytes), 0)::bigint FROM postern_idempotency.kept";
    let before: i64 = sqlx::query_scalar(kept)
        .fetch_one(&deployment.pool)
        .await
        .unwrap();
    assert!(before > 0);
    sqlx::query("UPDATE postern_idempotency.record SET expires_at = now()")
        .execute(&deployment.pool)
        .await
        .unwrap();
    forget_claims(&deployment).await;
    let anew = made(&deployment, &server, &admin, "k", &tenant()).await;
    assert_eq!(anew.header("x-idempotency-replayed"), None);
    assert_eq!(tenants(&deployment).await, 2);
    let bytes: i64 =
        sqlx::query_scalar("SELECT sum(bytes)::bigint FROM postern_idempotency.record")
            .fetch_one(&deployment.pool)
            .await
            .unwrap();
    let counted: i64 = sqlx::query_scalar(kept)
        .fetch_one(&deployment.pool)
        .await
        .unwrap();
    assert_eq!(counted, bytes, "the quota counts what stands");
}

#[tokio::test]
async fn beyond_the_quota_bodies_are_left_out() {
    let deployment = Deployment::new().await;
    let server = deployment
        .serve_with("a", &json!({"idempotency": {"quotaBytes": 10}}))
        .await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let first = made(&deployment, &server, &admin, "k", &body).await;
    let again = made(&deployment, &server, &admin, "k", &body).await;
    assert_eq!(again.header("x-idempotency-body"), Some("omitted"));
    assert_eq!(
        (again.header("location"), again.body.len()),
        (first.header("location"), 0)
    );
    assert_eq!(tenants(&deployment).await, 1);
}

#[tokio::test]
async fn parallel_duplicates_have_one_effect() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let other = deployment.serve("b").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let ask = |server| post(&admin, "k", &body).send(&deployment, server);
    let replies =
        futures::future::join_all((0..16).map(|n| ask(if n % 2 == 0 { &server } else { &other })))
            .await;
    let fresh = replies
        .iter()
        .filter(|r| r.status == 201 && r.header("x-idempotency-replayed").is_none())
        .count();
    assert_eq!(fresh, 1);
    for reply in &replies {
        assert!(matches!(reply.status, 201 | 409), "{reply:?}");
    }
    assert_eq!(tenants(&deployment).await, 1);
}

#[tokio::test]
async fn who_would_wait_for_a_running_one_is_told_so() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let held = deployment.arm("after-record");
    let running = post(&admin, "k", &body).send(&deployment, &server);
    let meanwhile = async {
        held.reached().await;
        let reply = post(&admin, "k", &body).send(&deployment, &server).await;
        held.release();
        reply
    };
    let (done, refused) = tokio::join!(running, meanwhile);
    assert_eq!(code(&refused), (409, "IDEMPOTENCY_IN_PROGRESS".into()));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(done.status, 201);
}

/// Kills the handler at each step of the protocol. The retry has one effect in the
/// end: executed where nothing was committed, replayed where it was.
#[tokio::test]
async fn killed_at_any_step_there_is_one_effect() {
    let deployment = Deployment::new().await;
    let mut server = deployment.serve("first").await;
    let admin = Caller::platform("platform_admin");
    let mut expected = 0;
    for (point, committed) in [
        ("before-record", false),
        ("after-record", false),
        ("after-effect", false),
        ("before-commit", false),
        ("after-commit", true),
        ("after-claim", true),
    ] {
        let body = tenant();
        let held = deployment.arm(point);
        let lost = post(&admin, point, &body).try_send(&deployment, &server);
        let kill = async {
            held.reached().await;
            server.process.signal(Signal::KILL).unwrap();
        };
        let (lost, ()) = tokio::join!(lost, kill);
        assert!(lost.is_err(), "{point}: {lost:?}");
        held.release();
        server = deployment.serve(point).await;
        let retry = retry(&deployment, &server, &admin, point, &body)
            .await
            .expect(201)
            .unwrap();
        let replayed = retry.header("x-idempotency-replayed") == Some("true");
        assert_eq!(replayed, committed, "{point}");
        expected += 1;
        assert_eq!(tenants(&deployment).await, expected, "{point}");
    }
}

/// As a client does: again after Retry-After, while the database notices the death.
async fn retry(
    deployment: &Deployment,
    server: &Server,
    admin: &Caller,
    key: &str,
    body: &Value,
) -> Reply {
    let ask = async || {
        let reply = post(admin, key, body).send(deployment, server).await;
        anyhow::ensure!(reply.status != 409, "{reply:?}");
        Ok(reply)
    };
    postern_harness::wait_for("the retry", Duration::from_secs(10), ask)
        .await
        .unwrap()
}

/// nginx drops the upstream when the client leaves, and hyper the request's future.
#[tokio::test]
async fn a_mutation_outlives_its_client_and_is_awaited_when_draining() {
    let deployment = Deployment::new().await;
    let mut server = deployment.serve("a").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let held = deployment.arm("before-commit");
    let asked = tokio::time::timeout(
        Duration::from_millis(500),
        post(&admin, "k", &body).send(&deployment, &server),
    )
    .await;
    assert!(asked.is_err(), "it was to be held");
    held.reached().await;
    server.process.signal(Signal::TERM).unwrap();
    let ready = async || {
        let reply = server
            .http
            .get(&format!("http://{}/readyz", server.ports[1].address()))
            .await?;
        anyhow::ensure!(reply.status == 503, "{reply:?}");
        Ok(())
    };
    postern_harness::wait_for("draining to be seen", Duration::from_secs(5), ready)
        .await
        .unwrap();
    assert!(
        server.process.ended().unwrap().is_none(),
        "it waits for the mutation"
    );
    held.release();
    let ended = async || {
        let status = server.process.ended()?;
        anyhow::ensure!(status.is_some_and(|status| status.success()), "{status:?}");
        Ok(())
    };
    postern_harness::wait_for("the end", Duration::from_secs(10), ended)
        .await
        .unwrap();
    assert_eq!(tenants(&deployment).await, 1);
}

#[tokio::test]
async fn a_repeated_or_malformed_key_is_refused() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let mut twice = post(&admin, "a", &tenant());
    twice.headers.push(("idempotency-key".into(), "b".into()));
    assert_eq!(
        code(&twice.send(&deployment, &server).await),
        (400, "HEADER_REPEATED".into())
    );
    let reply = post(&admin, "two words", &tenant())
        .send(&deployment, &server)
        .await;
    assert_eq!(code(&reply), (400, "IDEMPOTENCY_KEY_INVALID".into()));
}

#[tokio::test]
async fn what_was_created_is_there_for_everybody_else() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let other = deployment.serve("b").await;
    let id = make_tenant(&deployment, &server).await;
    let admin = Caller::platform("platform_operator");
    let found = Request::new(&admin, Method::GET, &format!("/v1/tenants/{id}"))
        .send(&deployment, &other)
        .await;
    found.expect(200).unwrap();
}

#[tokio::test]
async fn what_expired_is_swept() {
    let deployment = Deployment::new().await;
    let more = json!({"idempotency": {"sweepMs": 50}});
    let server = deployment.serve_with("a", &more).await;
    for _ in 0..3 {
        make_tenant(&deployment, &server).await;
    }
    for sql in [
        "UPDATE postern_idempotency.record SET expires_at = now()",
        "UPDATE postern_claims.claim SET lapses_at = now()",
    ] {
        sqlx::query(sql).execute(&deployment.pool).await.unwrap();
    }
    let swept = async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM postern_idempotency.record) + (SELECT count(*) FROM postern_claims.claim)
                  + (SELECT sum(bytes) FROM postern_idempotency.kept)::bigint",
        )
        .fetch_one(&deployment.pool)
        .await?;
        anyhow::ensure!(left == 0, "{left} are left");
        Ok(())
    };
    postern_harness::wait_for("the sweep", Duration::from_secs(10), swept)
        .await
        .unwrap();
}

/// The runner claims before the handler sees the request: the handler settles it.
#[tokio::test]
async fn a_claim_is_marked_or_released() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let claims = ClaimStore::over(deployment.pool.clone(), Duration::from_secs(1));
    let scope = Scope {
        issuer: "https://issuer",
        tenant: "",
        subject: &admin.subject,
        family: Family::Tenants,
        workspace: "",
    };
    let scope = scope.digest(&IdempotencyKey::parse(b"k").unwrap());
    let send = async |body: &Value| {
        let claimed = claims.claim(&scope).await.unwrap();
        let Held::New(Holder(holder)) = claimed else {
            panic!("{claimed:?}")
        };
        let mut request = post(&admin, "k", body);
        request.claim = Some(Claim {
            scope: scope.to_vec(),
            holder: holder.to_vec(),
        });
        request.send(&deployment, &server).await.status
    };
    assert_eq!(send(&json!({})).await, 400);
    // Released: the next claim is new again, and this time it is marked.
    assert_eq!(send(&tenant()).await, 201);
    let done = claims.claim(&scope).await.unwrap();
    assert!(
        matches!(
            done,
            Held::Done {
                outcome: Some(_),
                ..
            }
        ),
        "{done:?}"
    );
}

/// A client leaves in the middle of its body: the claim goes at once, not when it lapses.
#[tokio::test]
async fn a_claim_goes_with_a_body_that_breaks_off() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let admin = Caller::platform("platform_admin");
    let claims = ClaimStore::over(deployment.pool.clone(), Duration::from_secs(1));
    let scope = [7; 32];
    let Held::New(Holder(holder)) = claims.claim(&scope).await.unwrap() else {
        panic!("nobody has claimed this")
    };
    let mut request = post(&admin, "k", &tenant());
    request.claim = Some(Claim {
        scope: scope.to_vec(),
        holder: holder.to_vec(),
    });
    let context = request.context(&deployment);
    let head = format!(
        "POST /v1/tenants HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\
         Idempotency-Key: k\r\nX-Postern-Context: {context}\r\n\r\n{{\"slug\":"
    );
    let mut client = TcpStream::connect(server.ports[0].address()).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    drop(client);
    let released = async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM postern_claims.claim")
            .fetch_one(&deployment.pool)
            .await?;
        anyhow::ensure!(left == 0, "{left} claims are left");
        Ok(())
    };
    // Well before it would lapse; and lapsed rows stay until a sweep, half a minute later.
    postern_harness::wait_for("the claim to go", LEASE / 2, released)
        .await
        .unwrap();
}

/// The database ends every connection, one of them in the middle of a transaction.
#[tokio::test]
async fn a_database_that_breaks_off_costs_one_retry() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (admin, body) = (Caller::platform("platform_admin"), tenant());
    let held = deployment.arm("after-effect");
    let running = post(&admin, "k", &body).send(&deployment, &server);
    let cut = async {
        held.reached().await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'postern-handlers' AND datname = current_database()",
        )
        .execute(&deployment.pool)
        .await
        .unwrap();
        held.release();
    };
    let (lost, ()) = tokio::join!(running, cut);
    assert_eq!(code(&lost), (503, "BACKEND_UNAVAILABLE".into()));
    assert!(lost.header("retry-after").is_some());
    let retry = retry(&deployment, &server, &admin, "k", &body)
        .await
        .expect(201)
        .unwrap();
    assert_eq!(retry.header("x-idempotency-replayed"), None);
    assert_eq!(tenants(&deployment).await, 1);
}
