//! The section `auth`: Keycloak, whose realms are whose, and how log-ins are limited.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_auth::{AttemptLimit, Connection, RealmNames, Settings, SignupPolicy, Template};
use serde::Deserialize;

/// The auth and iam families. Without the section they are off.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// Where Keycloak is.
    pub keycloak: Keycloak,
    /// Which realm is whose.
    #[serde(default)]
    pub realms: Realms,
    /// Who may sign up.
    #[serde(default)]
    pub signups: SignupPolicy,
    /// Log-ins of one name, by any addresses.
    #[serde(default)]
    pub attempts: Attempts,
    /// Refused credentials are answered at the next multiple of this.
    #[serde(default = "pace")]
    pub pace_ms: u64,
}

/// How Keycloak is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keycloak {
    /// Its base URL, as the tokens' `iss` begins.
    pub url: String,
    /// The realm of our service account.
    #[serde(default = "master")]
    pub realm: String,
    /// The client that has it.
    #[serde(default = "client")]
    pub client_id: String,
    /// A file that holds the client's secret.
    pub secret_file: PathBuf,
    /// How long a connection may take to come about.
    #[serde(default = "connect")]
    pub connect_ms: u64,
    /// How long a whole exchange may take.
    #[serde(default = "timeout")]
    pub timeout_ms: u64,
    /// Exchanges at once.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
}

/// Which realm is whose.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Realms {
    /// A tenant's, by its slug.
    pub tenants: String,
    /// The platform's own people's.
    pub platform: String,
    /// The public client in each of them that logs in who names none.
    pub client: String,
    /// `aud` of tenants' tokens: what runners ask for.
    pub audience: String,
}

/// Log-ins of one name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Attempts {
    /// A minute.
    pub rate: u32,
    /// At once from full.
    pub burst: u32,
    /// Names that are remembered.
    pub names: u64,
}

fn pace() -> u64 {
    500
}
fn master() -> String {
    "master".into()
}
fn client() -> String {
    "postern-handlers".into()
}
fn connect() -> u64 {
    1_000
}
fn timeout() -> u64 {
    5_000
}
fn concurrency() -> usize {
    64
}

impl Default for Realms {
    fn default() -> Self {
        Self {
            tenants: "tenant-{slug}".into(),
            platform: "postern".into(),
            client: "postern".into(),
            audience: "postern-api".into(),
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            rate: 180,
            burst: 40,
            names: 100_000,
        }
    }
}

impl Auth {
    /// Checks the section, without reading a file.
    pub(super) fn check(&self) -> Result<()> {
        self.template()?;
        for (name, value) in [
            ("auth.keycloak.connectMs", self.keycloak.connect_ms),
            ("auth.keycloak.timeoutMs", self.keycloak.timeout_ms),
            ("auth.attempts.rate", self.attempts.rate.into()),
            ("auth.attempts.burst", self.attempts.burst.into()),
            ("auth.attempts.names", self.attempts.names),
            ("auth.paceMs", self.pace_ms),
        ] {
            ensure!(
                (1..=1_000_000).contains(&value),
                "{name}: from 1 to 1000000"
            );
        }
        ensure!(
            (1..=10_000).contains(&self.keycloak.concurrency),
            "auth.keycloak.concurrency: from 1 to 10000"
        );
        ensure!(
            self.realms.platform != self.keycloak.realm,
            "auth.realms.platform: is the realm of Keycloak's own administration"
        );
        Ok(())
    }

    fn template(&self) -> Result<Template> {
        let template = self.realms.tenants.parse::<Template>();
        template.context("auth.realms.tenants")
    }

    /// What the families are set up with.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let Keycloak {
            url,
            realm,
            client_id,
            secret_file,
            connect_ms,
            timeout_ms,
            concurrency,
        } = self.keycloak.clone();
        let secret = super::secret(None, Some(&secret_file)).context("auth.keycloak.secretFile")?;
        let Realms {
            platform,
            client,
            audience,
            ..
        } = self.realms.clone();
        Ok(Settings {
            connection: Connection {
                url,
                realm,
                client_id,
                secret: secret.context("auth.keycloak.secretFile")?,
                connect: Duration::from_millis(connect_ms),
                timeout: Duration::from_millis(timeout_ms),
                concurrency,
            },
            realms: RealmNames::new(self.template()?, platform, client),
            audience,
            signups: self.signups.clone(),
            attempts: AttemptLimit {
                rate: self.attempts.rate,
                burst: self.attempts.burst,
                names: self.attempts.names,
            },
            pace: Duration::from_millis(self.pace_ms),
        })
    }
}
