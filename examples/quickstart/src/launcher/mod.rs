//! Starts everything, loads the demo, tells the user, waits, stops everything.

mod accounts;
mod data;
mod demo;
mod greeting;
mod leftovers;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use postern_harness::api::Client;
use postern_harness::http::Http;
use postern_harness::postgres::Durability;
use postern_harness::services::{Database, Documents, Gateway, Plan, Services};
use postern_harness::{mongo, temporary_folder};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use accounts::Login;
use greeting::Greeting;
use leftovers::PidFile;

/// How often it is looked whether something ended by itself.
const LOOK: Duration = Duration::from_millis(500);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What the command line says.
#[derive(Debug)]
pub struct Settings {
    /// Where data, keys, logs and the env file are.
    pub folder: PathBuf,
    /// The repository's `apisix-conf`.
    pub configuration: PathBuf,
    /// The API's port; the issuer takes the next one.
    pub port: u16,
    /// Whether earlier data is kept.
    pub data: Data,
    /// A PostgreSQL that runs already.
    pub database_url: Option<String>,
    /// The folder of a real APISIX.
    pub apisix: Option<PathBuf>,
    /// Where documents are, if they are served.
    pub mongo: Option<Documents>,
}

/// What becomes of an earlier run's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// It is found again.
    Kept,
    /// It is dropped.
    Dropped,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Something is wrong with the settings (nothing listens then), something did
/// not start, or something ended by itself.
pub async fn run(settings: Settings) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let told_to_stop = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    };
    tokio::pin!(told_to_stop);
    let mut started = tokio::select! {
        // What was started so far ends with the values that are dropped here.
        () = &mut told_to_stop => return Ok(()),
        started = start(&settings) => started?,
    };
    println!("{}", started.greeting);
    let ended = loop {
        tokio::select! {
            () = &mut told_to_stop => break Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = started.services.all_alive() {
            break Err(error);
        }
    };
    eprintln!("quickstart: stopping");
    let _ = std::fs::remove_file(&started.env);
    ended.and(started.services.stop().await)
}

/// All that is up, until it is dropped.
struct Started {
    services: Services,
    greeting: String,
    env: PathBuf,
    _run: TempDir,
    _pids: PidFile,
}

async fn start(settings: &Settings) -> Result<Started> {
    let folder = prepare_folder(&settings.folder)?;
    let env = folder.join("env");
    let mut pids = PidFile::take_over(&folder.join("pids")).await?;
    // Whoever waits for the file waits for this run's.
    let _ = std::fs::remove_file(&env);
    let issuer_port = settings.port.checked_add(1).context("--port is too high")?;
    for port in [settings.port, issuer_port] {
        free(port)?;
    }
    let database = match &settings.database_url {
        Some(url) => {
            usable(url).await?;
            Database::Url(url.clone())
        }
        None => Database::Private(Durability::Durable),
    };
    if let Some(Documents::Url(url)) = &settings.mongo {
        mongo::usable(url).await.context("MONGODB_URL")?;
    }
    let data = data::folder(&folder)?;
    if settings.data == Data::Dropped && data.exists() {
        ensure!(
            settings.database_url.is_none(),
            "--reset drops the private data only; drop those in DATABASE_URL yourself"
        );
        ensure!(
            !matches!(settings.mongo, Some(Documents::Url(_))),
            "--reset drops the private data only; drop those in MONGODB_URL yourself"
        );
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("cannot remove {}", data.display()))?;
    }
    passable(&data)?;
    let run = temporary_folder("postern")?;
    let plan = Plan {
        data,
        run: run.path().to_owned(),
        configuration: settings.configuration.clone(),
        database,
        claims: None,
        gateway: match &settings.apisix {
            Some(home) => Gateway::Apisix(home.clone()),
            None => Gateway::StandIn,
        },
        gateway_port: settings.port,
        issuer_port,
        postgres: true,
        mongo: settings.mongo.clone(),
        mint: false,
        faults: None,
        runner: serde_json::json!({}),
        handlers: serde_json::json!({}),
    };
    let mut accounts = accounts::load(&plan.accounts())?;
    let services = Services::start(plan, &mut |name, id, took| {
        eprintln!(
            "quickstart: {name} answers after {:.1} s",
            took.as_secs_f32()
        );
        pids.note(id, name)
    })
    .await?;
    let greeting = load_demo(services.plan(), &mut accounts).await?;
    greeting.write_env(&env)?;
    Ok(Started {
        services,
        greeting: greeting.text(&env),
        env,
        _run: run,
        _pids: pids,
    })
}

/// The demo, through the API itself, with tokens from the issuer itself.
async fn load_demo(plan: &Plan, accounts: &mut accounts::Store) -> Result<Greeting> {
    eprintln!("quickstart: loading the demo");
    let http = Http::from_address(None);
    let platform_token = accounts.token(&http, plan, Login::Platform).await?;
    let platform = Client::new(&plan.url(), Some(platform_token.clone()));
    let tenant_id = demo::tenant(&platform).await.context("the demo's tenant")?;
    accounts.add_tenant_admin(&tenant_id)?;
    let tenant_token = accounts.token(&http, plan, Login::Tenant).await?;
    let admin = platform.with_token(Some(tenant_token.clone()));
    let mut families = vec!["postgres"];
    families.extend(plan.mongo.as_ref().map(|_| "mongo"));
    let workspace_id = demo::workspace(&admin, &tenant_id, &families)
        .await
        .context("the demo's workspace")?;
    demo::provisioned(&admin, &workspace_id, &families).await?;
    Ok(Greeting {
        url: plan.url(),
        platform_token,
        tenant_token,
        tenant_id,
        workspace_id,
        documents: plan.mongo.is_some(),
    })
}

fn prepare_folder(folder: &Path) -> Result<PathBuf> {
    passable(folder)?;
    Ok(folder.canonicalize()?)
}

/// Makes a folder, open to PostgreSQL's user for passing through whatever the umask.
fn passable(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)))
        .with_context(|| format!("cannot make {}", folder.display()))
}

fn free(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("port {port} of 127.0.0.1 cannot be used ({error}); choose another with --port")
        }
    }
}

/// Logs in, as the handlers will: what is wrong with the URL is told before anything
/// starts, and without the password in it.
async fn usable(url: &str) -> Result<()> {
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error| anyhow!("DATABASE_URL is no URL of PostgreSQL: {error}"))?;
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let connection: PgConnection = timeout(CONNECT_LIMIT, options.connect())
        .await
        .map_err(|_| anyhow!("DATABASE_URL: {server} does not answer"))?
        .map_err(|error| anyhow!("DATABASE_URL: cannot log in at {server}: {error}"))?;
    // A server that is asked to go away may as well be gone.
    let _ = timeout(CONNECT_LIMIT, connection.close()).await;
    Ok(())
}
