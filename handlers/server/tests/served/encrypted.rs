//! TLS to the control-plane database.

use std::path::Path;
use std::time::Duration;

use postern_harness::certificates::Authority;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{Deployment, binary, fails};

/// Connections of the handlers, how many of them are encrypted, and how many listen.
const CONNECTIONS: &str = "SELECT count(*), count(*) FILTER (WHERE s.ssl), \
     count(*) FILTER (WHERE query LIKE 'LISTEN%') FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) \
     WHERE application_name = 'postern-handlers'";

#[tokio::test]
async fn a_control_plane_over_tls() {
    let deployment = Deployment::new().await;
    let folder = deployment.folder.path();
    let port = Port::free().unwrap();
    let server = Cluster::start(folder, port.number(), Durability::Volatile)
        .await
        .unwrap();
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let known = authority.write(folder, "known").unwrap();
    let unknown = stranger.write(folder, "unknown").unwrap();
    let url = server.url();
    let (superuser, _) = url["postgres://".len()..].split_once(':').unwrap();
    server.encrypt(&authority, superuser).await.unwrap();
    let by = |mode: &str, file: &Path| format!("sslmode={mode}&sslrootcert={}", file.display());
    let elsewhere = url.replace("127.0.0.1", "0.0.0.0");

    let good = format!("{url}?{}", by("verify-full", &known));
    let serving = deployment
        .serve_with("a", &json!({"database": {"url": good}}))
        .await;
    let admin = PgPool::connect(&url).await.unwrap();
    // The one that listens for changes, too.
    let encrypted = async || {
        let (all, encrypted, listen): (i64, i64, i64) =
            sqlx::query_as(CONNECTIONS).fetch_one(&admin).await?;
        anyhow::ensure!(
            all == encrypted && listen > 0,
            "{encrypted} of {all} are encrypted, {listen} listen"
        );
        Ok(())
    };
    postern_harness::wait_for("encrypted connections", Duration::from_secs(20), encrypted)
        .await
        .unwrap();
    drop(serving);

    for (name, store, url, what) in [
        (
            "claims",
            "claims",
            format!("{url}?{}", by("require", &unknown)),
            "claims.url: sslmode=verify-ca (which require with sslrootcert is) is for postgres.url alone",
        ),
        (
            "claims-file",
            "claims",
            format!("{url}?sslrootcert=/no/such"),
            "claims.url: sslrootcert: cannot read /no/such",
        ),
        (
            "clear",
            "database",
            format!("{}?sslmode=require", deployment.database),
            "database: cannot connect: the server speaks no TLS",
        ),
        (
            "stranger",
            "database",
            format!("{url}?{}", by("verify-full", &unknown)),
            "database: cannot connect: the server's certificate is vouched for by nobody trusted here",
        ),
        (
            "name",
            "database",
            format!("{elsewhere}?{}", by("verify-full", &known)),
            "database: cannot connect: the server's certificate is for another name than the URL's",
        ),
        (
            "weak",
            "database",
            format!("{url}?{}", by("require", &known)),
            "database: sslmode=verify-ca (which require with sslrootcert is) is for postgres.url alone",
        ),
        (
            "mode",
            "database",
            format!("{url}?sslmode=allow"),
            "database: sslmode is disable, prefer, require, verify-ca or verify-full, not \"allow\"",
        ),
        (
            "file",
            "database",
            format!("{url}?sslrootcert=/no/such"),
            "database: sslrootcert: cannot read /no/such",
        ),
    ] {
        let ports = [Port::free().unwrap(), Port::free().unwrap()];
        let config = deployment.config(name, &ports, &json!({store: {"url": url}}));
        let (code, printed) = fails(binary().arg("--config").arg(&config));
        assert_eq!(code, Some(1), "{printed}");
        let mut lines = printed.lines().filter(|line| !line.starts_with('{'));
        let told = lines.next().unwrap();
        assert!(
            told.starts_with(&format!("postern-handlers: {what}")),
            "{told}"
        );
        assert_eq!(lines.next(), None);
    }
}
