//! Ends what this process started when this process ends, however it ends.
//!
//! A test binary may be killed, and a static is never dropped. So one small
//! shell holds the reading end of a pipe from this process: when the kernel
//! closes the writing end, it signals every process group that was guarded and
//! not released, waits for them, and removes the folders it was given.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
guarded=
while read -r verb signal what; do
  case $verb in
    guard) guarded="$guarded $signal:$what" ;;
    release)
      kept=
      for entry in $guarded; do [ "${entry#*:}" = "$what" ] || kept="$kept $entry"; done
      guarded=$kept ;;
    remove) set -- "$@" "$what" ;;
  esac
done
for entry in $guarded; do kill -s "${entry%%:*}" -- "-${entry#*:}"; done
for entry in $guarded; do
  tries=100
  while kill -s 0 -- "-${entry#*:}" && [ $tries -gt 0 ]; do sleep 0.05; tries=$((tries - 1)); done
  kill -s KILL -- "-${entry#*:}"
done
[ $# -eq 0 ] || rm -rf -- "$@"
"#;

static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// Signals `group` with `signal` (e.g. `KILL`) when this process ends.
pub(crate) fn guard(group: i32, signal: &str) -> Result<()> {
    tell(&format!("guard {signal} {group}"))
}

/// Forgets a group that has ended.
pub(crate) fn release(group: i32) -> Result<()> {
    tell(&format!("release - {group}"))
}

/// Removes `folder` when this process ends.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    tell(&format!("remove - {}", folder.display()))
}

fn tell(line: &str) -> Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let pipe = match PIPE.get() {
        Some(pipe) => pipe,
        None => {
            let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            match PIPE.get() {
                Some(pipe) => pipe,
                None => {
                    let pipe = start()?;
                    PIPE.get_or_init(|| Mutex::new(pipe))
                }
            }
        }
    };
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{line}").context("the watchdog is gone")
}

fn start() -> Result<ChildStdin> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "postern-watchdog"])
        .process_group(0)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start /bin/sh")?;
    child.stdin.take().context("the watchdog has no pipe")
}
