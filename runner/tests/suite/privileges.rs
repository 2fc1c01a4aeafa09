//! Whom the processes run as. CI runs these as root; anybody else is told that only
//! root can become another user.

use std::os::unix::fs::chown;

use postern_runner::testkit::Gateway;
use tokio::net::UnixStream;

use crate::load::{CONF, good_request};
use crate::process::{Place, kill, wait_for};

const USER: u32 = 64_321;
const GROUP: u32 = 64_322;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A place whose runner is to become [`USER`].
fn place() -> Place {
    let place = Place::new();
    place.configure(&format!("worker: {{user: \"{USER}\", group: \"{GROUP}\"}}"));
    place
}

/// A line of `/proc/<pid>/status`, its words.
fn status(process: u32, name: &str) -> Vec<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.unwrap().trim_start_matches(':').split_whitespace();
    words.map(str::to_owned).collect()
}

/// Real, effective, saved and file system's; no other group and no capability.
fn assert_unprivileged(process: u32) {
    assert_eq!(status(process, "Uid"), vec![USER.to_string(); 4]);
    assert_eq!(status(process, "Gid"), vec![GROUP.to_string(); 4]);
    let groups = status(process, "Groups");
    assert!(
        groups.iter().all(|group| *group == GROUP.to_string()),
        "{groups:?}"
    );
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(status(process, set), ["0000000000000000"], "{set}");
    }
}

#[tokio::test]
async fn root_is_given_up_for_good() {
    let place = place();
    if !is_root() {
        let output = place.command().output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{error}");
        assert!(
            error.contains("worker.user, worker.group: only root can"),
            "{error}"
        );
        return;
    }
    // Its own: where it writes its log, and reads its file again.
    let folder = place.config();
    chown(folder.parent().unwrap(), Some(USER), Some(GROUP)).unwrap();
    let runner = place.start();
    assert_unprivileged(runner.worker());
    wait_for("the supervisor to give up root", || {
        match &status(runner.id(), "Uid")[..] {
            [uid, ..] if *uid == USER.to_string() => Ok(()),
            uids => Err(format!("{uids:?}")),
        }
    });
    assert_unprivileged(runner.id());
    assert!(!place.log().contains("as root"), "{}", place.log());
    // What it starts as that user serves as well as what it started as root.
    let before = runner.worker();
    kill(before);
    wait_for("another worker", || match runner.workers()[..] {
        [worker] if worker != before => Ok(()),
        ref workers => Err(format!("{workers:?}")),
    });
    for _ in 0..2 {
        let mut gateway = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
        let token = gateway.prepare("route#r#p#1", CONF).await.unwrap();
        gateway.call(token, &good_request()).await.unwrap();
        assert_unprivileged(runner.worker());
        runner.reload();
    }
}

#[test]
fn to_serve_as_root_is_said_once() {
    let place = Place::new();
    let runner = place.start();
    wait_for("the start to be told", || {
        let log = place.log();
        log.contains("worker serves").then_some(()).ok_or(log)
    });
    runner.reload();
    let log = place.log();
    let warned = log.matches("the runner serves as root: name a user in worker.user");
    assert_eq!(warned.count(), usize::from(is_root()), "{log}");
}
