//! The quickstart as somebody who has just cloned the repository meets it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use postern_harness::ports::Port;
use postern_harness::process::{Leave, Process};
use postern_harness::{temporary_folder, wait_for};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

const UP: Duration = Duration::from_secs(120);
const DOWN: Duration = Duration::from_secs(40);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// A quickstart in a folder of its own, which outlives its runs.
struct Quickstart {
    folder: TempDir,
    api: Port,
}

impl Quickstart {
    fn new() -> Result<Self> {
        Ok(Self {
            folder: temporary_folder("quickstart")?,
            api: port_with_a_free_neighbour()?,
        })
    }

    fn env(&self) -> PathBuf {
        self.folder.path().join("env")
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-quickstart"));
        command
            .arg("--folder")
            .arg(self.folder.path())
            .arg("--configuration")
            .arg(repository().join("apisix-conf"))
            .args(["--port", &self.api.number().to_string()])
            .args(flags)
            .env_remove("DATABASE_URL")
            .env_remove("MONGODB_URL");
        command
    }

    /// Starts it and waits for the env file, as a script would.
    async fn up(&self, flags: &[&str]) -> Result<(Process, BTreeMap<String, String>)> {
        let log = self.folder.path();
        let mut process = Process::spawn("launcher", self.command(flags), log, Leave::Killed)?;
        let env = self.env();
        process
            .ready(UP, async || {
                ensure!(env.exists(), "there is no env file yet");
                Ok(())
            })
            .await?;
        let text = std::fs::read_to_string(&env)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok((
            process,
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        ))
    }

    /// The pids that the running quickstart has noted.
    fn pids(&self) -> Vec<(String, Pid)> {
        std::fs::read_to_string(self.folder.path().join("pids"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                Some((
                    fields[2].to_owned(),
                    Pid::from_raw(fields[0].parse().ok()?)?,
                ))
            })
            .collect()
    }
}

