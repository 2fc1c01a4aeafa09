//! The harness itself: what it starts answers, and ends with whoever started it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::process::{Leave, Process};
use postern_harness::redis::{Redis, RedisCluster};
use postern_harness::wait_for;
use rustix::process::{Pid, Signal};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_cluster_is_made_once_and_found_again() -> Result<()> {
    // PostgreSQL runs as another user under root and must reach its folder.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir()?;
    let port = Port::free()?;
    let first = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
    let url = first.url();
    first.stop().await?;
    let second = Cluster::start(folder.path(), port.number(), Durability::Volatile).await?;
    assert_eq!(second.url(), url);
    second.stop().await
}

#[tokio::test]
async fn a_server_that_ends_at_once_is_told_with_its_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo no such flag >&2; exit 3"]);
    let mut process = Process::spawn("broken", command, folder.path(), Leave::Killed)?;
    let failure = process.ready(LIMIT, async || bail!("refused")).await;
    let message = format!("{:#}", failure.unwrap_err());
    assert!(message.contains("no such flag"), "{message}");
    assert!(message.contains("exit status: 3"), "{message}");
    Ok(())
}

#[tokio::test]
async fn waiting_in_vain_tells_the_last_state() {
    let mut tries = 0;
    let failure = wait_for("rain", Duration::from_millis(100), async || {
        tries += 1;
        bail!("sunny") as Result<()>
    })
    .await
    .unwrap_err();
    assert!(failure.to_string().contains("sunny"), "{failure}");
    assert!(tries > 1);
}

/// Run by the next test as a process of its own, which is then killed.
#[tokio::test]
async fn starts_a_process_and_never_ends() -> Result<()> {
    if std::env::var_os("HARNESS_KILL_ME").is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("sleep");
    command.arg("600");
    let process = Process::spawn("sleep", command, folder.path(), Leave::Killed)?;
    println!("started {}", process.id());
    std::future::pending().await
}

#[tokio::test]
async fn what_a_killed_process_started_ends_too() -> Result<()> {
    let mut parent = Command::new(std::env::current_exe()?)
        .args(["--exact", "starts_a_process_and_never_ends", "--nocapture"])
        .env("HARNESS_KILL_ME", "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(parent.stdout.take().expect("it is piped")).lines();
    let id: i32 = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("started ")?.1.trim().parse().ok())
        .expect("it says what it started");
    let started = Pid::from_raw(id).expect("not 0");
    rustix::process::test_kill_process(started)?;
    rustix::process::kill_process(Pid::from_child(&parent), Signal::KILL)?;
    parent.wait()?;
    wait_for("the started process to end", LIMIT, async || {
        ensure!(
            rustix::process::test_kill_process(started).is_err(),
            "process {id} still runs"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn redis_is_paused_killed_and_started_again_where_it_was() -> Result<()> {
    let mut redis = Redis::start().await?;
    let (url, first) = (redis.url(), redis.process().id());
    redis.pause()?;
    redis.resume()?;
    redis.kill()?;
    redis.restart().await?;
    assert_eq!(redis.url(), url);
    assert_ne!(redis.process().id(), first);
    Ok(())
}

#[tokio::test]
async fn six_redis_nodes_become_a_cluster() -> Result<()> {
    let cluster = RedisCluster::start().await?;
    assert_eq!(cluster.urls().len(), 6);
    Ok(())
}

#[tokio::test]
async fn a_proxy_passes_on_cuts_and_swallows() -> Result<()> {
    use postern_harness::proxy::{Proxy, Wire};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let target = echo.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let proxy = Proxy::start(target).await?;
    let ask = async |stream: &mut tokio::net::TcpStream| -> Result<u8> {
        stream.write_u8(7).await?;
        Ok(stream.read_u8().await?)
    };
    let connect = || tokio::net::TcpStream::connect(proxy.address());
    let mut first = connect().await?;
    assert_eq!(ask(&mut first).await?, 7);

    proxy.set(Wire::Swallowing);
    let mut second = connect().await?;
    for stream in [&mut first, &mut second] {
        let silent = Duration::from_millis(200);
        let answer = tokio::time::timeout(silent, ask(stream)).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    proxy.set(Wire::Whole);
    assert!(ask(&mut first).await.is_err());
    assert_eq!(ask(&mut connect().await?).await?, 7);

    let mut third = connect().await?;
    assert_eq!(ask(&mut third).await?, 7);
    proxy.set(Wire::Cut);
    assert!(ask(&mut third).await.is_err());
    assert!(ask(&mut connect().await?).await.is_err());
    proxy.set(Wire::Whole);
    assert_eq!(ask(&mut connect().await?).await?, 7);
    Ok(())
}
