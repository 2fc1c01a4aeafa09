//! From a configuration to a server, in an order that finds every mistake before
//! anything listens, and an address in use before the database is touched: files and
//! keys, addresses, the database, the router; then it listens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use futures::FutureExt as _;
use postern_auth::Auth;
use postern_claims::{Authority, ClaimStore, OutcomeKeys};
use postern_common::faults::Faults;
use postern_common::idempotency::Ledger;
use postern_common::page::CursorKeys;
use postern_common::serve::{Address, Admin, Bound, Listener, serve};
use postern_common::{Chain, Router, keys, telemetry};
use postern_context::OpeningKeys;
use postern_contract::key_file;
use postern_mongo::Mongo;
use postern_platform::directory::{DirectoryService, Feed};
use postern_platform::provisioning::{Backend, PostgresBackend, Provisioning};
use postern_platform::{Platform, Probe};
use postern_postgres::{Postgres, cluster};
use postern_postgres_url::complaint;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::ServerTlsConfig;

use crate::config::{Claims, Config, postgres_url, secret};
use crate::directory;
use crate::mongo::MongoBackend;
use crate::pooler;
use crate::quotas::ControlPlane;

/// A configuration whose files are good.
pub struct Prepared {
    config: Config,
    context_keys: OpeningKeys,
    outcome_keys: OutcomeKeys,
    cursor_keys: CursorKeys,
    auth: Option<postern_auth::Settings>,
}

impl Prepared {
    /// Reads the key files and checks what can be checked without a network.
    ///
    /// # Errors
    /// One line that names the file or the field.
    pub fn new(config: Config) -> Result<Self> {
        let context_keys =
            keys::read(&config.context_keys, OpeningKeys::parse).context("contextKeys")?;
        for family in config.families() {
            anyhow::ensure!(
                context_keys.opens(family),
                "contextKeys: there is no key for the {family} family"
            );
        }
        let outcome_keys =
            keys::read(&config.outcome_keys, OutcomeKeys::parse).context("outcomeKeys")?;
        let secrets = keys::read(&config.outcome_keys, key_file::parse).context("outcomeKeys")?;
        let cursor_keys = CursorKeys::derive(secrets.iter().map(|(_, secret)| secret.as_slice()));
        let auth = config.auth.as_ref().map(|auth| auth.settings());
        Ok(Self {
            auth: auth.transpose()?,
            config,
            context_keys,
            outcome_keys,
            cursor_keys,
        })
    }

