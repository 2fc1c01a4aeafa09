//! What a chain says of a request or an answer, as it goes over the wire.

use std::time::Duration;

use postern_runner::testkit::{Gateway, request};
use postern_wire::message::{Action, Entry, HttpRespCallReq, Message};

use super::{error_code, gateway_with, header, prepared, stop, unchanged};

#[tokio::test]
async fn a_chain_that_changes_nothing_has_no_action() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    for _ in 0..3 {
        let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
        assert_eq!(answer, unchanged());
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
        assert_eq!(answer, unchanged());
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
    assert_eq!(answer, unchanged());
}

#[tokio::test(start_paused = true)]
async fn when_too_many_wait_the_next_is_refused_at_once() {
    let mut first = gateway_with("limits: {waiting: 1}");
    let conf = |part| [("puppet", part)];
    let waits = first.prepare("waits", &conf(r#"{"do":"hang"}"#)).await;
    let fine = first.prepare("fine", &conf(r#"{"do":"nothing"}"#)).await;
    let (waits, fine) = (waits.unwrap(), fine.unwrap());
    let mut second = first.beside().unwrap();
    let long = tokio::spawn(async move { first.call(waits, &request("GET", "/")).await });
    // Time stands still here until nobody has anything to do: the first one waits by then.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = tokio::time::Instant::now();
    let shed = stop(second.call(waits, &request("GET", "/")).await.unwrap());
    assert_eq!(
        (shed.status, error_code(&shed).as_str()),
        (503, "BACKEND_UNAVAILABLE")
    );
    assert_eq!(header(&shed.headers, "retry-after").as_deref(), Some("1"));
    assert!(began.elapsed().as_secs() < 1, "{:?}", began.elapsed());
    // What takes no waiting is judged all the same.
    let answer = second.call(fine, &request("GET", "/")).await.unwrap();
    assert_eq!(answer, unchanged());
    // The place is free again once its holder is through.
    assert_eq!(stop(long.await.unwrap().unwrap()).status, 504);
    let next = stop(second.call(waits, &request("GET", "/")).await.unwrap());
    assert_eq!(next.status, 504);
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
