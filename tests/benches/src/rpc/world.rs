//! What a runner with the whole chain needs around it: an issuer's keys over HTTP, a
//! directory, keys to seal with, and a token. All on loopback and in a folder of the run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::call::WORKSPACE;
use super::directory;

const AUDIENCE: &str = "postern";
const TENANT: &str = "tnt_01JD0000000000000000000001";
/// Longer than any run.
const LIFETIME: u64 = 24 * 3600;

/// The surroundings of a runner; they serve for as long as this process lives.
pub(crate) struct World {
    /// The runner's configuration file.
    pub(crate) config: PathBuf,
    /// A token that may read the workspace, RS256, of about 900 bytes.
    pub(crate) token: String,
    settings: Value,
    key: EncodingKey,
    issuer: String,
}

impl World {
    /// Starts everything and writes the configuration.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048)?;
        let key = EncodingKey::from_rsa_pem(pem(key.as_der()?.as_ref()).as_bytes())?;
        let issuer = format!("http://{}", serve_keys(&key)?);
        let socket = folder.join("directory.sock");
        directory::serve(&socket, TENANT, WORKSPACE)?;
        let keys = folder.join("context.keys");
        std::fs::write(&keys, format!("bench {}\n", STANDARD.encode([7; 32])))?;
        let config = json!({
            "log": {"to": "stderr", "level": "warn"},
            "plugins": {
                "jwt": {"issuers": [{
                    "issuer": issuer,
                    "jwksUri": format!("{issuer}/keys"),
                    "audiences": [AUDIENCE],
                }]},
                "authorize": {"directory": format!("unix:{}", socket.display())},
                // Connected to by the first mutation; there is none here.
                "idempotency": {
                    "claims": {"url": "postgres://nobody@127.0.0.1:9/none"},
                    "outcomeKeyFile": keys,
                },
                "context": {"keyFile": keys},
            },
        });
        Ok(Self {
            config: write(folder, "runner", &config)?,
            token: token(&key, &issuer, 0)?,
            settings: config,
            key,
            issuer,
        })
    }

    /// So many tokens, none like another.
    pub(crate) fn tokens(&self, count: u32) -> Result<Vec<String>> {
        let token = |n| token(&self.key, &self.issuer, n);
        (1..=count).map(token).collect()
    }

    /// Another configuration file, in which the section `jwt` differs.
    pub(crate) fn with_jwt(
        &self,
        folder: &Path,
        name: &str,
        field: &str,
        value: Value,
    ) -> Result<PathBuf> {
        let mut settings = self.settings.clone();
        let jwt = settings
            .pointer_mut("/plugins/jwt")
            .and_then(Value::as_object_mut);
        let jwt = jwt.context("no section jwt")?;
        jwt.insert(field.to_owned(), value);
        write(folder, name, &settings)
    }
}

/// The chain of a route, in the order it has at the gateway. The limits are far above
/// what a bench asks: what is measured is deciding, not refusing.
pub(crate) fn chain() -> Vec<(String, String)> {
    let limit = r#"{"rate": 4000000000, "burst": 4000000000}"#;
    let chain = [
        ("correlation-id", "{}"),
        ("headers", "{}"),
        ("address-limit", limit),
        ("jwt", "{}"),
        ("rate-limit", limit),
        ("authorize", "{}"),
        ("idempotency", "{}"),
        ("context", "{}"),
    ];
    chain
        .map(|(name, conf)| (name.to_owned(), conf.to_owned()))
        .into()
}

fn write(folder: &Path, name: &str, settings: &Value) -> Result<PathBuf> {
    let path = folder.join(format!("{name}.yaml"));
    // JSON is YAML.
    std::fs::write(&path, serde_json::to_vec_pretty(settings)?)?;
    Ok(path)
}

fn token(key: &EncodingKey, issuer: &str, number: u32) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "8f14e45f-ceea-467f-a0e6-5f3c2b9d1a77",
        "iat": now, "nbf": now, "exp": now + LIFETIME, "jti": format!("1f0e3dad-9990-4c3b-b3f2-{number:012}"),
        "typ": "Bearer", "azp": "console", "sid": "c4ca4238-a0b9-4382-8dcc-509a6f75849b",
        "tenant_id": TENANT, "plan_id": "growth",
        "realm_access": {"roles": ["tenant_admin"]},
        "scope": "workspaces:read workspaces:write tenants:read",
    });
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(KID.to_owned());
    encode(&header, &claims, key).context("cannot sign the token")
}

const KID: &str = "bench";

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    )
}

/// Serves the public key to whoever asks, whatever they ask.
fn serve_keys(key: &EncodingKey) -> Result<SocketAddr> {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::RS256)?;
    jwk.common.key_id = Some(KID.to_owned());
    let body = serde_json::to_string(&JwkSet { keys: vec![jwk] })?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            if head.take_while(|line| !line.is_empty()).count() > 0 {
                let length = body.len();
                let answer = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                if let Err(error) = answer {
                    eprintln!("the key set could not be sent: {error}");
                }
            }
        }
    });
    Ok(address)
}