    /// Takes the addresses, connects, migrates, and listens.
    ///
    /// # Errors
    /// One line that names the field that is to blame.
    pub async fn start(self) -> Result<Server> {
        let Self {
            config,
            context_keys,
            outcome_keys,
            cursor_keys,
            auth,
        } = self;
        let tls = directory::tls(config.directory_tls.as_ref())?;
        let addresses = Addresses::take(&config)?;
        let pool = connect(&config).await?;
        if config.database.migrate {
            postern_platform::migrate(&pool)
                .await
                .context("database: the schema cannot be brought up to date")?;
        }
        let tasks = TaskTracker::new();
        let claims = claims(&config, &pool)?;
        // A database of its own has no schema from the control plane's migrations. It is
        // not needed to start: until it is there, records alone guard.
        if let Some(claims) = &claims
            && config.database.migrate
            && claims_url(&config)?.is_some()
            && let Err(error) = claims.migrate().await
        {
            tracing::warn!(%error, "the claims' schema was not brought up to date");
        }
        let ledger = Arc::new(Ledger::new(
            pool.clone(),
            outcome_keys,
            claims.clone(),
            tasks.clone(),
            config.bounds(),
            faults(&config),
        ));
        prepare_data(&config).await?;
        let documents = match &config.mongo {
            None => None,
            Some(settings) => Some(settings.client().await.context("mongo")?),
        };
        let mut backends = backends(&config, &pool)?;
        if let Some(client) = &documents {
            backends.push(Arc::new(MongoBackend(client.clone())));
        }
        let provisioning = Arc::new(Provisioning::new(pool.clone(), backends));
        let purge = i32::from(config.provisioning.purge_after_days);
        let platform = Arc::new(Platform::new(
            pool.clone(),
            Arc::clone(&ledger),
            cursor_keys.clone(),
            Arc::clone(&provisioning),
            purge,
            config.about(),
        ));
        let (shared, cursors) = (Arc::clone(&ledger), cursor_keys.clone());
        let auth = match auth {
            None => None,
            Some(settings) => {
                let control_plane = Arc::clone(&platform) as _;
                let auth = Auth::new(settings, control_plane, ledger, cursor_keys);
                Some(Arc::new(auth.context("auth.keycloak")?))
            }
        };
        let postgres = match &config.postgres {
            None => None,
            Some(settings) => {
                let family = Postgres::new(
                    settings.cluster().context("postgres")?,
                    settings.bounds(),
                    Arc::clone(&shared),
                    cursors.clone(),
                    Arc::new(ControlPlane(pool.clone())),
                );
                Some(Arc::new(family.context("postgres")?))
            }
        };
        let mongo = documents
            .zip(config.mongo.as_ref())
            .map(|(client, settings)| {
                let quotas = Arc::new(ControlPlane(pool.clone()));
                Arc::new(Mongo::new(
                    client,
                    settings.bounds(),
                    shared,
                    cursors,
                    quotas,
                ))
            });
        platform.ask_too(probes(&config, claims.as_ref(), auth.as_ref())?);
        let families = config.families();
        let mut router = platform.router();
        if let Some(mongo) = &mongo {
            router = router.merge(mongo.router());
        }
        if let Some(postgres) = &postgres {
            router = router.merge(postgres.router());
        }
        if let Some(auth) = &auth {
            router = router.merge(auth.router());
        }
        let router = router.only(&families);
        router.check(&families)?;

        let feed = match &addresses.directory {
            Some(_) => Some(Feed::new(pool.clone()).await.context("database")?),
            None => None,
        };
        let listener = addresses.listen.listen()?;
        let admin = addresses.admin.map(Named::listen).transpose()?;
        let directory = addresses.directory.map(Named::listen).transpose()?;
        let directory = directory.zip(feed).map(|(listener, feed)| Directory {
            listener,
            feed,
            tls,
        });
        Ok(Server {
            config,
            context_keys,
            router,
            platform,
            auth,
            postgres,
            mongo,
            provisioning,
            pool,
            claims,
            tasks,
            listener,
            admin,
            directory,
        })
    }
}

/// Addresses that are this server's, on which it does not listen yet.
struct Addresses {
    listen: Named,
    admin: Option<Named>,
    directory: Option<Named>,
}

impl Addresses {
    fn take(config: &Config) -> Result<Self> {
        let mode = config.mode()?;
        let take = |field, address: &Address| Named::take(field, address, mode);
        Ok(Self {
            listen: take("listen", &config.listen)?,
            admin: config
                .admin
                .as_ref()
                .map(|address| take("admin", address))
                .transpose()?,
            directory: config
                .directory
                .as_ref()
                .map(|address| take("directory", address))
                .transpose()?,
        })
    }
}

/// An address with the field to blame.
struct Named {
    bound: Bound,
    told: String,
}

impl Named {
    fn take(field: &str, address: &Address, mode: Option<u32>) -> Result<Self> {
        let told = format!("{field}: cannot listen on {address}");
        let bound = Bound::new(address, mode).with_context(|| told.clone())?;
        Ok(Self { bound, told })
    }

    fn listen(self) -> Result<Listener> {
        self.bound.listen().context(self.told)
    }
}

/// A server that has its database and its sockets.
pub struct Server {
    config: Config,
    context_keys: OpeningKeys,
    router: Router,
    platform: Arc<Platform>,
    auth: Option<Arc<Auth>>,
    postgres: Option<Arc<Postgres>>,
    mongo: Option<Arc<Mongo>>,
    provisioning: Arc<Provisioning>,
    pool: PgPool,
    claims: Option<ClaimStore>,
    tasks: TaskTracker,
    listener: Listener,
    admin: Option<Listener>,
    directory: Option<Directory>,
}

/// What the directory is served with.
struct Directory {
    listener: Listener,
    feed: Feed,
    tls: Option<ServerTlsConfig>,
}

