//! The supervisor's promises, under load.

use std::time::{Duration, Instant};

use postern_harness::ports::Port;
use postern_runner::testkit::{Gateway, request, token_of};
use postern_wire::ErrorCode;
use postern_wire::message::{Action, Message};
use rustix::process::{Signal, kill_process};
use tokio::net::UnixStream;

use crate::load::{CONF, Habit, Load, good_request};
use crate::process::{Place, is_running, kill, pid, wait_for};

/// A connection with a token for [`CONF`].
async fn connected(place: &Place) -> (Gateway, u32) {
    let mut gateway = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
    let token = gateway.prepare("route#idle#p#1", CONF).await.unwrap();
    (gateway, token)
}

fn is_good(answer: &Message) -> bool {
    matches!(answer, Message::HttpReqCallResp { id: 7, .. })
}

#[tokio::test]
async fn a_killed_worker_costs_what_was_in_flight_and_one_call_an_idle_connection() {
    const CLIENTS: u64 = 16;
    let place = Place::new();
    let runner = place.start();
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(connected(&place).await);
    }
    let load = Load::start(&place.socket(), 16, Habit::Keep);
    for round in 1..=3 {
        let worker = runner.worker();
        kill(worker);
        let killed = Instant::now();
        load.progress(200);
        assert!(
            killed.elapsed() < Duration::from_secs(2),
            "away for {:?}",
            killed.elapsed()
        );
        assert_ne!(runner.worker(), worker);
        let counts = &load.counts;
        assert_eq!((counts.refused(), counts.wrong()), (0, 0), "{counts:?}");
        assert!(
            counts.lost() <= round * CLIENTS,
            "round {round}: {counts:?}"
        );
        for (gateway, token) in &mut idle {
            // At most the one call that finds out; after it, the old token still holds.
            if gateway.call(*token, &good_request()).await.is_err() {
                *gateway = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
            }
            assert!(is_good(
                &gateway.call(*token, &good_request()).await.unwrap()
            ));
        }
    }
    load.stop();
}

/// A worker that no longer answers its supervisor is replaced, also after a reload.
#[tokio::test]
async fn a_worker_that_hangs_is_replaced() {
    let place = Place::new();
    let runner = place.start();
    for _ in 0..2 {
        // Calls are made and answered while it is asked.
        let (mut gateway, token) = connected(&place).await;
        let worker = runner.worker();
        kill_process(pid(worker), Signal::STOP).unwrap();
        let stopped = Instant::now();
        wait_for("another worker", || match runner.workers()[..] {
            [next] if next != worker => Ok(()),
            ref workers => Err(format!("{workers:?}, one of which is stopped")),
        });
        let took = stopped.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(place.log().contains("a worker hangs and is killed"));
        assert!(gateway.call(token, &good_request()).await.is_err());
        let mut again = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
        assert!(is_good(&again.call(token, &good_request()).await.unwrap()));
        runner.reload();
    }
}

#[tokio::test]
async fn a_worker_that_answers_stays_however_long_it_serves() {
    let place = Place::new();
    let runner = place.start();
    let worker = runner.worker();
    let load = Load::start(&place.socket(), 4, Habit::Keep);
    // Beats come every 700 ms; three without an answer would be the end.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        load.progress(100);
    }
    assert_eq!(runner.worker(), worker);
    let counts = load.stop();
    assert_eq!((counts.lost(), counts.wrong()), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn twenty_reloads_cost_nothing() {
    let place = Place::new();
    let runner = place.start();
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(connected(&place).await);
    }
    let keep = Load::start(&place.socket(), 8, Habit::Keep);
    let fresh = Load::start(&place.socket(), 2, Habit::Fresh);
    for _ in 0..20 {
        runner.reload();
        keep.progress(20);
        fresh.progress(5);
    }
    for (gateway, token) in &mut idle {
        assert!(
            is_good(&gateway.call(*token, &good_request()).await.unwrap()),
            "an idle connection"
        );
    }
    for counts in [keep.stop(), fresh.stop()] {
        assert_eq!(
            (counts.lost(), counts.wrong(), counts.refused()),
            (0, 0, 0),
            "{counts:?}"
        );
    }
}

