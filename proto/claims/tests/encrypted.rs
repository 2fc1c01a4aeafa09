//! TLS to claims in PostgreSQL, row by row of the table in `docs/postgres.md`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postern_claims::ClaimStore;
use postern_harness::certificates::Authority;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::{ports::Port, temporary_folder};

const PATIENCE: Duration = Duration::from_secs(10);
/// Names a store to a process that the test starts of itself.
const ASKED: &str = "POSTERN_TEST_CLAIMS";

/// Asks the store of a URL; what went wrong otherwise, in the operator's words.
async fn ask(url: &str) -> Result<(), String> {
    let store = ClaimStore::connect(url, 1, PATIENCE).map_err(|error| error.to_string())?;
    store.migrate().await.map_err(|error| error.to_string())?;
    store.ping().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn claims_are_spoken_to_as_their_url_says() {
    if let Ok(url) = std::env::var(ASKED) {
        return ask(&url).await.unwrap();
    }
    let folder = temporary_folder("claims-tls").unwrap();
    let port = Port::free().unwrap();
    let server = Cluster::start(folder.path(), port.number(), Durability::Volatile)
        .await
        .unwrap();
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let known = authority.write(folder.path(), "known").unwrap();
    let unknown = stranger.write(folder.path(), "unknown").unwrap();
    let by = |mode: &str, file: &Path| format!("{mode}&sslrootcert={}", file.display());
    let url = server.url();
    // The same server under a name that its certificate does not have.
    let elsewhere = url.replace("127.0.0.1", "0.0.0.0");
    let at = |url: &str, query: &str| format!("{url}?{query}");

    // Before it speaks TLS.
    for clear in ["", "sslmode=disable", "sslmode=prefer"] {
        ask(&at(&url, clear)).await.expect(clear);
    }
    for encrypted in [
        "sslmode=require".into(),
        by("sslmode=verify-full", &known),
        by("", &known),
    ] {
        let told = ask(&at(&url, &encrypted)).await.expect_err(&encrypted);
        assert!(told.contains("the server speaks no TLS"), "{told}");
    }

    let (superuser, _) = url["postgres://".len()..].split_once(':').unwrap();
    server.encrypt(&authority, superuser).await.unwrap();
    for good in [
        at(&url, ""),
        at(&url, "sslmode=prefer"),
        at(&url, "sslmode=require"),
        at(&elsewhere, "sslmode=require"),
        at(&url, &by("sslmode=verify-full", &known)),
        at(&url, &by("ssl-mode=verify-full", &known)),
        at(&url, &by("", &known)),
    ] {
        ask(&good).await.expect(&good);
    }
    let anybody = "sslmode=verify-ca (which require with sslrootcert is)";
    let (nobody, name) = ("vouched for by nobody trusted here", "for another name");
    for (bad, what) in [
        // It speaks nothing else with this role.
        (at(&url, "sslmode=disable"), "no encryption"),
        // Its driver would take whoever a public authority vouches for.
        (at(&url, &by("sslmode=require", &unknown)), anybody),
        (at(&url, &by("sslmode=require", &known)), anybody),
        (at(&url, &by("sslmode=verify-ca", &known)), anybody),
        (at(&url, "sslmode=verify-ca"), "needs sslrootcert"),
        (at(&url, &by("sslmode=verify-full", &unknown)), nobody),
        (at(&url, &by("", &unknown)), nobody),
        (at(&elsewhere, &by("sslmode=verify-full", &known)), name),
        (at(&elsewhere, &by("", &known)), name),
        (at(&url, "sslmode=allow"), "not \"allow\""),
        (
            at(&url, "sslmode=require&sslrootcert=system"),
            "verifies nothing",
        ),
        (at(&url, "sslrootcert=/no/such"), "cannot read /no/such"),
    ] {
        let told = ask(&bad).await.expect_err(&bad);
        assert!(told.contains(what), "{bad}: {told}");
        assert!(!told.contains("postgres://"), "{told}");
    }
    let vouches = postern_claims::Authority::read(&known).unwrap();
    let mixed = ClaimStore::connect_trusting(&url, Some(&vouches), 1, PATIENCE);
    let told = mixed.expect_err("it would count for nothing").to_string();
    assert!(told.contains("sslrootcert=FILE of its URL"), "{told}");
    // Without a file it is the system that trusts, which a process is told at its start.
    for query in ["sslmode=verify-full", "sslrootcert=system"] {
        let told = ask(&at(&url, query)).await.expect_err(query);
        let known_to_none =
            told.contains(nobody) || told.contains("the system trusts no authority");
        assert!(known_to_none, "{query}: {told}");
        for (file, trusted) in [(&known, true), (&unknown, false)] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "claims_are_spoken_to_as_their_url_says"])
                .env("SSL_CERT_FILE", file)
                .env_remove("SSL_CERT_DIR")
                .env(ASKED, at(&url, query))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.success(), trusted, "{query}: {said}");
            assert!(trusted || said.contains(nobody), "{query}: {said}");
        }
    }
}
