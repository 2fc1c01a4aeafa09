//! A private PostgreSQL cluster in a folder.
//!
//! It listens on loopback TCP only: a Unix socket's path is limited to 107
//! bytes, and a folder of somebody's clone may be deeper than that. PostgreSQL
//! refuses to run as root, so root runs it as `postgres` (or `nobody`, where
//! there is no such user).

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::distr::{Alphanumeric, SampleString as _};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::process::{Leave, Process};
use crate::wait_for;

/// A crashed cluster replays its log first, and a busy machine takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const SUPERUSER: &str = "postern";

/// Whether a power cut may lose what was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing is flushed to the disk: for tests, whose data nobody misses.
    Volatile,
    /// As PostgreSQL ships.
    Durable,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    process: Process,
    address: SocketAddr,
    password: String,
    folder: PathBuf,
    durability: Durability,
}

impl Cluster {
    /// Starts the cluster in `<folder>/postgres`, making it when it is new.
    /// Its log is `<folder>/postgres.log`.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; the message shows its log.
    pub async fn start(folder: &Path, port: u16, durability: Durability) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let owner = Owner::find()?;
        let password = initialise(&programs()?, &folder.join("postgres"), owner)?;
        Ok(Self {
            process: Self::run(folder, address, durability).await?,
            address,
            password,
            folder: folder.to_owned(),
            durability,
        })
    }

    async fn run(folder: &Path, address: SocketAddr, durability: Durability) -> Result<Process> {
        let (programs, home, owner) = (programs()?, folder.join("postgres"), Owner::find()?);
        wait_for("an earlier postmaster to end", STOP_LIMIT, async || {
            earlier_is_gone(&home)
        })
        .await?;
        let mut command = owner.command(&programs.join("postgres"));
        command.arg("-D").arg(home.join("data"));
        command.args(["-p", &address.port().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "logging_collector=off",
        ] {
            command.args(["-c", setting]);
        }
        if durability == Durability::Volatile {
            // synchronous_commit stays on: a logical slot reads nothing otherwise.
            for setting in ["fsync=off", "full_page_writes=off"] {
                command.args(["-c", setting]);
            }
        }
        let mut process = Process::spawn("postgres", command, folder, Leave::Interrupted)?;
        process
            .ready(START_LIMIT, async || accepts_logins(address).await)
            .await?;
        Ok(process)
    }

    /// URL of the superuser's own database.
    #[must_use]
    pub fn url(&self) -> String {
        format!(
            "postgres://{SUPERUSER}:{}@{}/postgres",
            self.password, self.address
        )
    }

    /// The server's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops every process of it in its tracks: connections stay open, nothing is
    /// answered.
    ///
    /// # Errors
    /// It has ended.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)?;
        signal_all(&self.backends()?, Signal::STOP);
        Ok(())
    }

    /// Lets it go on after [`Cluster::pause`].
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> Result<()> {
        signal_all(&self.backends()?, Signal::CONT);
        self.process.signal(Signal::CONT)
    }

    /// kill -9 of every process of it; then it starts again on what is there.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.start_again().await
    }

    /// kill -9 of every process of it.
    ///
    /// # Errors
    /// It has ended.
    pub async fn kill(&mut self) -> Result<()> {
        // Stopped first, it starts no backend that would be missed.
        self.pause()?;
        let backends = self.backends()?;
        signal_all(&backends, Signal::KILL);
        self.process.kill()?;
        // The shared memory is theirs until the last is gone.
        wait_for("the killed backends to end", STOP_LIMIT, async || {
            let left = backends.iter().find(|backend| !has_ended(**backend));
            ensure!(left.is_none(), "{left:?} is there");
            Ok(())
        })
        .await
    }

    /// After [`Cluster::kill`]: on what is there.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = Self::run(&self.folder, self.address, self.durability).await?;
        Ok(())
    }

    /// Speaks TLS from now on, with a certificate of this authority for `localhost` and
    /// 127.0.0.1, and with `role` nothing else.
    ///
    /// # Errors
    /// Its files cannot be written, or it does not come to speak TLS.
    pub async fn encrypt(&self, authority: &Authority, role: &str) -> Result<()> {
        let data = self.folder.join("postgres/data");
        let own = authority.identity(&data, "server")?;
        Owner::find()?.own(&own.key)?;
        let (file, rules) = (data.join("postgresql.auto.conf"), data.join("pg_hba.conf"));
        let settings = "ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n";
        let before = std::fs::read_to_string(&file)?;
        std::fs::write(&file, before + settings)?;
        let before = std::fs::read_to_string(&rules)?;
        std::fs::write(&rules, format!("hostnossl all {role} all reject\n{before}"))?;
        self.process.signal(Signal::HUP)?;
        wait_for("the server to speak TLS", START_LIMIT, async || {
            speaks_tls(self.address).await
        })
        .await
    }

    /// Its children, which are in process groups of their own.
    fn backends(&self) -> Result<Vec<Pid>> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
            .context("PostgreSQL has ended")?;
        let ids = children.split_whitespace().map(str::parse);
        Ok(ids.flatten().filter_map(Pid::from_raw).collect())
    }

    /// Ends it cleanly: what runs is rolled back, the log is flushed.
    ///
    /// # Errors
    /// It had to be killed.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop(Signal::INT, STOP_LIMIT).await
    }
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that has just ended is none that goes on.
        let _ = rustix::process::kill_process(*process, signal);
    }
}