#[tokio::test]
async fn reloads_that_come_faster_than_workers_start_are_taken_together() {
    let place = Place::new();
    let runner = place.start();
    let load = Load::start(&place.socket(), 4, Habit::Keep);
    let before = runner.worker();
    for _ in 0..20 {
        runner.signal(Signal::HUP);
    }
    wait_for("a single new worker", || match runner.workers()[..] {
        [worker] if worker != before => Ok(()),
        ref workers => Err(format!("{workers:?}")),
    });
    load.progress(100);
    let counts = load.stop();
    assert_eq!(
        (counts.lost(), counts.wrong(), counts.refused()),
        (0, 0, 0),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_broken_configuration_leaves_the_worker_before_at_work() {
    let place = Place::new();
    let runner = place.start();
    let load = Load::start(&place.socket(), 2, Habit::Keep);
    let worker = runner.worker();
    for (broken, named) in [
        ("limits: {frameMs: 0}", "limits.frameMs"),
        (
            "worker: {threads: 2}\nplugins: {nonsense: {}}",
            "before it could serve",
        ),
    ] {
        place.configure(broken);
        runner.signal(Signal::HUP);
        wait_for("a log line that says why", || {
            place
                .log()
                .contains(named)
                .then_some(())
                .ok_or_else(|| place.log())
        });
    }
    load.progress(100);
    assert_eq!(runner.worker(), worker);
    // A crash now does not bring the broken file in, either, nor a part of it.
    kill(worker);
    load.progress(100);
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", runner.worker())).unwrap();
    assert!(command.ends_with("--threads\u{0}1\u{0}"), "{command:?}");
    place.configure("limits: {frameMs: 5000}");
    runner.reload();
    let counts = load.stop();
    assert_eq!((counts.wrong(), counts.refused()), (0, 0), "{counts:?}");
}

/// A new worker that does not get ready, as its file of keys never ends.
#[tokio::test]
async fn a_worker_that_does_not_get_ready_is_given_up() {
    let place = Place::new();
    let fifo = place.config().with_file_name("keys");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let hangs = format!("plugins: {{context: {{keyFile: {}}}}}", fifo.display());
    let runner = place.start();
    let load = Load::start(&place.socket(), 2, Habit::Keep);
    let worker = runner.worker();
    place.configure(&format!("worker: {{startMs: 300}}\n{hangs}"));
    runner.signal(Signal::HUP);
    wait_for("a log line that says why", || {
        let log = place.log();
        let told = log.contains("not ready after 300 ms");
        told.then_some(()).ok_or(log)
    });
    load.progress(100);
    assert_eq!(runner.worker(), worker);
    // With all the time there is: if the worker that serves dies meanwhile, the
    // configuration before serves on.
    place.configure(&hangs);
    runner.signal(Signal::HUP);
    wait_for("a worker that checks", || match runner.workers()[..] {
        [_, _] => Ok(()),
        ref workers => Err(format!("{workers:?}")),
    });
    kill(worker);
    load.progress(100);
    let counts = load.stop();
    assert_eq!((counts.wrong(), counts.refused()), (0, 0), "{counts:?}");
    drop(runner);
    // At the start it is said in one line, too.
    place.configure(&format!("worker: {{startMs: 300}}\n{hangs}"));
    let output = place.command().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("not ready after 300 ms"), "{told}");
}

/// What mends a configuration is not kept waiting by it, and neither is the end.
#[tokio::test]
async fn a_worker_that_hangs_while_it_checks_keeps_no_signal_waiting() {
    let place = Place::new();
    let fifo = place.config().with_file_name("keys");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let hangs = format!(
        "worker: {{startMs: 600000}}\nplugins: {{context: {{keyFile: {}}}}}",
        fifo.display()
    );
    let mut runner = place.start();
    let before = runner.worker();
    let hang = || {
        place.configure(&hangs);
        runner.signal(Signal::HUP);
        wait_for("a worker that checks", || match runner.workers()[..] {
            [_, _] => Ok(()),
            ref workers => Err(format!("{workers:?}")),
        });
    };
    hang();
    place.configure("limits: {frameMs: 5000}");
    runner.signal(Signal::HUP);
    wait_for("the mended configuration", || match runner.workers()[..] {
        [worker] if worker != before => Ok(()),
        ref workers => Err(format!("{workers:?}: {}", place.log())),
    });
    hang();
    let began = Instant::now();
    runner.signal(Signal::TERM);
    let status = runner.wait();
    let took = began.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn sigterm_drains_within_a_second_and_leaves_the_socket() {
    let place = Place::new();
    let mut runner = place.start();
    let load = Load::start(&place.socket(), 4, Habit::Keep);
    let worker = runner.worker();
    let began = Instant::now();
    runner.signal(Signal::TERM);
    let status = runner.wait();
    let took = began.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!is_running(worker));
    assert!(
        place.socket().exists(),
        "a successor's socket could be meant"
    );
    let counts = load.stop();
    assert_eq!(counts.wrong(), 0, "{counts:?}");
}

#[tokio::test]
async fn a_successor_on_the_same_path_takes_over_without_a_refused_connection() {
    let place = Place::new();
    let mut old = place.start();
    let load = Load::start(&place.socket(), 2, Habit::Fresh);
    old.signal(Signal::TERM);
    // As APISIX does on a reload: 90 ms after the old one's SIGTERM.
    tokio::time::sleep(Duration::from_millis(90)).await;
    let new = place.start();
    assert!(old.wait().success());
    load.progress(100);
    assert!(place.socket().exists());
    new.worker();
    let counts = load.stop();
    assert_eq!(
        (counts.lost(), counts.wrong(), counts.refused()),
        (0, 0, 0),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_worker_ends_with_its_supervisor() {
    let place = Place::new();
    let mut runner = place.start();
    let worker = runner.worker();
    runner.signal(Signal::KILL);
    runner.wait();
    wait_for("the worker's end", || {
        (!is_running(worker))
            .then_some(())
            .ok_or_else(|| "running".into())
    });
    // What was left behind is replaced.
    let next = place.start();
    let (mut gateway, token) = connected(&place).await;
    assert!(is_good(
        &gateway.call(token, &good_request()).await.unwrap()
    ));
    drop(next);
}

#[tokio::test]
async fn tokens_outlive_workers_but_not_the_supervisor() {
    let place = Place::new();
    let runner = place.start();
    let (mut gateway, token) = connected(&place).await;
    runner.reload();
    assert!(is_good(
        &gateway.call(token, &good_request()).await.unwrap()
    ));
    kill(runner.worker());
    wait_for("a worker", || {
        (!runner.workers().is_empty())
            .then_some(())
            .ok_or_else(|| "none".into())
    });
    let mut again = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
    assert!(is_good(&again.call(token, &good_request()).await.unwrap()));
    drop(runner);
    let _next = place.start();
    let mut after = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
    let answer = after.call(token, &good_request()).await.unwrap();
    assert_eq!(answer, Message::Err(ErrorCode::ConfTokenNotFound));
}

/// Two configurations of opposite meaning whose tokens collide: white space after the
/// JSON makes as many of each as are wanted.
fn collision() -> (String, String) {
    let padded = |json: &str, number: u32| {
        let padding = (0..18).map(|bit| if number >> bit & 1 == 1 { '\t' } else { ' ' });
        json.chars().chain(padding).collect::<String>()
    };
    let generate = |number| padded(r#"{"missing":"generate"}"#, number);
    let refuse = |number| padded(r#"{"missing":"reject"}"#, number);
    let of = |conf: &str| token_of(&[("correlation-id", conf)]);
    let tokens: std::collections::HashMap<u32, u32> = (0..1 << 18)
        .map(|number| (of(&generate(number)), number))
        .collect();
    let found = (0..1 << 18).find_map(|number| {
        let twin = tokens.get(&of(&refuse(number)))?;
        Some((generate(*twin), refuse(number)))
    });
    found.expect("2^36 pairs hold some 16 collisions")
}

#[tokio::test]
async fn colliding_configurations_keep_apart_across_workers() {
    let (generate, refuse) = collision();
    let place = Place::new();
    let runner = place.start();
    let mut gateway = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
    let first = gateway
        .prepare("route#a#p#1", &[("correlation-id", &generate)])
        .await
        .unwrap();
    let second = gateway
        .prepare("route#b#p#1", &[("correlation-id", &refuse)])
        .await
        .unwrap();
    assert_eq!(second, first + 1);
    let bare = request("GET", "/v1/tenants");
    for _ in 0..2 {
        let passes = gateway.call(first, &bare).await.unwrap();
        let stopped = |answer: &Message| {
            matches!(
                answer,
                Message::HttpReqCallResp {
                    action: Some(Action::Stop(_)),
                    ..
                }
            )
        };
        assert!(!stopped(&passes), "{passes:?}");
        let refused = gateway.call(second, &bare).await.unwrap();
        assert!(stopped(&refused), "{refused:?}");
        runner.reload();
    }
}

#[tokio::test]
async fn a_misconfigured_route_is_named_in_the_log() {
    let place = Place::new();
    let _runner = place.start();
    let mut gateway = Gateway::over(UnixStream::connect(place.socket()).await.unwrap());
    let conf = [
        ("correlation-id", "{}"),
        ("correlation-id", r#"{"missing":7}"#),
    ];
    gateway
        .prepare("route#tenants#ext-plugin-pre-req#42", &conf)
        .await
        .unwrap();
    let line = wait_for("the log line", || {
        let log = place.log();
        let line = log
            .lines()
            .find(|line| line.contains("GATEWAY_MISCONFIGURED"))
            .map(str::to_owned);
        line.ok_or(log)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["route"], "route#tenants#ext-plugin-pre-req#42");
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with("conf[1] (correlation-id): missing: "),
        "{error}"
    );
}

#[tokio::test]
async fn metrics_and_health_are_served_across_reloads() {
    let place = Place::new();
    let admin = place.socket().with_extension("admin");
    place.configure(&format!("admin: {{listen: \"unix:{}\"}}", admin.display()));
    let runner = place.start();
    for _ in 0..2 {
        let (mut gateway, token) = connected(&place).await;
        gateway.call(token, &good_request()).await.unwrap();
        let metrics = get(&admin, "/metrics");
        for name in [
            "postern_calls_total",
            "postern_plugin_verdicts_total",
            "postern_call_duration_seconds_count 1",
        ] {
            assert!(metrics.contains(name), "{name} is not in {metrics}");
        }
        assert!(get(&admin, "/healthz").ends_with("ok\n"));
        assert!(get(&admin, "/nothing").starts_with("HTTP/1.1 404"));
        runner.reload();
    }
}

/// Two on one port would mix their numbers.
#[tokio::test]
async fn the_admin_port_is_one_runners_across_reloads_and_successors() {
    let held = Port::free().unwrap();
    let port = held.address();
    let healthy = || {
        let answer = exchange(std::net::TcpStream::connect(port).unwrap(), "/healthz");
        assert!(answer.ends_with("ok\n"), "{answer}");
    };
    // A moment after the socket that calls come over, and not in between two runners.
    let opened = || {
        let connect = || std::net::TcpStream::connect(port).map_err(|error| error.to_string());
        drop(wait_for("the admin port", connect));
    };
    let (place, other) = (Place::new(), Place::new());
    for place in [&place, &other] {
        place.configure(&format!("admin: {{listen: \"{port}\"}}"));
    }
    let mut runner = place.start();
    opened();
    for _ in 0..3 {
        healthy();
        runner.reload();
    }
    kill(runner.worker());
    // It waits until there is a worker.
    healthy();
    let second = other.command().output().unwrap();
    let told = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(2), "{told}");
    assert!(
        told.contains(&format!("admin.listen: cannot listen on {port}")),
        "{told}"
    );
    assert!(!other.socket().exists());
    // A successor comes while this one still serves.
    let _load = Load::start(&place.socket(), 2, Habit::Keep);
    runner.signal(Signal::TERM);
    let _next = place.start();
    assert!(runner.wait().success());
    opened();
    healthy();
}

#[tokio::test]
async fn a_start_that_fails_leaves_the_admin_socket_to_its_owner() {
    let place = Place::new();
    let admin = place.socket().with_extension("admin");
    place.configure(&format!("admin: {{listen: \"unix:{}\"}}", admin.display()));
    let runner = place.start();
    let mut failing = place.command();
    failing.env("APISIX_LISTEN_ADDRESS", "unix:/nonexistent/folder/s");
    assert_eq!(failing.output().unwrap().status.code(), Some(2));
    // Whoever took it over would have ended by now.
    assert!(get(&admin, "/healthz").ends_with("ok\n"));
    let beside = std::fs::read_dir(admin.parent().unwrap()).unwrap();
    let left: Vec<_> = beside
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains(".admin."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    drop(runner);
}

fn get(socket: &std::path::Path, path: &str) -> String {
    exchange(
        std::os::unix::net::UnixStream::connect(socket).unwrap(),
        path,
    )
}

fn exchange(mut stream: impl std::io::Read + std::io::Write, path: &str) -> String {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