/// The issuer takes the port after the API's.
fn port_with_a_free_neighbour() -> Result<Port> {
    for _ in 0..50 {
        let port = Port::free()?;
        if TcpListener::bind(("127.0.0.1", port.number() + 1)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no two free ports side by side")
}

/// The `curl` lines that were printed, run by a shell as they are.
fn paste(output: &str) -> Result<Vec<Output>> {
    output
        .lines()
        .filter(|line| line.starts_with("curl "))
        .map(|line| {
            Command::new("sh")
                .args(["-c", line])
                .current_dir("/")
                .stdin(Stdio::null())
                .output()
                .context("no sh")
        })
        .collect()
}

async fn gone(pids: &[(String, Pid)]) -> Result<()> {
    wait_for("everything to be gone", DOWN, async || {
        for (name, pid) in pids {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let running = state.is_ok_and(|stat| !stat.contains(") Z "));
            ensure!(!running, "{name} still runs");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn it_comes_up_answers_what_it_prints_and_finds_its_data_again() -> Result<()> {
    let quickstart = Quickstart::new()?;
    let (mut first, env) = quickstart.up(&[]).await?;
    for name in [
        "URL",
        "PLATFORM_TOKEN",
        "TENANT_TOKEN",
        "TENANT_ID",
        "WORKSPACE_ID",
    ] {
        ensure!(
            env.get(name).is_some_and(|value| !value.is_empty()),
            "{name} is missing"
        );
    }
    assert_eq!(
        env["URL"],
        format!("http://127.0.0.1:{}", quickstart.api.number())
    );
    let mode = std::fs::metadata(quickstart.env())?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let printed = std::fs::read_to_string(first.log())?;
    let pasted = paste(&printed)?;
    assert_eq!(pasted.len(), 3);
    let texts: Vec<_> = pasted
        .iter()
        .map(|out| String::from_utf8_lossy(&out.stdout))
        .collect();
    ensure!(texts[0].contains(&env["WORKSPACE_ID"]), "{}", texts[0]);
    ensure!(
        texts[1].contains(" 201 ") && texts[1].contains("tnt_"),
        "{}",
        texts[1]
    );
    ensure!(texts[2].contains("ROLE_DENIED"), "{}", texts[2]);
    // The second line again: the same tenant, from the record.
    let again = &paste(&printed)?[1];
    let again = String::from_utf8_lossy(&again.stdout).to_lowercase();
    ensure!(again.contains("x-idempotency-replayed: true"), "{again}");

    // While it runs, another one says so and leaves it alone.
    let second = quickstart.command(&[]).output()?;
    let told = String::from_utf8_lossy(&second.stderr);
    ensure!(
        !second.status.success() && told.contains("running already"),
        "{told}"
    );
    ensure!(quickstart.env().exists(), "it took the env file away");

    let pids = quickstart.pids();
    ensure!(pids.len() >= 5, "{pids:?}");
    first.stop(Signal::TERM, DOWN).await?;
    gone(&pids).await?;
    ensure!(
        !quickstart.folder.path().join("pids").exists(),
        "the list of pids is left"
    );

    let (mut again, same) = quickstart.up(&[]).await?;
    assert_eq!(same["TENANT_ID"], env["TENANT_ID"]);
    assert_eq!(same["WORKSPACE_ID"], env["WORKSPACE_ID"]);
    // A token of the first run is still good: the issuer's keys are kept.
    let pasted = paste(&printed)?;
    ensure!(String::from_utf8_lossy(&pasted[0].stdout).contains(&env["WORKSPACE_ID"]));

    // Killed this time; what it leaves behind ends, or is ended by the next run.
    again.kill()?;
    std::fs::remove_file(quickstart.env())?;
    let (mut fresh, other) = quickstart.up(&["--reset"]).await?;
    assert_ne!(other["TENANT_ID"], env["TENANT_ID"]);
    let pids = quickstart.pids();
    fresh.stop(Signal::INT, DOWN).await?;
    gone(&pids).await
}

#[tokio::test]
async fn a_server_that_exists_is_used_instead_of_a_private_one() -> Result<()> {
    use postern_harness::postgres::{Cluster, Durability};
    let folder = temporary_folder("quickstart-db")?;
    let port = Port::free()?;
    let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
    let quickstart = Quickstart::new()?;
    let (mut running, _) = quickstart.up(&["--database-url", &cluster.url()]).await?;
    let names: Vec<String> = quickstart
        .pids()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    ensure!(!names.iter().any(|name| name == "postgres"), "{names:?}");
    running.stop(Signal::TERM, DOWN).await?;
    cluster.stop().await
}

/// A run with documents after one without finds the workspace, and gives it what it lacks;
/// a third finds the document.
#[tokio::test]
async fn documents_join_and_stay() -> Result<()> {
    let quickstart = Quickstart::new()?;
    let (mut without, env) = quickstart.up(&[]).await?;
    without.stop(Signal::TERM, DOWN).await?;
    for replayed in [false, true] {
        let (mut with, same) = quickstart.up(&["--mongo"]).await?;
        assert_eq!(same["WORKSPACE_ID"], env["WORKSPACE_ID"]);
        let pids = quickstart.pids();
        ensure!(pids.iter().any(|(name, _)| name == "mongod"), "{pids:?}");
        let printed = std::fs::read_to_string(with.log())?;
        let line = printed.lines().rfind(|line| line.contains("/v1/mongo/"));
        let pasted = paste(&line.context("no line")?.replace("curl -sS", "curl -sS -i"))?;
        let said = String::from_utf8_lossy(&pasted[0].stdout).to_lowercase();
        ensure!(said.contains(" 201 ") && said.contains("ada"), "{said}");
        let told = said.contains("x-idempotency-replayed: true");
        assert_eq!(told, replayed, "{said}");
        with.stop(Signal::INT, DOWN).await?;
        gone(&pids).await?;
    }
    Ok(())
}

/// Told before anything starts, and not with the password.
#[tokio::test]
async fn a_database_url_that_does_not_log_in_is_one_clear_line() -> Result<()> {
    use postern_harness::postgres::{Cluster, Durability};
    let folder = temporary_folder("quickstart-db")?;
    let (port, nobody) = (Port::free()?, Port::free()?);
    let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
    let good = cluster.url();
    let (server, _) = good.rsplit_once('/').context("a URL")?;
    let host = cluster.address();
    let quickstart = Quickstart::new()?;
    for (url, word) in [
        (
            format!("postgres://postern:hunter2@{host}/postgres"),
            "password",
        ),
        (format!("{server}/nowhere"), "nowhere"),
        (
            format!("postgres://postern:hunter2@{}/x", nobody.address()),
            "refused",
        ),
        ("hunter2".to_owned(), "no URL"),
    ] {
        let output = quickstart.command(&["--database-url", &url]).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{told}");
        ensure!(
            told.lines().count() == 1 && told.contains("DATABASE_URL") && told.contains(word),
            "{word}: {told}"
        );
        ensure!(!told.contains("hunter2"), "{told}");
    }
    cluster.stop().await
}

#[test]
fn a_slip_is_one_clear_line_before_anything_listens() -> Result<()> {
    let taken = TcpListener::bind(("127.0.0.1", 0))?;
    let taken = taken.local_addr()?.port().to_string();
    let script = repository().join("examples/quickstart/run");
    for (flags, environment, word) in [
        (&["--prot", "1"][..], None, "--prot"),
        (&["--port", "http"], None, "not a port"),
        (&["--port", "0"], None, "1 to 65534"),
        (&["--port"], None, "needs a value"),
        (&["--apisix", "/nonexistent"], None, "no APISIX there"),
        (&[], Some(("DATABASE_URL", "mysql://x")), "DATABASE_URL"),
        (&[], Some(("MONGODB_URL", "postgres://x")), "MONGODB_URL"),
    ] {
        let mut command = Command::new(&script);
        command
            .args(flags)
            .stdin(Stdio::null())
            .env_remove("DATABASE_URL")
            .env_remove("MONGODB_URL");
        command.envs(environment);
        let output = command.output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {told}");
        ensure!(
            told.contains(word) && told.lines().count() == 1,
            "{flags:?}: {told}"
        );
    }
    let quickstart = Quickstart::new()?;
    let output = Command::new(env!("CARGO_BIN_EXE_postern-quickstart"))
        .arg("--folder")
        .arg(quickstart.folder.path())
        .args(["--port", &taken])
        .env_remove("DATABASE_URL")
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && told.contains(&taken), "{told}");
    ensure!(told.lines().count() == 1, "{told}");
    Ok(())
}

#[test]
fn looking_only_changes_nothing_and_needs_no_build() -> Result<()> {
    let script = repository().join("examples/quickstart/run");
    let bare = tempfile::tempdir()?;
    // The programs that the script itself is made of, and none that Postern needs.
    for name in [
        "bash", "sed", "uname", "awk", "sort", "head", "id", "dirname",
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {name}")])
            .output()?;
        let path = String::from_utf8(found.stdout)?;
        std::os::unix::fs::symlink(path.trim(), bare.path().join(name))?;
    }
    let output = Command::new(&script)
        .arg("--check")
        .env("PATH", bare.path())
        .env("CARGO_HOME", bare.path())
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for word in ["build-essential", "apt-get install", "Rust"] {
        ensure!(told.contains(word), "{word} is not named in: {told}");
    }
    Ok(())
}

/// The README's lines with a table, as they are pasted.
#[tokio::test]
async fn the_readmes_rows() -> Result<()> {
    let quickstart = Quickstart::new()?;
    let (process, _) = quickstart.up(&[]).await?;
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let lines = readme
        .split("```bash\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("the README has no block of bash")?;
    let clone = temporary_folder("clone")?;
    std::os::unix::fs::symlink(quickstart.folder.path(), clone.path().join(".quickstart"))?;
    let pasted = Command::new("bash")
        .args(["-c", lines])
        .current_dir(clone.path())
        .output()?;
    let said = String::from_utf8(pasted.stdout)?;
    ensure!(
        pasted.status.success() && said.contains(r#""inserted":2"#),
        "{said}"
    );
    let found = said.rsplit("{\"data\":").next().unwrap_or_default();
    ensure!(
        found.starts_with(r#"[{"total":100,"customer":{"name":"Ada"}}]"#),
        "{said}"
    );
    drop(process);
    Ok(())
}
