//! The directory over TCP: certificates on both sides, or nothing is told.

use postern_directory::directory_client::DirectoryClient;
use postern_directory::get_request::Key;
use postern_directory::{GetRequest, WatchRequest};
use postern_harness::certificates::Authority;
use postern_harness::ports::Port;
use serde_json::json;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::{Deployment, file, make_tenant};

/// A tenant, asked for over a new connection.
async fn ask(
    address: &str,
    tls: Option<ClientTlsConfig>,
    id: &str,
) -> Result<bool, Box<dyn std::error::Error>> {
    let endpoint = Endpoint::from_shared(address.to_owned())?;
    let endpoint = match tls {
        Some(tls) => endpoint.tls_config(tls)?,
        None => endpoint,
    };
    let mut client: DirectoryClient<Channel> = DirectoryClient::new(endpoint.connect().await?);
    client.watch(WatchRequest {}).await?;
    let key = Some(Key::TenantId(id.to_owned()));
    let got = client.get(GetRequest { key }).await?;
    Ok(got.into_inner().entry.is_some())
}

#[tokio::test]
async fn only_runners_of_the_authority_are_answered() {
    let (ours, runners, others) = (
        Authority::new().unwrap(),
        Authority::new().unwrap(),
        Authority::new().unwrap(),
    );
    let deployment = Deployment::new().await;
    let folder = deployment.folder.path();
    let (certificate, key) = ours.vouch().unwrap();
    let port = Port::free().unwrap();
    let more = json!({
        "directory": port.address().to_string(),
        "directoryTls": {
            "certificate": file(folder, "directory.pem", &certificate),
            "key": file(folder, "directory.key", &key),
            "clientCa": file(folder, "runners-ca.pem", runners.pem()),
        },
    });
    let server = deployment.serve_with("a", &more).await;
    let id = make_tenant(&deployment, &server).await;
    let trusting = |authority: &Authority| {
        let ca = Certificate::from_pem(authority.pem());
        ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(ca)
    };
    let showing = |tls: ClientTlsConfig, (certificate, key): (String, String)| {
        tls.identity(Identity::from_pem(certificate, key))
    };
    let secure = format!("https://{}", port.address());
    let runner = showing(trusting(&ours), runners.vouch().unwrap());
    let answer = ask(&secure, Some(runner), &id).await;
    assert!(
        matches!(answer, Ok(true)),
        "{answer:?}: {}",
        server.process.tail()
    );
    for (who, address, tls) in [
        ("no certificate", secure.clone(), Some(trusting(&ours))),
        (
            "another authority's",
            secure.clone(),
            Some(showing(trusting(&ours), others.vouch().unwrap())),
        ),
        (
            // It is the runner here that hangs up.
            "a server that the runner does not trust",
            secure,
            Some(showing(trusting(&others), runners.vouch().unwrap())),
        ),
        ("no TLS", format!("http://{}", port.address()), None),
    ] {
        let answer = ask(&address, tls, &id).await;
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
    let log = server.process.tail();
    for told in ["peer sent no certificates", "UnknownIssuer"] {
        assert!(log.contains(told), "{told}: {log}");
    }
}
