//! Frames and connections: what is no frame, comes slowly, or not at all.

use std::time::Duration;

use postern_runner::testkit::request;
use postern_wire::ErrorCode;
use postern_wire::message::{Entry, Message};

use super::{gateway_with, prepared, unchanged};

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
        assert_eq!(answer, unchanged());
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
    assert_eq!(answer, unchanged());
}
