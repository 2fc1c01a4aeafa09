//! The accounts file: who may have a token, and with which claims.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything in the accounts file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Accounts {
    /// The one realm that is served.
    pub realm: String,
    /// `aud` of every token.
    pub audience: String,
    /// Lifetime of a token, in seconds.
    pub token_seconds: u64,
    /// Applications. The password grant names one of them too.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// People.
    #[serde(default)]
    pub users: Vec<User>,
}

/// An application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Client {
    /// Its name, which becomes `azp`.
    pub client_id: String,
    /// Its secret. Without one it is public: password grant only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Claims of its own tokens (`client_credentials`).
    #[serde(default)]
    pub claims: Map<String, Value>,
}

/// A person.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct User {
    /// The name to log in with, which is also `sub` unless the claims say another.
    pub username: String,
    /// The password, as it is: this is for development.
    pub password: String,
    /// What the tokens say besides `iss`, `aud`, `exp`, `iat`, `nbf`, `azp`, `sid`.
    #[serde(default)]
    pub claims: Map<String, Value>,
}

impl Accounts {
    /// Reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or has a field that is not one of those above.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the accounts file {}", path.display()))?;
        serde_yaml_ng::from_str(&text)
            .with_context(|| format!("the accounts file {} is not right", path.display()))
    }
}
