//! A development identity issuer: signs tokens for accounts in a file.
//!
//! It is for development and tests. Passwords stand in the accounts file as
//! they are, nothing is rate-limited, and there is no refresh or revocation.
//!
//! The paths are Keycloak's, so that a configuration written against this
//! issuer points at a Keycloak realm by changing one URL:
//!
//! | path under `/realms/<realm>` | answer |
//! |---|---|
//! | `/.well-known/openid-configuration` | the addresses of the other two |
//! | `/protocol/openid-connect/certs` | the public keys (JWKS) |
//! | `/protocol/openid-connect/token` | `password` and `client_credentials` grants, form-encoded |
//! | `/mint` | only with `--mint`: signs whatever claims it is sent, for tests |

mod accounts;
mod keys;
mod mint;
mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

pub use accounts::{Accounts, Client, User};
use keys::Keys;

/// Bodies are forms of a few fields; anything larger is a mistake.
const MAX_BODY: usize = 64 * 1024;

/// What the issuer serves and where it keeps its keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address to listen on, e.g. `127.0.0.1:9081`.
    pub listen: SocketAddr,
    /// The accounts file (YAML or JSON), read again at each token request.
    pub accounts: PathBuf,
    /// Folder of the private keys; made on the first start, so that tokens
    /// stay valid over a restart.
    pub keys: PathBuf,
    /// Whether `POST /realms/<realm>/mint` signs arbitrary claims.
    pub mint: Mint,
}

/// Whether the issuer signs whatever it is asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mint {
    /// `/mint` is there: anybody who reaches the port is anybody they like.
    Open,
    /// There is no such path.
    Closed,
}

struct Issuer {
    /// `http://<address>`, without the realm.
    base: String,
    accounts: PathBuf,
    keys: Keys,
}

impl Issuer {
    /// The `iss` of a realm's tokens.
    fn issuer(&self, realm: &str) -> String {
        format!("{}/realms/{realm}", self.base)
    }

    /// The accounts as the file has them now, if `realm` is theirs.
    fn accounts(&self, realm: &str) -> Result<Accounts, Refusal> {
        let accounts = Accounts::read(&self.accounts).map_err(Refusal::internal)?;
        if accounts.realm == realm {
            Ok(accounts)
        } else {
            Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "invalid_request",
                "no such realm",
            ))
        }
    }
}

/// Binds, says so on standard error, and serves until the process ends.
///
/// # Errors
/// A bad accounts file or key folder, or an address in use: all of it before
/// anything listens.
pub async fn serve(settings: Settings) -> Result<()> {
    let accounts = Accounts::read(&settings.accounts)?;
    let keys = Keys::load_or_generate(&settings.keys)?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let base = format!("http://{}", listener.local_addr()?);
    eprintln!(
        "dev-issuer: FOR DEVELOPMENT ONLY, passwords are in {}; realm at {base}/realms/{}",
        settings.accounts.display(),
        accounts.realm,
    );
    let issuer = Arc::new(Issuer {
        base,
        accounts: settings.accounts,
        keys,
    });
    axum::serve(listener, router(issuer, settings.mint))
        .await
        .context("the issuer stopped serving")
}

fn router(issuer: Arc<Issuer>, mint: Mint) -> Router {
    let mut routes = Router::new()
        .route(
            "/realms/{realm}/.well-known/openid-configuration",
            get(discovery),
        )
        .route(
            "/realms/{realm}/protocol/openid-connect/certs",
            get(key_set),
        )
        .route(
            "/realms/{realm}/protocol/openid-connect/token",
            post(token::grant),
        );
    if mint == Mint::Open {
        routes = routes.route("/realms/{realm}/mint", post(mint::sign));
    }
    routes
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(issuer)
}

async fn discovery(
    State(issuer): State<Arc<Issuer>>,
    Path(realm): Path<String>,
) -> Result<Response, Refusal> {
    issuer.accounts(&realm)?;
    let base = issuer.issuer(&realm);
    Ok(Json(json!({
        "issuer": base,
        "jwks_uri": format!("{base}/protocol/openid-connect/certs"),
        "token_endpoint": format!("{base}/protocol/openid-connect/token"),
        "grant_types_supported": ["password", "client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
    .into_response())
}

async fn key_set(
    State(issuer): State<Arc<Issuer>>,
    Path(realm): Path<String>,
) -> Result<Response, Refusal> {
    issuer.accounts(&realm)?;
    Ok(Json(issuer.keys.public()).into_response())
}

/// An OAuth error answer (RFC 6749, 5.2).
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status,
            error,
            description: description.into(),
        }
    }

    fn internal(cause: impl std::fmt::Display) -> Self {
        eprintln!("dev-issuer: {cause:#}");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            "see the issuer's log",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": self.error, "error_description": self.description});
        (self.status, [("cache-control", "no-store")], Json(body)).into_response()
    }
}
