//! What the recording cannot show: connections, time, processes, limits. The
//! stand-in runs as a process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic: the panic is its failure"
)]

mod faults;
mod lengths;
mod peers;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

use peers::{
    Gateway, PRE_REQ, Runner, Upstream, command, eventually, folder, pass, read_until, routes,
    stop, with_runner,
};
use postern_wire::message::{Info, Message};
use rustix::process::Signal;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Up: 1\r\n\r\nok";

/// A gateway whose runner behaves so, on `/r/*`.
fn gateway(
    plugins: &str,
    behaviour: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static,
) -> (tempfile::TempDir, Runner, Upstream, Gateway) {
    let upstream = Upstream::new();
    let folder = folder("", plugins, upstream.port);
    let runner = Runner::new(folder.path(), behaviour);
    with_runner(&folder, &runner);
    let gateway = Gateway::start(folder.path(), "0.02");
    (folder, runner, upstream, gateway)
}

#[test]
fn a_connection_carries_several_requests() {
    let (_folder, runner, _upstream, gateway) = gateway(PRE_REQ, |message| match message {
        Message::HttpReqCallReq(call) => Some(stop(200, &[], &String::from_utf8_lossy(&call.path))),
        other => pass(other),
    });
    let mut client = gateway.connect();
    let two = "POST /r/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody\
               GET /r/2 HTTP/1.1\r\nHost: h\r\n\r\n";
    client.write_all(two.as_bytes()).unwrap();
    assert!(read_until(&mut client, "0\r\n\r\n").contains("/r/1"));
    assert!(read_until(&mut client, "0\r\n\r\n").contains("/r/2"));
    let prepared = |message: &&Message| matches!(message, Message::PrepareConfReq(_));
    assert_eq!(
        runner.asked().iter().filter(prepared).count(),
        1,
        "one token serves both"
    );
}

#[test]
fn a_chunked_body_is_gathered_before_the_upstream_sees_it() {
    let (_folder, _runner, upstream, gateway) = gateway(PRE_REQ, pass);
    let mut client = gateway.connect();
    let head = "POST /r/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    assert_eq!(
        read_until(&mut client, "\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    let half = "a".repeat(100_000);
    for _ in 0..2 {
        client
            .write_all(format!("{:x}\r\n{half}\r\n", half.len()).as_bytes())
            .unwrap();
    }
    client.write_all(b"0\r\n\r\n").unwrap();
    let mut seen = upstream.accept();
    let head = read_until(&mut seen, "\r\n\r\n");
    assert!(head.contains("Content-Length: 200000\r\n"), "{head}");
    assert!(!head.contains("Expect"), "{head}");
    let mut body = vec![0; 200_000];
    seen.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'a'));
    seen.write_all(OK).unwrap();
    assert!(read_until(&mut client, "ok").contains("X-Up: 1"));
}

#[test]
fn proxy_control_lets_a_body_stream() {
    let plugins = format!("proxy-control: {{request_buffering: false}}, {PRE_REQ}");
    let (_folder, _runner, upstream, gateway) = gateway(&plugins, pass);
    let mut client = gateway.connect();
    let head = "POST /r/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"5\r\nfirst\r\n").unwrap();
    let mut seen = upstream.accept();
    // The first piece is there while the second has not been sent.
    let got = read_until(&mut seen, "first\r\n");
    assert!(got.contains("Transfer-Encoding: chunked\r\n"), "{got}");
    client.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    read_until(&mut seen, "second\r\n0\r\n\r\n");
    seen.write_all(OK).unwrap();
    read_until(&mut client, "ok");
}

#[test]
fn client_control_judges_an_announced_length_before_the_runner_is_asked() {
    let plugins = format!("client-control: {{max_body_size: 4}}, {PRE_REQ}");
    let (_folder, runner, upstream, gateway) = gateway(&plugins, pass);
    let mut client = gateway.connect();
    let head = "POST /r/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nfirst";
    client.write_all(head.as_bytes()).unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 413 "));
    assert!(runner.asked().is_empty());
    // One in chunks shows while it is read, and here nothing reads it but the gateway.
    let mut client = gateway.connect();
    let head = "POST /r/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"5\r\nfirst\r\n0\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 413 "));
    assert!(!runner.asked().is_empty());
    assert!(upstream.is_quiet());
}

