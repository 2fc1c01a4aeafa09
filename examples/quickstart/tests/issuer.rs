//! The development issuer as a process, asked as an OAuth client asks.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use postern_harness::http::{Http, Reply, append};
use postern_harness::ports::Port;
use postern_harness::process::{Leave, Process};
use serde_json::{Value, json};
use tempfile::TempDir;

const ACCOUNTS: &str = "
realm: test
audience: api
tokenSeconds: 600
clients:
  - clientId: cli
  - clientId: robot
    secret: s3cret
    claims: {scope: 'tenants:read'}
users:
  - username: ada
    password: pw
    claims: {tenant_id: tnt_1, realm_access: {roles: [tenant_admin]}, scope: 'tenants:read tenants:write'}
";

/// A running issuer.
struct Issuer {
    _process: Process,
    _folder: TempDir,
    realm: String,
    http: Http,
}

impl Issuer {
    async fn start(flags: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = Port::free()?;
        let (process, realm) = serve(folder.path(), &port, flags).await?;
        Ok(Self {
            _process: process,
            _folder: folder,
            realm,
            http: Http::from_address(None),
        })
    }

    async fn token(&self, form: &str, authorization: Option<&str>) -> Result<Reply> {
        let url = format!("{}/protocol/openid-connect/token", self.realm);
        let mut headers = HeaderMap::new();
        append(
            &mut headers,
            "content-type",
            b"application/x-www-form-urlencoded",
        )?;
        if let Some(value) = authorization {
            append(&mut headers, "authorization", value.as_bytes())?;
        }
        let form = Bytes::from(form.to_owned());
        self.http.send(&Method::POST, &url, &headers, form).await
    }
}

async fn serve(folder: &Path, port: &Port, flags: &[&str]) -> Result<(Process, String)> {
    std::fs::write(folder.join("accounts.yaml"), ACCOUNTS)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_dev-issuer"));
    command
        .args(["--listen", &port.address().to_string()])
        .arg("--accounts")
        .arg(folder.join("accounts.yaml"))
        .arg("--keys")
        .arg(folder.join("keys"))
        .args(flags);
    let mut process = Process::spawn("issuer", command, folder, Leave::Killed)?;
    let realm = format!("http://{}/realms/test", port.address());
    let keys = format!("{realm}/protocol/openid-connect/certs");
    let http = Http::from_address(None);
    process
        .ready(Duration::from_secs(20), async || {
            http.get(&keys).await?.expect(200).map(drop)
        })
        .await?;
    Ok((process, realm))
}

fn claims(reply: &Reply) -> Result<Value> {
    let token = reply.text_at("/access_token")?;
    let part = token.split('.').nth(1).unwrap();
    Ok(serde_json::from_slice(
        &BASE64_URL_SAFE_NO_PAD.decode(part)?,
    )?)
}

#[tokio::test]
async fn both_grants_give_the_claims_of_the_contract() -> Result<()> {
    let issuer = Issuer::start(&[]).await?;
    let person = issuer
        .token(
            "grant_type=password&client_id=cli&username=ada&password=pw",
            None,
        )
        .await?
        .expect(200)?;
    assert_eq!(person.header("cache-control"), Some("no-store"));
    let told = claims(&person)?;
    for (name, value) in [
        ("iss", json!(issuer.realm)),
        ("aud", json!("api")),
        ("sub", json!("ada")),
        ("azp", json!("cli")),
        ("tenant_id", json!("tnt_1")),
        ("realm_access", json!({"roles": ["tenant_admin"]})),
    ] {
        assert_eq!(told.get(name), Some(&value), "{name}");
    }
    let second = |name: &str| told.get(name).and_then(Value::as_u64).unwrap();
    assert_eq!(second("exp") - second("iat"), 600);
    assert_eq!(second("nbf"), second("iat"));

    // By form, and by HTTP Basic ("robot:s3cret").
    let form = "grant_type=client_credentials&client_id=robot&client_secret=s3cret";
    let by_form = issuer.token(form, None).await?.expect(200)?;
    let by_header = issuer
        .token(
            "grant_type=client_credentials",
            Some("Basic cm9ib3Q6czNjcmV0"),
        )
        .await?
        .expect(200)?;
    for reply in [by_form, by_header] {
        assert_eq!(claims(&reply)?.get("sub"), Some(&json!("robot")));
    }
    Ok(())
}

#[tokio::test]
async fn whoever_is_not_known_gets_no_token() -> Result<()> {
    let issuer = Issuer::start(&[]).await?;
    for (form, status, error) in [
        (
            "grant_type=password&client_id=cli&username=ada&password=no",
            401,
            "invalid_grant",
        ),
        (
            "grant_type=password&client_id=cli&username=eve&password=pw",
            401,
            "invalid_grant",
        ),
        ("grant_type=password&client_id=cli", 401, "invalid_grant"),
        (
            "grant_type=password&client_id=x&username=ada&password=pw",
            401,
            "invalid_client",
        ),
        (
            "grant_type=client_credentials&client_id=robot",
            401,
            "invalid_client",
        ),
        (
            "grant_type=client_credentials&client_id=robot&client_secret=x",
            401,
            "invalid_client",
        ),
        (
            "grant_type=client_credentials&client_id=cli",
            400,
            "unauthorized_client",
        ),
        (
            "grant_type=magic&client_id=cli",
            400,
            "unsupported_grant_type",
        ),
        ("client_id=cli", 400, "invalid_request"),
    ] {
        let reply = issuer.token(form, None).await?.expect(status)?;
        assert_eq!(reply.text_at("/error")?, error, "{form}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_outlive_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let port = Port::free()?;
    let http = Http::from_address(None);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (_process, realm) = serve(folder.path(), &port, &[]).await?;
        let keys = http
            .get(&format!("{realm}/protocol/openid-connect/certs"))
            .await?;
        seen.push(keys.expect(200)?.body);
    }
    assert_eq!(seen.first(), seen.last());
    Ok(())
}

#[tokio::test]
async fn arbitrary_claims_are_signed_only_when_asked_for_at_the_start() -> Result<()> {
    let mut headers = HeaderMap::new();
    append(&mut headers, "content-type", b"application/json")?;
    let order = || Bytes::from(r#"{"claims":{"sub":"root"},"key":"p256","alg":"ES256"}"#);
    for (flags, status) in [(&[][..], 404), (&["--mint"], 200)] {
        let issuer = Issuer::start(flags).await?;
        let url = format!("{}/mint", issuer.realm);
        let reply = issuer
            .http
            .send(&Method::POST, &url, &headers, order())
            .await?;
        ensure!(reply.status == status, "{flags:?}: {reply:?}");
    }
    Ok(())
}

#[tokio::test]
async fn another_realm_is_not_served() -> Result<()> {
    let issuer = Issuer::start(&[]).await?;
    let url = issuer.realm.replace("/realms/test", "/realms/other");
    for path in [
        "/.well-known/openid-configuration",
        "/protocol/openid-connect/certs",
    ] {
        issuer
            .http
            .get(&format!("{url}{path}"))
            .await?
            .expect(404)?;
    }
    let own = format!("{}/.well-known/openid-configuration", issuer.realm);
    let told = issuer.http.get(&own).await?.expect(200)?;
    assert_eq!(told.text_at("/issuer")?, issuer.realm);
    Ok(())
}
