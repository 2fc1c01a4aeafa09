//! Keycloak's program files: fetched from Maven's registry as this machine's Maven
//! is set up (which checks their checksums), built once, and kept below `target/`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::installation;

const VERSION: &str = "26.7.3";
/// Maven's own way to unpack an artifact; the version is part of what is tested.
const UNPACK: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack";
/// 177 MB; seconds, where the network is good.
const FETCH_LIMIT: Duration = Duration::from_secs(900);
/// 25 s on two idle cores.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// The installation, made when it is not there.
pub(super) async fn find() -> Result<PathBuf> {
    let what = "fetching and building Keycloak (once; 1 to 2 minutes)";
    installation::find(&format!("keycloak-{VERSION}"), what, install).await
}

/// Gives the folder that is complete, below `making`.
async fn install(making: PathBuf) -> Result<PathBuf> {
    let mut fetch = Command::new("mvn");
    fetch
        .args(["--batch-mode", "--quiet", "--strict-checksums", UNPACK])
        .arg(format!(
            "-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        ))
        .arg(format!("-DoutputDirectory={}", making.display()))
        // A folder without a pom.xml, and of this time only: the plugin notes beside it
        // what it has unpacked, and does not do so twice.
        .current_dir(&making);
    installation::run("mvn", fetch, FETCH_LIMIT).await?;
    let unpacked = making.join(format!("keycloak-{VERSION}"));
    let mut build = Command::new(unpacked.join("bin/kc.sh"));
    build
        .args(["build", "--db=dev-file", "--health-enabled=false"])
        .env("JAVA", java())
        .env("JAVA_OPTS", super::JAVA_OPTIONS.join(" "));
    installation::run("kc.sh build", build, BUILD_LIMIT).await?;
    Ok(unpacked)
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