impl Server {
    /// Serves until `stop`, then drains: no new connections, requests under way are
    /// answered, mutations whose client left are awaited. The directory and the
    /// operator's listener go last.
    ///
    /// # Errors
    /// When metrics cannot be set up.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let limits = self.config.connection_limits();
        let metrics = telemetry::start_metrics()?;
        let last = CancellationToken::new();
        let background = TaskTracker::new();

        if let Some(listener) = self.admin {
            let admin = Admin {
                metrics,
                readiness: Arc::clone(&self.platform) as _,
                draining: stop.clone(),
            };
            background.spawn(admin.serve(listener, limits, last.clone()));
        }
        let keys = Arc::new(ArcSwap::from_pointee(self.context_keys));
        background.spawn(keys::follow(
            self.config.context_keys.clone(),
            Arc::clone(&keys),
            last.clone(),
        ));
        let provisioning = self.provisioning;
        let (working, ending) = (Arc::clone(&provisioning), last.clone());
        background.spawn(async move { working.run(ending).await });
        if let Some(auth) = self.auth {
            let ending = last.clone();
            background.spawn(async move { auth.keep_realms(ending).await });
        }
        let every = Duration::from_millis(self.config.idempotency.sweep_ms);
        if let (Some(family), Some(settings)) = (self.postgres, &self.config.postgres) {
            let (direct, look) = (settings.direct().context("postgres")?, settings.look());
            let (following, ending) = (Arc::clone(&family), last.clone());
            background.spawn(async move { following.follow(direct, look, ending).await });
            let ending = last.clone();
            background.spawn(async move { family.sweep(every, ending).await });
        }
        if let Some(mongo) = self.mongo {
            let ending = last.clone();
            background.spawn(async move { mongo.sweep(every, ending).await });
        }
        let (platform, ending) = (Arc::clone(&self.platform), last.clone());
        let audit_days = self.config.audit_days;
        background.spawn(async move { platform.sweep(every, audit_days, ending).await });
        if let Some(Directory {
            listener,
            feed,
            tls,
        }) = self.directory
        {
            let feed = Arc::new(feed);
            let (told, ending) = (Arc::clone(&feed), last.clone());
            background.spawn(async move { told.run(ending).await });
            let service = DirectoryService::new(self.pool.clone(), feed, provisioning);
            background.spawn(directory::serve(listener, tls, service, last.clone()));
        }

        tracing::info!(address = self.listener.address()?, families = ?self.config.families(), "serving");
        let times = self.config.times();
        let chain = Chain::new(keys, self.router, self.platform, self.claims, times);
        serve(self.listener, Arc::new(chain), limits, stop).await;

        tracing::info!(mutations = self.tasks.len(), "draining");
        self.tasks.close();
        if tokio::time::timeout(limits.drain, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::error!(
                mutations = self.tasks.len(),
                "mutations were still running when the drain time ended"
            );
        }
        last.cancel();
        background.close();
        // Nothing in the background holds anything that a restart would miss.
        drop(tokio::time::timeout(Duration::from_secs(2), background.wait()).await);
        tracing::info!("drained");
        Ok(())
    }
}

/// Connects to the control-plane database.
async fn connect(config: &Config) -> Result<PgPool> {
    let (pool, options) = config.database.connect(None).context("database")?;
    let connected = pool.connect_with(options).await;
    let pool = connected
        .map_err(|error| match complaint(&error) {
            Some(complaint) => anyhow::anyhow!(complaint),
            None => error.into(),
        })
        .context("database: cannot connect")?;
    if config.database.pooler {
        let patience = Duration::from_millis(config.database.acquire_ms);
        let checked = pooler::check(&pool, patience).await;
        checked.context("database.pooler")?;
    }
    Ok(pool)
}

/// Brings the schema up to date and ends.
///
/// # Errors
/// One line that says why not.
pub async fn migrate(config: &Config) -> Result<()> {
    let pool = connect(config).await?;
    postern_platform::migrate(&pool)
        .await
        .context("database: the schema cannot be brought up to date")?;
    if let Some(claims) = claims(config, &pool)? {
        claims
            .migrate()
            .await
            .context("claims: the schema cannot be brought up to date")?;
    }
    pool.close().await;
    Ok(())
}

