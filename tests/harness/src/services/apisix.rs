//! A real APISIX in a private prefix: its own program files and our configuration
//! by symbolic link, and logs, sockets and temporary files of its own.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::configuration::Rendered;

/// What APISIX finds relative to its prefix, and never writes.
const PROGRAM_FILES: [&str; 6] = [
    "apisix",
    "deps",
    "ui",
    "bin",
    "conf/mime.types",
    "conf/debug.yaml",
];

/// Renders the prefix beside the configuration and gives the command that runs
/// nginx in it, in the foreground.
pub(super) fn command(home: &Path, rendered: &Rendered) -> Result<Command> {
    let prefix = rendered.folder.join("apisix");
    let conf = prefix.join("conf");
    std::fs::create_dir_all(&conf)?;
    std::fs::create_dir_all(prefix.join("logs"))?;
    let program = PROGRAM_FILES.map(|name| (home.join(name), prefix.join(name)));
    // Whoever edits the rendered routes edits those that APISIX watches.
    let ours = [
        (rendered.config.clone(), conf.join("config.yaml")),
        (rendered.routes.clone(), conf.join("apisix.yaml")),
    ];
    for (target, link) in program.into_iter().chain(ours) {
        if target.exists() && !link.exists() {
            symlink(&target, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    init(&prefix)?;
    let mut command = Command::new("openresty");
    command
        .arg("-p")
        .arg(&prefix)
        .arg("-c")
        .arg(conf.join("nginx.conf"))
        .args(["-g", "daemon off;"])
        .current_dir(&prefix);
    Ok(command)
}

/// `./apisix/cli/apisix.lua`, started so from the prefix, takes the prefix for
/// its home; under any other path it would write into the installed one.
fn init(prefix: &Path) -> Result<()> {
    let output = Command::new(luajit()?)
        .args(["./apisix/cli/apisix.lua", "init"])
        .current_dir(prefix)
        .stdin(Stdio::null())
        .output()
        .context("cannot run OpenResty's luajit")?;
    ensure!(
        output.status.success() && prefix.join("conf/nginx.conf").is_file(),
        "apisix init wrote no nginx.conf: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// OpenResty's own luajit: `openresty -V` tells where it was installed.
fn luajit() -> Result<PathBuf> {
    let output = Command::new("openresty")
        .arg("-V")
        .output()
        .context("openresty is not on the PATH")?;
    let told = String::from_utf8_lossy(&output.stderr);
    let prefix = told
        .split_whitespace()
        .find_map(|word| word.strip_prefix("--prefix="))
        .context("openresty -V does not tell its prefix")?;
    let luajit = Path::new(prefix)
        .parent()
        .unwrap_or(Path::new("/"))
        .join("luajit/bin/luajit");
    if !luajit.is_file() {
        bail!("{} is not there", luajit.display());
    }
    Ok(luajit)
}
