//! TLS to PostgreSQL: all that the family says goes over it, to whom it meant to say it.

use std::path::Path;
use std::time::Duration;

use postern_harness::certificates::Authority;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_postgres::{Address, Bounds, cluster};
use serde_json::json;

use crate::cases::seeded;
use crate::shares::view;
use crate::support::{LOGIN, Served, bounds};

const SOON: Duration = Duration::from_secs(20);

/// Connections of the data login, and how many of them are encrypted.
const CONNECTIONS: &str = "SELECT count(*)::text || ' of ' || count(*) FILTER (WHERE s.ssl)::text \
     FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.usename = 'postern_data'";

/// Statements of the data login that stand at a gate.
const WAITING: &str = "SELECT count(*)::text FROM pg_stat_activity \
     WHERE wait_event = 'advisory' AND usename = 'postern_data'";

/// A server that speaks TLS with the data login and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn rows_over_tls() {
    let folder = postern_harness::temporary_folder("postgres-tls").unwrap();
    let port = Port::free().unwrap();
    let server = Cluster::start(folder.path(), port.number(), Durability::Volatile)
        .await
        .unwrap();
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let known = authority.write(folder.path(), "known").unwrap();
    let unknown = stranger.write(folder.path(), "unknown").unwrap();
    let by = |mode: &str, file: &Path| format!("sslmode={mode}&sslrootcert={}", file.display());
    let verified = by("verify-full", &known);

    // Before it does, a connection that has to be encrypted is none.
    let said = prepared(&format!("{}?{verified}", server.url())).await;
    assert!(said.unwrap_err().contains("the server speaks no TLS"));
    server.encrypt(&authority, LOGIN).await.unwrap();
    prepared(&format!("{}?{verified}", server.url()))
        .await
        .unwrap();

    let as_login = |host: &str, query: &str| {
        let port = port.number();
        let url = format!("postgres://{LOGIN}:secret@{host}:{port}/postgres?{query}");
        Address::parse(&url).unwrap()
    };
    let elsewhere = |query: &str| as_login("elsewhere", &format!("{query}&hostaddr=127.0.0.1"));
    let over = async |address: Address| {
        Served::over(&server.url(), address, None, crate::support::bounds(), None).await
    };
    let good = as_login("127.0.0.1", &verified);
    // A statement's own end comes too late to be taken for a cancelled one's.
    let bounds = Bounds {
        statement: Duration::from_secs(60),
        ..bounds()
    };
    let served = Served::over(&server.url(), good.clone(), Some(good), bounds, None).await;
    let workspace = seeded(&served).await;
    let row = json!({"id": 77, "name": "n"});
    served.post(&workspace, "rows/labels", &row).await.ok();
    // The listener's connection, too.
    let encrypted = async || {
        let told = served.text(&workspace, CONNECTIONS).await.unwrap();
        let (all, encrypted) = told.split_once(" of ").unwrap();
        anyhow::ensure!(all == encrypted && all.parse::<u32>()? >= 2, "{told}");
        Ok(())
    };
    postern_harness::wait_for("two encrypted connections", SOON, encrypted)
        .await
        .unwrap();

    // Whoever asks for less gets as much as it asks for.
    for less in [
        as_login("127.0.0.1", ""),
        as_login("127.0.0.1", "sslmode=require"),
        elsewhere("sslmode=require"),
        elsewhere(&by("verify-ca", &known)),
    ] {
        let served = over(less).await;
        served.get(&workspace, "rows/labels").await.ok();
    }
    // Who is not vouched for, is called something else, or is spoken to in clear: nobody.
    for wrong in [
        as_login("127.0.0.1", &by("verify-full", &unknown)),
        elsewhere(&by("verify-ca", &unknown)),
        elsewhere(&by("require", &unknown)),
        elsewhere(&verified),
        as_login("127.0.0.1", "sslmode=disable"),
    ] {
        let served = over(wrong).await;
        let answer = served.get(&workspace, "rows/labels").await;
        assert_eq!(answer.refused(), (503, "BACKEND_UNAVAILABLE".into()));
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    // What the operator reads.
    let place = server.url().replace("127.0.0.1", "elsewhere");
    for (url, what) in [
        (
            format!("{}?{}", server.url(), by("verify-full", &unknown)),
            "vouched for by nobody trusted here",
        ),
        (
            format!("{place}?{verified}&hostaddr=127.0.0.1"),
            "for another name than the URL's: ",
        ),
    ] {
        let said = prepared(&url).await.unwrap_err();
        assert!(said.contains(what) && said.lines().count() == 1, "{said}");
    }

    // A statement whose client left is cancelled over TLS.
    view(&served, &workspace, "pg_advisory_xact_lock_shared(4711)").await;
    let mut gate = served.admin.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(4711)")
        .execute(&mut *gate)
        .await
        .unwrap();
    let waiting = async |so_many: &str| {
        let there = async || {
            let there = served.text(&workspace, WAITING).await;
            anyhow::ensure!(there.as_deref() == Some(so_many), "{there:?} wait");
            Ok(())
        };
        let what = format!("{so_many} to wait");
        postern_harness::wait_for(&what, SOON, there).await.unwrap();
    };
    tokio::select! {
        answer = served.get(&workspace, "rows/slow") => panic!("the gate is not shut: {answer:?}"),
        () = waiting("1") => {}
    }
    waiting("0").await;
    gate.rollback().await.unwrap();
}

async fn prepared(url: &str) -> Result<(), String> {
    let address = Address::parse(url).unwrap();
    let prepared = cluster::prepare(&address, LOGIN, Some(b"secret")).await;
    prepared.map_err(|error| error.to_string())
}