/// Whether it is gone, or waits only for whoever adopted it to look.
fn has_ended(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().starts_with('Z')))
        .unwrap_or(true)
}

/// A postmaster whose launcher was killed may still be shutting down, and the
/// new one refuses to start while a process of its pid is there.
fn earlier_is_gone(home: &Path) -> Result<()> {
    let lock = std::fs::read_to_string(home.join("data/postmaster.pid")).unwrap_or_default();
    let Some(id) = lock
        .lines()
        .next()
        .and_then(|line| line.trim().parse::<u32>().ok())
    else {
        return Ok(());
    };
    let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    ensure!(name.trim() != "postgres", "process {id} still runs");
    Ok(())
}

/// Asks as a client would, up to the point where a password is due: a server
/// that still recovers refuses earlier, with an error message.
pub(crate) async fn accepts_logins(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut packet = vec![0, 0, 0, 0, 0, 3, 0, 0];
    for text in ["user", SUPERUSER, "database", "postgres"] {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    packet.push(0);
    let length = u32::try_from(packet.len())?.to_be_bytes();
    packet.splice(0..4, length);
    stream.write_all(&packet).await?;
    match stream.read_u8().await? {
        b'R' => Ok(()),
        _ => {
            let mut rest = Vec::new();
            stream.take(512).read_to_end(&mut rest).await?;
            bail!(
                "it answers {}",
                String::from_utf8_lossy(&rest).escape_debug()
            )
        }
    }
}

/// Whether it agrees to a handshake.
async fn speaks_tls(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
    let answer = stream.read_u8().await?;
    ensure!(answer == b'S', "it answers {answer}");
    Ok(())
}

/// Makes the cluster unless it is there, and gives the superuser's password.
fn initialise(programs: &Path, home: &Path, owner: Owner) -> Result<String> {
    let password_file = home.join("password");
    if let Ok(password) = std::fs::read_to_string(&password_file) {
        return Ok(password.trim().to_owned());
    }
    // A first start that was cut off leaves a folder without the password file.
    if home.exists() {
        std::fs::remove_dir_all(home)
            .with_context(|| format!("cannot remove the unfinished {}", home.display()))?;
    }
    std::fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
    owner.own(home)?;
    let password = Alphanumeric.sample_string(&mut rand::rng(), 32);
    let handed_over = home.join("password.new");
    std::fs::write(&handed_over, &password)?;
    std::fs::set_permissions(&handed_over, std::fs::Permissions::from_mode(0o600))?;
    owner.own(&handed_over)?;
    let mut command = owner.command(&programs.join("initdb"));
    command
        .arg("-D")
        .arg(home.join("data"))
        .args(["-U", SUPERUSER, "-A", "scram-sha-256", "-E", "UTF8"])
        .args(["--locale=C.UTF-8", "--no-sync", "--no-instructions"])
        .arg("--pwfile")
        .arg(&handed_over)
        .stdin(Stdio::null());
    let output = command.output().context("cannot run initdb")?;
    if !output.status.success() {
        bail!(
            "initdb failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    std::fs::rename(&handed_over, &password_file)?;
    Ok(password)
}

/// The user PostgreSQL runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    Ourselves,
    Other { user: u32, group: u32 },
}

impl Owner {
    pub(crate) fn find() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| {
                Some(Self::Other {
                    user: id("-u", name)?,
                    group: id("-g", name)?,
                })
            })
            .context("PostgreSQL does not run as root, and there is no user postgres or nobody")
    }

    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // The folder this process stands in may be closed to the other user.
        command.current_dir("/");
        if let Self::Other { user, group } = self {
            command.uid(user).gid(group);
        }
        command
    }

    pub(crate) fn own(self, path: &Path) -> Result<()> {
        if let Self::Other { user, group } = self {
            std::os::unix::fs::chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} away", path.display()))?;
        }
        Ok(())
    }
}

fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The folder of `initdb` and `postgres`: on the path, or where Debian keeps
/// each version's own (the newest wins).
fn programs() -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let version = |path: &PathBuf| -> u32 {
        path.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok())
            .unwrap_or(0)
    };
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    debian.sort_by_key(version);
    debian
        .iter()
        .rev()
        .map(|path| path.join("bin"))
        .chain(on_path)
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .context("PostgreSQL's initdb is neither on the PATH nor under /usr/lib/postgresql")
}