#[test]
fn proxy_buffering_undoes_proxy_control_and_client_control() {
    let plugins = format!(
        "proxy-buffering: {{disable_proxy_buffering: true}}, client-control: {{max_body_size: 4}}, \
         proxy-control: {{request_buffering: false}}, {PRE_REQ}"
    );
    let (_folder, _runner, upstream, gateway) = gateway(&plugins, pass);
    let mut client = gateway.connect();
    let head = "POST /r/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"5\r\nfirst\r\n0\r\n\r\n").unwrap();
    let mut seen = upstream.accept();
    let got = read_until(&mut seen, "first");
    // Gathered first, so its length is known.
    assert!(got.contains("Content-Length: 5\r\n"), "{got}");
    seen.write_all(OK).unwrap();
    read_until(&mut client, "ok");
}

#[test]
fn a_body_the_runner_asked_for_still_reaches_the_upstream() {
    let (_folder, runner, upstream, gateway) = gateway(PRE_REQ, |message| match message {
        Message::HttpReqCallReq(_) => Some(Message::ExtraInfoReq(Info::ReqBody)),
        Message::ExtraInfoResp { .. } => Some(Message::HttpReqCallResp {
            id: 0,
            action: None,
        }),
        other => pass(other),
    });
    let body = "b".repeat(50_000);
    let mut client = gateway.connect();
    let head = format!(
        "POST /r/1 HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(body.as_bytes()).unwrap();
    let mut seen = upstream.accept();
    read_until(&mut seen, "\r\n\r\n");
    let mut got = vec![0; body.len()];
    seen.read_exact(&mut got).unwrap();
    assert_eq!(got, body.as_bytes());
    let fetched = runner
        .asked()
        .into_iter()
        .find_map(|message| match message {
            Message::ExtraInfoResp { result } => result,
            _ => None,
        });
    assert_eq!(fetched.unwrap(), body.as_bytes());
}

#[test]
fn a_client_that_leaves_takes_the_upstream_connection_with_it() {
    let (_folder, _runner, upstream, gateway) = gateway(PRE_REQ, pass);
    let mut client = gateway.connect();
    client
        .write_all(b"GET /r/1 HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    let mut seen = upstream.accept();
    read_until(&mut seen, "\r\n\r\n");
    drop(client);
    assert_eq!(seen.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_upstream_that_is_away_or_slow_is_502_or_504() {
    let (folder, _runner, upstream, gateway) = gateway(PRE_REQ, pass);
    let started = Instant::now();
    let late = gateway.get("/r/1", "");
    assert!(late.starts_with("HTTP/1.1 504 "), "{late}");
    assert!(
        started.elapsed() >= Duration::from_secs_f64(1.2),
        "60 s at this scale"
    );
    drop((folder, gateway, upstream));

    let folder = self::folder("", "", 1);
    let gateway = Gateway::start(folder.path(), "0.02");
    assert!(gateway.get("/r/1", "").starts_with("HTTP/1.1 502 "));
}

#[test]
fn a_silent_runner_is_given_up_after_a_minute() {
    let (_folder, _runner, _upstream, gateway) = gateway(PRE_REQ, |message| {
        if matches!(message, Message::HttpReqCallReq(_)) {
            std::thread::sleep(peers::PATIENCE);
        }
        pass(message)
    });
    let started = Instant::now();
    let answer = gateway.get("/r/1", "");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let minute = started.elapsed();
    assert!((1.2..5.0).contains(&minute.as_secs_f64()), "{minute:?}");
}

#[test]
fn a_slow_prepare_holds_up_every_route_without_a_token() {
    let upstream = Upstream::new();
    let folder = folder("", "", upstream.port);
    let both = routes(&[("r", PRE_REQ), ("s", PRE_REQ)], upstream.port);
    std::fs::write(folder.path().join("apisix.yaml"), both).unwrap();
    let runner = Runner::new(folder.path(), |message| match message {
        Message::PrepareConfReq(call) if call.key.starts_with(b"route#r#") => {
            std::thread::sleep(Duration::from_millis(500));
            pass(message)
        }
        Message::HttpReqCallReq(_) => Some(stop(200, &[], "ok")),
        other => pass(other),
    });
    with_runner(&folder, &runner);
    // 5 s for the lock are 0.1 s here, 60 s for the runner 1.2 s.
    let gateway = Gateway::start(folder.path(), "0.02");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.get("/r/1", ""));
        eventually(|| match runner.asked().len() {
            0 => Err("nothing is prepared".to_owned()),
            asked => Ok(asked),
        });
        let second = gateway.get("/s/1", "");
        assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
        assert!(first.join().unwrap().starts_with("HTTP/1.1 200 "));
    });
    assert!(gateway.get("/s/1", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_edit_of_the_routes_changes_every_key() {
    let (folder, runner, _upstream, gateway) = gateway(PRE_REQ, |message| match message {
        Message::HttpReqCallReq(_) => Some(stop(200, &[], "ok")),
        other => pass(other),
    });
    let keys = || -> Vec<String> {
        let key = |message| match message {
            Message::PrepareConfReq(call) => Some(String::from_utf8(call.key).unwrap()),
            _ => None,
        };
        runner.asked().into_iter().filter_map(key).collect()
    };
    gateway.get("/r/1", "");
    let file = std::fs::File::options()
        .append(true)
        .open(folder.path().join("apisix.yaml"));
    file.unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000))
        .unwrap();
    let keys = eventually(|| {
        gateway.get("/r/1", "");
        match keys() {
            keys if keys.len() > 1 => Ok(keys),
            keys => Err(format!("{keys:?}")),
        }
    });
    assert!(
        keys[0].starts_with("route#r#ext-plugin-pre-req#"),
        "{keys:?}"
    );
    assert_eq!(keys[1], "route#r#ext-plugin-pre-req#1000");
}

#[test]
fn what_nginx_refuses_never_reaches_apisix() {
    let (_folder, runner, _upstream, gateway) = gateway(PRE_REQ, pass);
    let long = "x".repeat(9000);
    let many: String = (0..40)
        .map(|n| format!("X-{n}: {}\r\n", &long[..1000]))
        .collect();
    for (request, status) in [
        (format!("GET /r/{long} HTTP/1.1\r\nHost: h\r\n\r\n"), "414"),
        (format!("GET /r/1 HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), "400"),
        (format!("GET /r/1 HTTP/1.1\r\nHost: h\r\n{many}\r\n"), "400"),
        ("GET /r/1 HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET /r/1 HTTP/2.0\r\nHost: h\r\n\r\n".into(), "505"),
        ("get /r/1 HTTP/1.1\r\nHost: h\r\n\r\n".into(), "400"),
        ("GET /r/%zz HTTP/1.1\r\nHost: h\r\n\r\n".into(), "400"),
        ("TRACE /r/1 HTTP/1.1\r\nHost: h\r\n\r\n".into(), "405"),
        ("GET /r/1 HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n".into(), "400"),
        ("POST /r/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "400"),
        ("POST /r/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n".into(), "501"),
        ("POST /r/1 HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n".into(), "400"),
        ("\u{16}\u{3}\u{1}\r\n\r\n".into(), "400"),
    ] {
        let answer = gateway.exchange(&request);
        let shown: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
    }
    assert_eq!(runner.asked(), []);
}

#[test]
fn cors_at_its_place_answers_a_preflight_before_the_runner() {
    let cors = "cors: {allow_origins: 'https://a.example', allow_headers: '**'}";
    let early = format!("{cors}, {PRE_REQ}");
    let late = format!(
        "{cors}, ext-plugin-pre-req: {{_meta: {{priority: 3990}}, conf: [{{name: a, value: '{{}}'}}]}}"
    );
    let refuse = |message: &Message| match message {
        Message::HttpReqCallReq(_) => Some(stop(401, &[], "no")),
        other => pass(other),
    };
    let preflight = "OPTIONS /r/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nOrigin: https://a.example\r\n\
                     Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-a\r\n\r\n";
    let (_folder, _runner, _upstream, gateway) = self::gateway(&early, refuse);
    let answer = gateway.exchange(preflight);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(!answer.contains("Access-Control-Allow-Origin"), "{answer}");
    let (_folder, runner, _upstream, gateway) = self::gateway(&late, refuse);
    let answer = gateway.exchange(preflight);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.contains("Access-Control-Allow-Origin: https://a.example\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("Access-Control-Allow-Headers: x-a\r\n"),
        "{answer}"
    );
    assert_eq!(runner.asked(), []);
    let answer = gateway.get("/r/1", "Origin: https://a.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(
        answer.contains("Access-Control-Allow-Origin: https://a.example\r\n"),
        "{answer}"
    );
}

#[test]
fn an_answer_of_200_is_subject_to_the_requests_conditions() {
    let (_folder, _runner, _upstream, gateway) = gateway(PRE_REQ, |message| match message {
        Message::HttpReqCallReq(_) => Some(stop(200, &[("ETag", "\"new\"")], "body")),
        other => pass(other),
    });
    let answer = gateway.get("/r/1", "If-Match: \"old\"\r\n");
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    let answer = gateway.get("/r/1", "If-None-Match: \"new\"\r\n");
    assert!(answer.starts_with("HTTP/1.1 304 "), "{answer}");
    assert!(gateway.get("/r/1", "").ends_with("4\r\nbody\r\n0\r\n\r\n"));
}

#[test]
fn a_runner_is_started_with_two_variables_and_again_when_it_dies() {
    let folder = folder("", "", 1);
    let home = folder.path().join("conf");
    std::fs::create_dir(&home).unwrap();
    let script = "env > started.$$; pwd >> started.$$; exec sleep 600";
    std::fs::write(
        home.join("config.yaml"),
        format!("ext-plugin: {{cmd: [sh, -c, '{script}']}}"),
    )
    .unwrap();
    std::fs::rename(folder.path().join("apisix.yaml"), home.join("apisix.yaml")).unwrap();
    let mut gateway = Gateway::start(&home, "0.02");
    let started = || -> Vec<(i32, String)> {
        let entries = std::fs::read_dir(folder.path()).unwrap().flatten();
        let runner = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            let pid = name.strip_prefix("started.")?.parse().unwrap();
            Some((pid, std::fs::read_to_string(entry.path()).unwrap()))
        };
        entries.filter_map(runner).collect()
    };
    let runners = |count: usize| {
        eventually(|| {
            let all = started();
            let whole = |(_, text): &(i32, String)| text.ends_with('\n') && text.contains("\n/");
            if all.len() == count && all.iter().all(whole) {
                Ok(all)
            } else {
                Err(format!("{all:?}"))
            }
        })
    };
    let first = runners(1).remove(0);
    let allowed = [
        "APISIX_LISTEN_ADDRESS=",
        "APISIX_CONF_EXPIRE_TIME=3600",
        "PATH=",
        "PWD=",
        "OLDPWD=",
        "SHLVL=",
        "_=",
        "/",
    ];
    for line in first.1.lines() {
        assert!(
            allowed.iter().any(|start| line.starts_with(start)),
            "{line}"
        );
    }
    let socket = home.join(format!("apisix-{}.sock", gateway.child.id()));
    assert!(first.1.contains(&format!(
        "APISIX_LISTEN_ADDRESS=unix:{}\n",
        socket.display()
    )));
    assert!(
        first.1.ends_with(&format!("{}\n", folder.path().display())),
        "{}",
        first.1
    );
    let pid = |number: i32| rustix::process::Pid::from_raw(number).unwrap();
    rustix::process::kill_process(pid(first.0), Signal::KILL).unwrap();
    let second = runners(2)
        .into_iter()
        .find(|(number, _)| *number != first.0)
        .unwrap();
    // A reload ends it and starts another; leaving ends that one too.
    gateway.signal(Signal::HUP);
    let third = runners(3)
        .into_iter()
        .find(|(number, _)| *number != first.0 && *number != second.0)
        .unwrap();
    let gone = |number: i32| {
        eventually(|| match rustix::process::test_kill_process(pid(number)) {
            Err(_) => Ok(()),
            Ok(()) => Err(format!("{number} lives")),
        });
    };
    gone(second.0);
    gateway.signal(Signal::TERM);
    assert!(gateway.child.wait().unwrap().success());
    gone(third.0);
}

#[test]
fn bad_input_is_told_in_one_line_before_anything_listens() {
    let folder = folder("", "", 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let free = ["--listen", "127.0.0.1:0"];
    for (arguments, routes, config, told) in [
        (
            &["--listen", taken.as_str()][..],
            "#END",
            "",
            "cannot listen on",
        ),
        (&free, "routes: []", "", "#END"),
        (
            &free,
            "routes: [{id: 1, uri: /a, vars: []}]\n#END",
            "",
            "vars",
        ),
        (
            &free,
            "#END",
            "ext-plugin: {cmd: [/nowhere/runner]}",
            "failed to start /nowhere/runner",
        ),
        (&free, "#END", "apisix: [", "config.yaml"),
    ] {
        std::fs::write(folder.path().join("apisix.yaml"), routes).unwrap();
        std::fs::write(folder.path().join("config.yaml"), config).unwrap();
        let output = command(folder.path()).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(output.stdout.is_empty(), "it listened");
        assert!(
            error.contains(told) && error.lines().count() == 1,
            "{error}"
        );
    }
    for arguments in [
        &["--time-scale", "0"][..],
        &["--listen", "here"],
        &["--nonsense"],
    ] {
        let output = command(folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            error.starts_with("standin-gateway: ") && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn a_502_of_the_gateways_own_is_the_configured_page() {
    let config = r#"
nginx_config:
  http_server_configuration_snippet: |
    error_page 502 /.e/502;
    location = /.e/502 {
      internal;
      default_type application/json;
      return 502 '{"error":{"correlationId":"$http_x_correlation_id"}}';
    }
"#;
    let folder = folder(config, "cors: {}", 1);
    let gateway = Gateway::start(folder.path(), "1");
    let answer = gateway.get("/r/1", "X-Correlation-Id: abc-12345\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("Content-Type: application/json\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with(r#"{"error":{"correlationId":"abc-12345"}}"#),
        "{answer}"
    );
}
