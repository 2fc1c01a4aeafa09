//! `authorize`: may the caller do this here?
//!
//! Scope and roles come from the routes table; tenants and workspaces from the directory,
//! which is cached and watched ([`directory`]). [`policy`] judges without waiting; when it
//! needs an entry that is not at hand the entry is fetched and it judges again. What
//! depends on the body the handler judges, by the same table. Every denial is reported
//! for the audit trail, beside the requests ([`denials`]).

mod denials;
mod directory;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use postern_contract::{Code, Family};
use postern_directory::directory_client::DirectoryClient;
use schemars::JsonSchema;
use serde::Deserialize;
use tonic::transport::Channel;

use crate::{ConfigError, Flow, Plugin, Registry, Reply, Request};
use denials::Denials;
pub(in crate::plugins) use directory::Address;
use directory::Directory;
pub use directory::DirectoryTls;
pub(in crate::plugins) use directory::is_final;
use policy::{Answers, Halt};

/// Judges scope, roles, tenant, workspace, capability.
pub struct Authorize {
    families: BTreeSet<Family>,
    directory: Option<Arc<Directory>>,
    denials: Denials,
}

/// The plans of the tenants that the directory's cache holds now.
#[derive(Clone, Default)]
pub(crate) struct Plans(Option<Arc<Directory>>);

impl Plans {
    /// A tenant's plan by the directory's word; nobody is asked for it.
    pub(crate) fn of(&self, tenant: &str) -> Option<String> {
        let entry = self.0.as_ref()?.cached(tenant)?;
        Some(entry.tenant()?.plan.clone())
    }
}

/// The section `authorize` of the runner's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct AuthorizeSettings {
    /// Who knows tenants and workspaces: `unix:/path`, or `https://host:port` with
    /// `directory_tls`; `http://host:port` has no encryption, so it is for one machine only.
    /// Without it, routes with `authorize` are closed.
    pub directory: Option<String>,
    /// The certificates of both sides, for `https://`.
    pub directory_tls: Option<DirectoryTls>,
    /// The families that this deployment serves; the others answer 503
    /// `FAMILY_UNAVAILABLE`. By default all.
    pub families: BTreeSet<Family>,
    /// How long a tenant or workspace that is known is taken to be as it was when the
    /// directory is away, in seconds.
    pub max_staleness_seconds: u64,
    /// Tenants and workspaces that are remembered; beyond it those used least are asked
    /// for again.
    pub cached_entries: u64,
}

impl Default for AuthorizeSettings {
    fn default() -> Self {
        Self {
            directory: None,
            directory_tls: None,
            families: Family::ALL.into(),
            max_staleness_seconds: 300,
            cached_entries: 50_000,
        }
    }
}

/// `authorize` has no settings of a route: the routes table says it all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizeConfig {}

impl Authorize {
    /// A plugin that asks this directory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the settings and where.
    pub fn new(settings: AuthorizeSettings) -> anyhow::Result<Self> {
        let AuthorizeSettings {
            directory,
            directory_tls,
            families,
            max_staleness_seconds,
            cached_entries,
        } = settings;
        ensure!(
            cached_entries > 0,
            "plugins.authorize.cachedEntries: must be above 0"
        );
        let max_staleness = Duration::from_secs(max_staleness_seconds);
        let directory = match directory {
            Some(address) => Some(Arc::new(Directory::new(
                Address::parse(&address, directory_tls.as_ref())?,
                max_staleness,
                cached_entries,
            ))),
            None => None,
        };
        Ok(Self {
            families,
            directory,
            denials: Denials::default(),
        })
    }

    /// Where the directory is, for others who ask it.
    pub(in crate::plugins) fn directory(&self) -> Option<Address> {
        Some(self.directory.as_ref()?.address().clone())
    }

    /// The tenants' plans, for a plugin that asks nobody.
    pub(crate) fn plans(&self) -> Plans {
        Plans(self.directory.clone())
    }

    /// Registers the plugin, the watch and the reports, and what readiness waits for.
    #[must_use]
    pub fn register(mut self, registry: Registry) -> Registry {
        let Some(directory) = self.directory.clone() else {
            return registry.with(self);
        };
        let (watched, asked) = (Arc::clone(&directory), Arc::clone(&directory));
        let denied = self.denials.open();
        registry
            .with(self)
            .with_readiness("directory", move || asked.ready())
            .with_task("directory watch", move |stop| watched.watch(stop))
            .with_task("denials", move |stop| {
                denials::report(directory, denied, stop)
            })
    }

    /// Makes clients of the directory, for whoever has something to tell it.
    pub(crate) fn clients(&self) -> Option<impl Fn() -> DirectoryClient<Channel> + Send + 'static> {
        let directory = Arc::clone(self.directory.as_ref()?);
        Some(move || directory.client())
    }

    /// Judges, and fetches what that takes: a tenant and a workspace at most.
    async fn judge(&self, request: &mut Request<'_>) -> Result<(), Refusal> {
        let Some(directory) = &self.directory else {
            return Err(Reply::refuse(Code::GatewayMisconfigured, NO_DIRECTORY).into());
        };
        let mut answers = Answers::default();
        loop {
            let id = match policy::judge(&self.families, directory, &answers, request) {
                Ok(granted) => {
                    request.facts.plan = granted.plan;
                    return Ok(());
                }
                Err(Halt::Refuse(refusal)) => return Err(refusal),
                Err(Halt::Ask(id)) => id,
            };
            let answer = directory.find(&id).await.map_err(|directory::Away| {
                let message = "tenants and workspaces cannot be looked up now: retry";
                Reply::refuse(Code::BackendUnavailable, message).with_header("Retry-After", "1")
            })?;
            answers.add(id, answer);
        }
    }
}

const NO_DIRECTORY: &str =
    "the runner has no directory to ask: set plugins.authorize.directory in its configuration";

/// A refusal, and whether the audit trail hears of it.
struct Refusal {
    reply: Reply,
    /// The resource it is about, where the caller was denied something.
    denied: Option<Denied>,
}

/// What the caller was denied.
struct Denied {
    /// An id in the path, or nothing in particular.
    resource: Option<String>,
    /// It is for the trail of the caller's tenant: not where that is the word of another
    /// tenant's issuer.
    to_tenant: bool,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            denied: None,
        }
    }
}

impl Plugin for Authorize {
    const NAME: &'static str = "authorize";
    type Config = AuthorizeConfig;

    fn check(&self, _: &Self::Config) -> Result<(), ConfigError> {
        match self.directory {
            Some(_) => Ok(()),
            None => Err(ConfigError::new("", NO_DIRECTORY)),
        }
    }

    fn at_once(&self, _: &Self::Config, request: &mut Request<'_>) -> Option<Flow> {
        let directory = self.directory.as_ref()?;
        let granted =
            policy::judge(&self.families, directory, &Answers::default(), request).ok()?;
        request.facts.plan = granted.plan;
        Some(Flow::Next)
    }

    async fn on_request(&self, _: &Self::Config, request: &mut Request<'_>) -> Flow {
        match self.judge(request).await {
            Ok(()) => Flow::Next,
            Err(Refusal { reply, denied }) => {
                if let Some(denied) = denied {
                    self.denials.note(request, &reply, denied);
                }
                Flow::Stop(reply)
            }
        }
    }
}
