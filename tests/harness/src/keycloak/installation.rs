//! Keycloak's program files: fetched from Maven's registry as this machine's Maven
//! is set up (which checks their checksums), built once, and kept below `target/`.
//!
//! The folder appears under its name only when it is complete, and one process at a
//! time makes it: a lock on a file is given back by the kernel however that ends.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::process::binaries;

const VERSION: &str = "26.7.3";
/// Maven's own way to unpack an artifact; the version is part of what is tested.
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack";
/// 177 MB; seconds, where the network is good.
const FETCH_LIMIT: Duration = Duration::from_secs(900);
/// 25 s on two idle cores.
const BUILD_LIMIT: Duration = Duration::from_secs(300);
/// Lines of a failed command's output that are shown.
const SHOWN: usize = 8;

/// The installation, made when it is not there.
pub(super) async fn find() -> Result<PathBuf> {
    let target = binaries()?;
    let target = target.parent().context("no folder around the binaries")?;
    let services = target.join("services");
    let installed = services.join(format!("keycloak-{VERSION}"));
    if !installed.exists() {
        std::fs::create_dir_all(&services)
            .with_context(|| format!("cannot make {}", services.display()))?;
        let lock = File::create(services.join("keycloak.lock"))?;
        // Whoever holds it may need minutes.
        let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
        if !installed.exists() {
            install(&services, &installed)
                .await
                .context("Keycloak cannot be installed")?;
        }
        drop(lock);
    }
    Ok(installed)
}

async fn install(services: &Path, installed: &Path) -> Result<()> {
    say(&format!(
        "fetching and building Keycloak {VERSION} (once; 1 to 2 minutes)"
    ));
    let making = services.join(format!("keycloak-{VERSION}.making"));
    // What a killed run left; the lock is ours.
    if making.exists() {
        std::fs::remove_dir_all(&making)?;
    }
    let mut fetch = Command::new("mvn");
    fetch
        .args(["--batch-mode", "--quiet", "--strict-checksums", UNPACK])
        .arg(format!(
            "-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        ))
        .arg(format!("-DoutputDirectory={}", making.display()))
        // Not in the clone: a pom.xml somewhere above would be taken for ours.
        .current_dir("/");
    run("mvn", fetch, FETCH_LIMIT).await?;
    let unpacked = making.join(format!("keycloak-{VERSION}"));
    let mut build = Command::new(unpacked.join("bin/kc.sh"));
    build
        .args(["build", "--db=dev-file", "--health-enabled=false"])
        .env("JAVA", java())
        .env("JAVA_OPTS", super::JAVA_OPTIONS.join(" "));
    run("kc.sh build", build, BUILD_LIMIT).await?;
    std::fs::rename(&unpacked, installed)?;
    std::fs::remove_dir_all(&making)?;
    Ok(())
}

/// A home for one server: the program files by link, the data its own.
pub(super) fn link(installation: &Path, home: &Path) -> Result<()> {
    std::fs::create_dir_all(home.join("data"))?;
    for name in ["conf", "lib", "providers", "themes"] {
        symlink(installation.join(name), home.join(name))
            .with_context(|| format!("cannot link Keycloak's {name}"))?;
    }
    Ok(())
}

/// The `java` of `JAVA_HOME`, else of the path.
pub(super) fn java() -> PathBuf {
    std::env::var_os("JAVA_HOME")
        .map(|home| Path::new(&home).join("bin/java"))
        .filter(|java| java.is_file())
        .unwrap_or_else(|| "java".into())
}

async fn run(name: &str, mut command: Command, limit: Duration) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let output = tokio::time::timeout(limit, output)
        .await
        .with_context(|| format!("{name} took longer than {limit:?}"))?
        .with_context(|| {
            format!(
                "{name} cannot be run; tests/run installs maven and a Java runtime where it can"
            )
        })?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let said: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let from = said.len().saturating_sub(SHOWN);
        let said = said.get(from..).unwrap_or_default().join("\n");
        bail!("{name} failed ({}):\n{said}", output.status);
    }
    Ok(())
}

/// Past the capture of the test harness: nobody should wonder what takes so long.
fn say(line: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
