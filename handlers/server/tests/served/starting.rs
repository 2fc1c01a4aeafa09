//! What is wrong is said in one line, before anything listens.

use postern_harness::pooler::Pooler;
use postern_harness::ports::Port;
use serde_json::json;

use crate::support::{Deployment, binary, fails, file};

#[tokio::test]
async fn what_is_wrong_is_said_in_one_line() {
    let deployment = Deployment::new().await;
    let folder = deployment.folder.path();
    let taken = Port::free().unwrap();
    let _listener = std::net::TcpListener::bind(taken.address()).unwrap();
    let free = || Port::free().unwrap();
    let with = |name: &str, more| deployment.config(name, &[free(), free()], &more);
    let bad_keys = file(folder, "bad.keys", "k1 tenants AAAA\n");
    let few_keys = file(
        folder,
        "few.keys",
        &format!("k1 tenants {}\n", "A".repeat(43)),
    );
    for (config, named) in [
        (
            with("in-use", json!({"listen": taken.address().to_string()})),
            "listen: cannot listen on",
        ),
        (
            with(
                "admin-in-use",
                json!({"admin": taken.address().to_string()}),
            ),
            "admin: cannot listen on",
        ),
        (
            with(
                "no-folder",
                json!({"directory": "unix:/nowhere/at/all.sock"}),
            ),
            "directory: cannot listen on",
        ),
        (with("unknown", json!({"listne": 1})), "listne"),
        (
            with("bad-keys", json!({"contextKeys": bad_keys})),
            "bad.keys: line 1",
        ),
        (
            with("few-keys", json!({"contextKeys": few_keys})),
            "no key for the platform family",
        ),
        (
            with("no-keys", json!({"outcomeKeys": "/nowhere"})),
            "outcomeKeys: /nowhere",
        ),
        (
            with(
                "no-database",
                json!({"database": {"url": "postgres://u:hunter2@127.0.0.1:1/d"}}),
            ),
            "database: cannot connect",
        ),
        (
            with("bad-url", json!({"database": {"url": "hunter2"}})),
            "database:",
        ),
        (
            with("bad-level", json!({"log": {"level": "loud=loud=loud"}})),
            "log.level",
        ),
    ] {
        let (code, printed) = fails(binary().arg("--config").arg(&config));
        assert_eq!(code, Some(1), "{named}");
        let lines: Vec<_> = printed
            .lines()
            .filter(|line| !line.starts_with('{'))
            .collect();
        assert_eq!(lines.len(), 1, "{printed}");
        assert!(
            lines[0].starts_with("postern-handlers: ") && lines[0].contains(named),
            "{named}: {printed}"
        );
        assert!(!printed.contains("hunter2"), "{printed}");
    }
    // None of them, an address in use least of all, has made anything in the database.
    let touched: bool = sqlx::query_scalar("SELECT to_regnamespace('postern') IS NOT NULL")
        .fetch_one(&deployment.pool)
        .await
        .unwrap();
    assert!(!touched);
    assert_eq!(fails(binary().arg("--surprise")).0, Some(2));
    assert!(fails(&mut binary()).1.contains("--config"));
}

#[tokio::test]
async fn check_and_migrate_do_what_they_say() {
    let deployment = Deployment::new().await;
    let ports = [Port::free().unwrap(), Port::free().unwrap()];
    let unreachable = deployment.config(
        "check",
        &ports,
        &json!({"database": {"url": "postgres://u@127.0.0.1:1/d"}}),
    );
    let checked = binary()
        .arg("check")
        .arg("--config")
        .arg(&unreachable)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let config = deployment.config("migrate", &ports, &json!({}));
    // Several at once: they wait for each other.
    let started: Vec<_> = (0..4)
        .map(|_| {
            binary()
                .arg("--config")
                .arg(&config)
                .arg("migrate")
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in started {
        assert!(child.wait().unwrap().success());
    }
    let plans: i64 = sqlx::query_scalar("SELECT count(*) FROM postern.plan")
        .fetch_one(&deployment.pool)
        .await
        .unwrap();
    assert_eq!(plans, 4);
}

#[tokio::test]
async fn the_operator_sees_metrics() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    crate::support::make_tenant(&deployment, &server).await;
    assert_eq!(server.admin("/healthz").await.status, 200);
    assert_eq!(server.admin("/nothing").await.status, 404);
    let metrics = String::from_utf8_lossy(&server.admin("/metrics").await.body).into_owned();
    for line in [
        "postern_handler_requests_total{family=\"tenants\",route=\"tenants.create\",status=\"201\"} 1",
        "postern_idempotency_total{result=\"executed\"} 1",
        "postern_handler_request_seconds_bucket{family=\"tenants\",route=\"tenants.create\"",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// Debian's PgBouncer knows no prepared statements, which requests would meet now and then.
#[tokio::test]
async fn a_pooler_without_prepared_statements_is_told() {
    let deployment = Deployment::new().await;
    let rest = deployment.database.strip_prefix("postgres://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let server = place.split('/').next().unwrap().parse().unwrap();
    let pooler = Pooler::start(server, &[(user, password)], 4).await.unwrap();
    let url = pooler.url(&deployment.database);
    let more = json!({"database": {"url": url, "pooler": true, "migrate": false}});
    let ports = [Port::free().unwrap(), Port::free().unwrap()];
    let config = deployment.config("pooled", &ports, &more);
    let (code, printed) = fails(binary().arg("--config").arg(&config));
    assert_eq!(code, Some(1), "{printed}");
    let told = "postern-handlers: database.pooler: the pooler keeps no prepared statements";
    assert!(printed.contains(told), "{printed}");
}
