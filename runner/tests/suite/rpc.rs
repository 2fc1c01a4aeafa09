//! One connection: what the runner answers to good calls, bad ones, and slow ones.

use std::time::Duration;

use postern_runner::testkit::{Gateway, request};
use postern_runner::{Flow, Plugin, Registry, Reply, Request, Response, RunnerConfig};
use postern_wire::ErrorCode;
use postern_wire::message::{Action, Entry, HttpRespCallReq, Message, Stop};
use serde_json::Value;

/// Does to a request what its configuration says.
struct Puppet;

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(tag = "do", rename_all = "camelCase", deny_unknown_fields)]
enum Part {
    Nothing,
    Panic,
    Hang,
    AskAndHang,
    Stop { status: u16 },
    Edit,
    Echo { var: String },
    Body { limit: usize },
}

impl Plugin for Puppet {
    const NAME: &'static str = "puppet";
    type Config = Part;

    async fn on_request(&self, part: &Part, request: &mut Request<'_>) -> Flow {
        match part {
            Part::Nothing => Flow::Next,
            Part::Panic => panic!("a secret of the request"),
            Part::Hang => std::future::pending().await,
            Part::AskAndHang => {
                let _ = request.var("never_answered").await;
                std::future::pending().await
            }
            Part::Stop { status } => Flow::Stop(
                Reply::new(*status)
                    .with_header("Content-Length", "1")
                    .with_header("X-Mine", "yes"),
            ),
            Part::Edit => {
                request.set_header("X-Set", "1");
                request.set_header("x-set", "2");
                request.remove_header("X-Gone");
                request.set_arg("page", "2");
                request.set_path("/pinned path");
                request.set_resp_header("X-Back", "b");
                Flow::Next
            }
            Part::Echo { var } => {
                let value = request.var(var).await.unwrap();
                request.set_header("X-Var", value.unwrap_or_else(|| "absent".into()));
                Flow::Next
            }
            Part::Body { limit } => {
                let first = request
                    .body(*limit)
                    .await
                    .map_err(|error| error.to_string());
                let again = request
                    .body(*limit)
                    .await
                    .map_err(|error| error.to_string());
                assert_eq!(first, again);
                match first {
                    Ok(body) => request.set_header("X-Body", body.unwrap_or_default()),
                    Err(error) => request.set_header("X-Body-Error", error),
                }
                Flow::Next
            }
        }
    }

    async fn on_response(&self, part: &Part, response: &mut Response<'_>) -> Flow {
        if matches!(part, Part::Edit) {
            response.set_status(203);
            response.set_header("X-Up", "changed");
            response.remove_header("Set-Cookie");
        }
        Flow::Next
    }
}

fn gateway_with(config: &str) -> Gateway {
    let registry = Registry::new().with(Puppet);
    Gateway::serving(registry, &RunnerConfig::parse(config).unwrap()).unwrap()
}

async fn prepared(part: &str) -> (Gateway, u32) {
    let mut gateway = gateway_with("");
    let token = gateway
        .prepare("route#r#ext-plugin-pre-req#1", &[("puppet", part)])
        .await
        .unwrap();
    (gateway, token)
}

#[track_caller]
fn stop(message: Message) -> Stop {
    match message {
        Message::HttpReqCallResp {
            id: 7,
            action: Some(Action::Stop(stop)),
        } => stop,
        other => panic!("no stop but {other:?}"),
    }
}

fn header(headers: &[Entry], name: &str) -> Option<String> {
    let named = |entry: &&Entry| entry.name.eq_ignore_ascii_case(name.as_bytes());
    let value = headers.iter().find(named)?.value.clone();
    Some(String::from_utf8(value.unwrap_or_default()).unwrap())
}

#[track_caller]
fn error_code(stop: &Stop) -> String {
    let body: Value = serde_json::from_slice(stop.body.as_deref().unwrap()).unwrap();
    assert_eq!(
        header(&stop.headers, "content-type").unwrap(),
        "application/json"
    );
    let id = header(&stop.headers, "x-correlation-id").unwrap();
    assert_eq!(body["error"]["correlationId"], id.as_str());
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_chain_that_changes_nothing_has_no_action() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    for _ in 0..3 {
        let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
        assert_eq!(
            answer,
            Message::HttpReqCallResp {
                id: 7,
                action: None
            }
        );
    }
}