/// The claims may be in a store of their own, which may be away at the start.
fn claims(config: &Config, control_plane: &PgPool) -> Result<Option<ClaimStore>> {
    if !config.claims.enabled {
        return Ok(None);
    }
    let patience = Duration::from_millis(config.claims.timeout_ms);
    Ok(Some(match claims_url(config)? {
        None => ClaimStore::over(control_plane.clone(), patience),
        Some(url) => {
            let Claims {
                authority,
                connections,
                ..
            } = &config.claims;
            let read = |file: &PathBuf| {
                let named = || format!("claims.authority: {}", file.display());
                Authority::read(file).with_context(named)
            };
            let authority = authority.as_ref().map(read).transpose()?;
            let url = url.expose_secret();
            ClaimStore::connect_trusting(url, authority.as_ref(), *connections, patience)
                .context("claims.url")?
        }
    }))
}

/// What the health route asks beside the database and the backends of workspaces.
fn probes(
    config: &Config,
    claims: Option<&ClaimStore>,
    auth: Option<&Arc<Auth>>,
) -> Result<Vec<(&'static str, Probe)>> {
    let mut probes: Vec<(_, Probe)> = Vec::new();
    // Else they are in the control-plane database, which is asked anyway.
    if let (Some(claims), Some(_)) = (claims, claims_url(config)?) {
        let claims = claims.clone();
        let ask = move || {
            let claims = claims.clone();
            async move { Ok(claims.ping().await?) }.boxed()
        };
        probes.push(("claims", Box::new(ask)));
    }
    if let Some(auth) = auth {
        let auth = Arc::clone(auth);
        let ask = move || {
            let auth = Arc::clone(&auth);
            async move { Ok(auth.ping().await?) }.boxed()
        };
        probes.push(("keycloak", Box::new(ask)));
    }
    Ok(probes)
}

fn claims_url(config: &Config) -> Result<Option<SecretString>> {
    let Claims { url, url_file, .. } = &config.claims;
    secret(url.as_ref(), url_file.as_deref()).context("claims")
}

/// Makes what the data cluster needs besides workspaces, the data login first, where
/// this process may: it provisions the cluster and brings schemas up to date.
async fn prepare_data(config: &Config) -> Result<()> {
    let cluster = &config.provisioning.postgres;
    let Some(settings) = &config.postgres else {
        return Ok(());
    };
    if !cluster.enabled || !config.database.migrate {
        return Ok(());
    }
    let admin = secret(cluster.url.as_ref(), cluster.url_file.as_deref());
    let admin = match admin.context("provisioning.postgres")? {
        Some(url) => url,
        None => config.database.url().context("database")?,
    };
    let admin = postgres_url(&admin).context("provisioning.postgres")?;
    let data = settings.cluster().context("postgres")?;
    let login = data.user().unwrap_or_default();
    cluster::prepare(&admin, login, data.password())
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("postgres: the data cluster cannot be prepared")
}

fn backends(config: &Config, control_plane: &PgPool) -> Result<Vec<Arc<dyn Backend>>> {
    let cluster = &config.provisioning.postgres;
    if !cluster.enabled {
        return Ok(Vec::new());
    }
    let url = secret(cluster.url.as_ref(), cluster.url_file.as_deref())
        .context("provisioning.postgres")?;
    let pool = match url {
        None => control_plane.clone(),
        Some(url) => {
            let (pool, options) = config
                .database
                .connect(Some(url))
                .context("provisioning.postgres")?;
            pool.max_connections(4).connect_lazy_with(options)
        }
    };
    let login = match (&cluster.data_login, &config.postgres) {
        (Some(login), _) => Some(login.clone()),
        (None, Some(settings)) => {
            let data = settings.cluster().context("postgres")?;
            data.user().map(str::to_owned)
        }
        (None, None) => None,
    };
    Ok(vec![Arc::new(PostgresBackend::new(pool, login))])
}

#[cfg(debug_assertions)]
fn faults(config: &Config) -> Faults {
    config
        .faults
        .clone()
        .map_or_else(Faults::default, Faults::in_folder)
}

#[cfg(not(debug_assertions))]
fn faults(_: &Config) -> Faults {
    Faults::default()
}
