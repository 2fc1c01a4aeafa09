//! The demo's accounts: a platform admin, and the tenant's admin once there is
//! a tenant. Their passwords are made up on the first run.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use postern_harness::http::Http;
use postern_harness::services::{AUDIENCE, Plan, REALM};
use postern_harness::token::{ALL_SCOPES, unique};
use serde_json::{Map, Value, json};

use crate::issuer::{Accounts, Client, User};

const CLIENT: &str = "postern-cli";
/// A working day, so that a pasted line still works in the evening.
const TOKEN_SECONDS: u64 = 12 * 3600;

/// Who a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    Platform,
    Tenant,
}

impl Login {
    fn username(self) -> &'static str {
        match self {
            Self::Platform => "platform-admin",
            Self::Tenant => "acme-admin",
        }
    }
}

/// The accounts file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    accounts: Accounts,
}

/// The accounts of an earlier run, or new ones.
pub(super) fn load(path: &Path) -> Result<Store> {
    let accounts = if path.exists() {
        Accounts::read(path)?
    } else {
        Accounts {
            realm: REALM.to_owned(),
            audience: AUDIENCE.to_owned(),
            token_seconds: TOKEN_SECONDS,
            clients: vec![Client {
                client_id: CLIENT.to_owned(),
                secret: None,
                claims: Map::new(),
            }],
            users: vec![user(Login::Platform, "platform_admin", None)],
        }
    };
    let store = Store {
        path: path.to_owned(),
        accounts,
    };
    store.write()?;
    Ok(store)
}

impl Store {
    /// Makes the tenant's admin, or moves it to this tenant.
    pub(super) fn add_tenant_admin(&mut self, tenant_id: &str) -> Result<()> {
        let new = user(Login::Tenant, "tenant_admin", Some(tenant_id));
        match self.user(Login::Tenant) {
            Some(known) => known.claims = new.claims,
            None => self.accounts.users.push(new),
        }
        self.write()
    }

    /// A token from the issuer, by the password grant.
    pub(super) async fn token(&mut self, http: &Http, plan: &Plan, login: Login) -> Result<String> {
        let user = self.user(login).context("no such account")?;
        // Both are letters, digits and hyphens: nothing to escape in a form.
        let form = format!(
            "grant_type=password&client_id={CLIENT}&username={}&password={}",
            user.username, user.password
        );
        let url = format!("{}/protocol/openid-connect/token", plan.issuer());
        let headers = HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )]);
        http.send(&Method::POST, &url, &headers, Bytes::from(form))
            .await?
            .expect(200)?
            .text_at("/access_token")
    }

    fn user(&mut self, login: Login) -> Option<&mut User> {
        self.accounts
            .users
            .iter_mut()
            .find(|user| user.username == login.username())
    }

    fn write(&self) -> Result<()> {
        let text = serde_yaml_ng::to_string(&self.accounts)?;
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn user(login: Login, role: &str, tenant_id: Option<&str>) -> User {
    let mut claims: Map<String, Value> = Map::from_iter([
        ("realm_access".to_owned(), json!({"roles": [role]})),
        ("scope".to_owned(), json!(ALL_SCOPES)),
    ]);
    if let Some(id) = tenant_id {
        claims.insert("tenant_id".to_owned(), json!(id));
    }
    User {
        username: login.username().to_owned(),
        password: unique(),
        claims,
    }
}