#[tokio::test]
async fn edits_go_back_once_and_the_last_word_on_a_name_wins() {
    let (mut gateway, token) = prepared(r#"{"do":"edit"}"#).await;
    let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
    let Message::HttpReqCallResp {
        action: Some(Action::Rewrite(rewrite)),
        ..
    } = answer
    else {
        panic!("no rewrite but {answer:?}");
    };
    assert_eq!(
        rewrite.headers,
        [Entry::new("x-set", "2"), Entry::bare("X-Gone")]
    );
    assert_eq!(rewrite.args, [Entry::new("page", "2")]);
    assert_eq!(rewrite.path.as_deref(), Some(b"/pinned path".as_slice()));
    assert_eq!(rewrite.resp_headers, [Entry::new("X-Back", "b")]);
}

#[tokio::test]
async fn what_the_gateway_would_trip_over_is_not_sent() {
    for (status, sent) in [(404, 404), (70, 500), (1000, 500), (0, 500), (204, 204)] {
        let (mut gateway, token) = prepared(&format!(r#"{{"do":"stop","status":{status}}}"#)).await;
        let stop = stop(gateway.call(token, &request("GET", "/")).await.unwrap());
        assert_eq!(stop.status, sent);
        assert_eq!(header(&stop.headers, "content-length"), None);
        assert_eq!(header(&stop.headers, "x-mine").as_deref(), Some("yes"));
        assert_eq!(
            stop.body.is_some(),
            sent >= 300,
            "{status}: a refusal has a body"
        );
    }
}

#[tokio::test]
async fn variables_and_bodies_are_round_trips() {
    let (mut gateway, token) = prepared(r#"{"do":"echo","var":"request_uri"}"#).await;
    let set = async |gateway: &mut Gateway, token, request, name: &str| match gateway
        .call(token, &request)
        .await
        .unwrap()
    {
        Message::HttpReqCallResp {
            action: Some(Action::Rewrite(r)),
            ..
        } => header(&r.headers, name),
        other => panic!("no rewrite but {other:?}"),
    };
    let with = request("GET", "/").var("request_uri", "/%2e/raw");
    assert_eq!(
        set(&mut gateway, token, with, "x-var").await.as_deref(),
        Some("/%2e/raw")
    );
    let without = request("GET", "/");
    assert_eq!(
        set(&mut gateway, token, without, "x-var").await.as_deref(),
        Some("absent")
    );

    let (mut gateway, token) = prepared(r#"{"do":"body","limit":100000}"#).await;
    let body = "x".repeat(100_000);
    let with = request("POST", "/").body(body.clone());
    assert_eq!(
        set(&mut gateway, token, with, "x-body").await,
        Some(body.clone())
    );
    let longer = request("POST", "/").body(body + "y");
    let error = set(&mut gateway, token, longer, "x-body-error").await;
    assert_eq!(error.as_deref(), Some("longer than 100000 bytes"));
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let (mut gateway, panics) = prepared(r#"{"do":"panic"}"#).await;
    let fine = gateway
        .prepare("k", &[("puppet", r#"{"do":"nothing"}"#)])
        .await
        .unwrap();
    for _ in 0..3 {
        let stop = stop(gateway.call(panics, &request("GET", "/")).await.unwrap());
        assert_eq!((stop.status, error_code(&stop).as_str()), (500, "INTERNAL"));
        assert!(!String::from_utf8_lossy(stop.body.as_deref().unwrap()).contains("secret"));
        let answer = gateway.call(fine, &request("GET", "/")).await.unwrap();
        assert_eq!(
            answer,
            Message::HttpReqCallResp {
                id: 7,
                action: None
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_has_a_deadline() {
    let (mut gateway, token) = prepared(r#"{"do":"hang"}"#).await;
    let began = tokio::time::Instant::now();
    let stop = stop(gateway.call(token, &request("GET", "/")).await.unwrap());
    assert_eq!(
        (stop.status, error_code(&stop).as_str()),
        (504, "BACKEND_UNAVAILABLE")
    );
    assert!(header(&stop.headers, "retry-after").is_some());
    assert!((10..11).contains(&began.elapsed().as_secs()));
    // The connection is as good as before.
    let fine = gateway
        .prepare("k", &[("puppet", r#"{"do":"nothing"}"#)])
        .await
        .unwrap();
    let answer = gateway.call(fine, &request("GET", "/")).await.unwrap();
    assert_eq!(
        answer,
        Message::HttpReqCallResp {
            id: 7,
            action: None
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_never_answered_ends_the_connection_after_the_answer() {
    let (mut gateway, token) = prepared(r#"{"do":"askAndHang"}"#).await;
    let frame = Message::HttpReqCallReq(postern_wire::message::HttpReqCallReq {
        id: 7,
        src_ip: vec![127, 0, 0, 1],
        method: postern_wire::Method::Get,
        path: b"/".to_vec(),
        args: vec![],
        headers: vec![],
        conf_token: token,
    });
    let question = gateway.exchange(&frame).await.unwrap();
    assert!(matches!(question, Message::ExtraInfoReq(_)), "{question:?}");
    let stop = stop(gateway.receive().await.unwrap().unwrap());
    assert_eq!(stop.status, 504);
    assert_eq!(
        gateway.receive().await.unwrap(),
        None,
        "out of step: closed"
    );
}

#[tokio::test]
async fn a_bad_configuration_closes_its_route_and_no_other() {
    let mut gateway = gateway_with("");
    for conf in [
        [("puppet", r#"{"do":"dance"}"#)].as_slice(),
        &[("puppet", "{")],
        &[("puppet", r#"{"do":"nothing"} more"#)],
        &[("puppett", "{}")],
        &[
            ("puppet", r#"{"do":"nothing"}"#),
            ("puppet", r#"{"do":"stop","status":"x"}"#),
        ],
    ] {
        let token = gateway.prepare("route#r#p#1", conf).await.unwrap();
        assert_ne!(token, 0);
        let call = request("GET", "/").header("X-Correlation-Id", "corr-abc-123");
        let stop = stop(gateway.call(token, &call).await.unwrap());
        assert_eq!(
            (stop.status, error_code(&stop).as_str()),
            (500, "GATEWAY_MISCONFIGURED")
        );
        assert_eq!(
            header(&stop.headers, "x-correlation-id").as_deref(),
            Some("corr-abc-123")
        );
    }
    let fine = gateway
        .prepare("k", &[("puppet", r#"{"do":"nothing"}"#)])
        .await
        .unwrap();
    let answer = gateway.call(fine, &request("GET", "/")).await.unwrap();
    assert_eq!(
        answer,
        Message::HttpReqCallResp {
            id: 7,
            action: None
        }
    );
}

#[tokio::test]
async fn a_conf_above_the_limit_is_a_misconfigured_route() {
    let mut gateway = gateway_with("limits: {confBytes: 100}");
    let long = format!(r#"{{"do":"nothing"}}{}"#, " ".repeat(100));
    let token = gateway.prepare("k", &[("puppet", &long)]).await.unwrap();
    let stop = stop(gateway.call(token, &request("GET", "/")).await.unwrap());
    assert_eq!(error_code(&stop), "GATEWAY_MISCONFIGURED");
}

#[tokio::test]
async fn the_same_conf_has_one_token_under_any_key() {
    let mut gateway = gateway_with("limits: {configurations: 2}");
    let conf = |status: u16| format!(r#"{{"do":"stop","status":{status}}}"#);
    let first = gateway
        .prepare("a", &[("puppet", &conf(400))])
        .await
        .unwrap();
    assert_eq!(
        gateway
            .prepare("b", &[("puppet", &conf(400))])
            .await
            .unwrap(),
        first
    );
    // Beyond the bound the one prepared longest ago is forgotten, and never mistaken.
    let (second, third) = (conf(401), conf(402));
    let second = gateway.prepare("c", &[("puppet", &second)]).await.unwrap();
    let third = gateway.prepare("d", &[("puppet", &third)]).await.unwrap();
    for (token, status) in [(second, 401), (third, 402)] {
        assert_eq!(
            stop(gateway.call(token, &request("GET", "/")).await.unwrap()).status,
            status
        );
    }
    let again = gateway
        .prepare("a", &[("puppet", &conf(400))])
        .await
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        stop(gateway.call(first, &request("GET", "/")).await.unwrap()).status,
        400
    );
}

#[tokio::test]
async fn an_unknown_token_is_said_so_and_the_connection_stays() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    for unknown in [0, token.wrapping_add(1)] {
        let answer = gateway.call(unknown, &request("GET", "/")).await.unwrap();
        assert_eq!(answer, Message::Err(ErrorCode::ConfTokenNotFound));
    }
    let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
    assert_eq!(
        answer,
        Message::HttpReqCallResp {
            id: 7,
            action: None
        }
    );
}

#[tokio::test]
async fn what_is_no_frame_is_answered_and_the_connection_closed() {
    let frame = |kind: u8, body: &[u8]| {
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind], &len[1..], body].concat()
    };
    for (name, bytes) in [
        ("an unknown type", frame(5, b"")),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a call without a buffer", frame(2, b"")),
        ("a call of one byte", frame(2, &[0])),
        ("a call that points outside", frame(2, &[0xff; 64])),
        ("a prepare without a buffer", frame(1, b"")),
        ("a prepare of noise", frame(1, &[0x7f; 33])),
        ("a response call of noise", frame(4, &[3; 16])),
        (
            "an error out of turn",
            Message::Err(ErrorCode::BadRequest).encode().unwrap(),
        ),
        (
            "an answer nobody asked for",
            Message::ExtraInfoResp { result: None }.encode().unwrap(),
        ),
    ] {
        let mut gateway = gateway_with("");
        gateway.send(&bytes).await.unwrap();
        let answer = gateway.receive().await.unwrap();
        assert_eq!(answer, Some(Message::Err(ErrorCode::BadRequest)), "{name}");
        assert_eq!(gateway.receive().await.unwrap(), None, "{name}: closed");
    }
}

#[tokio::test]
async fn an_answer_of_the_wrong_type_fails_the_call_only() {
    let (mut gateway, token) = prepared(r#"{"do":"body","limit":10}"#).await;
    let call = Message::HttpReqCallReq(postern_wire::message::HttpReqCallReq {
        id: 7,
        src_ip: vec![127, 0, 0, 1],
        method: postern_wire::Method::Post,
        path: b"/".to_vec(),
        args: vec![],
        headers: vec![],
        conf_token: token,
    });
    assert!(matches!(
        gateway.exchange(&call).await.unwrap(),
        Message::ExtraInfoReq(_)
    ));
    // A call in place of an answer: the runner cannot know what is meant any more.
    let answer = gateway.exchange(&call).await.unwrap();
    assert!(
        !matches!(answer, Message::HttpReqCallResp { action: None, .. }),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_connections_live_on() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
        assert_eq!(
            answer,
            Message::HttpReqCallResp {
                id: 7,
                action: None
            }
        );
    }
}

#[tokio::test]
async fn a_peer_that_trickles_is_cut_off() {
    let mut gateway = gateway_with("limits: {frameMs: 300}");
    let began = std::time::Instant::now();
    // A header that promises 16 MiB, then a byte every now and then.
    gateway.send(&[2, 0xff, 0xff, 0xff]).await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let answer = loop {
        tokio::select! {
            answer = gateway.receive() => break answer.unwrap(),
            _ = ticks.tick() => {}
        }
        // Fails once the runner has closed, which the next turn sees.
        let _ = gateway.send(&[0]).await;
    };
    assert_eq!(answer, Some(Message::Err(ErrorCode::BadRequest)));
    let took = began.elapsed().as_millis();
    assert!((300..3000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn an_upstreams_answer_keeps_what_the_chain_does_not_touch() {
    let (mut gateway, token) = prepared(r#"{"do":"edit"}"#).await;
    let call = HttpRespCallReq {
        id: 9,
        status: 200,
        headers: vec![
            Entry::new("X-Up", "up"),
            Entry::new("Set-Cookie", "a=1"),
            Entry::new("Set-Cookie", "b=2"),
            Entry::new("Content-Length", "11"),
            Entry::new("Cache-Control", "private"),
        ],
        conf_token: token,
    };
    let answer = gateway
        .exchange(&Message::HttpRespCallReq(call.clone()))
        .await
        .unwrap();
    let Message::HttpRespCallResp(answer) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((answer.id, answer.status), (9, 203));
    assert_eq!(
        answer.headers,
        [
            Entry::new("Cache-Control", "private"),
            Entry::new("X-Up", "changed")
        ]
    );
    let nothing = gateway
        .prepare("k", &[("puppet", r#"{"do":"nothing"}"#)])
        .await
        .unwrap();
    let call = HttpRespCallReq {
        conf_token: nothing,
        ..call
    };
    let answer = gateway
        .exchange(&Message::HttpRespCallReq(call))
        .await
        .unwrap();
    let Message::HttpRespCallResp(answer) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (answer.status, answer.headers.len(), answer.body),
        (0, 0, None),
        "as the upstream sent it"
    );
}

#[tokio::test]
async fn text_that_is_not_utf8_is_judged_like_any_other() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    let call = Message::HttpReqCallReq(postern_wire::message::HttpReqCallReq {
        id: 7,
        src_ip: vec![1, 2, 3],
        method: postern_wire::Method::Propfind,
        path: b"/\xff\xfe".to_vec(),
        args: vec![
            Entry::new(b"\x80".to_vec(), b"\x81".to_vec()),
            Entry::bare("bare"),
        ],
        headers: vec![Entry::new(b"x-\xff".to_vec(), b"\xc3\x28".to_vec())],
        conf_token: token,
    });
    let answer = gateway.exchange(&call).await.unwrap();
    assert_eq!(
        answer,
        Message::HttpReqCallResp {
            id: 7,
            action: None
        }
    );
}
