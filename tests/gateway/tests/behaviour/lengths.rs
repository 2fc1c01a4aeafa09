//! A request's `Content-Length` after a runner has set or deleted it: nginx reads
//! by it what it has not read yet, and tells the upstream whatever it says.

use std::io::{Read as _, Write as _};

use postern_wire::message::{Entry, Info, Message, Rewrite};

use super::peers::{Gateway, PRE_REQ, Upstream, pass, read_until, rewrite};
use super::{OK, gateway};

const POST: &str =
    "POST /r/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
const CHUNKS: &str = "POST /r/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                      Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n";
const GET: &str = "GET /r/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

fn length(value: Option<&str>) -> Rewrite {
    let value = value.map(|value| value.as_bytes().to_vec());
    let name = Some(b"Content-Length".to_vec());
    Rewrite {
        headers: vec![Entry { name, value }],
        ..Rewrite::default()
    }
}

/// A gateway whose runner answers so, after it has asked for the body or at once.
fn rewriting(answer: Rewrite, asks: bool) -> (Upstream, Gateway, impl Drop) {
    let (folder, _runner, upstream, gateway) = gateway(PRE_REQ, move |message| match message {
        Message::HttpReqCallReq(_) if asks => Some(Message::ExtraInfoReq(Info::ReqBody)),
        Message::HttpReqCallReq(_) | Message::ExtraInfoResp { .. } => Some(rewrite(answer.clone())),
        other => pass(other),
    });
    (upstream, gateway, folder)
}

/// What the upstream is told of the length, and that it gets this body and no more.
#[track_caller]
fn forwarded(answer: Rewrite, asks: bool, request: &str, body: &str) -> Option<String> {
    let (upstream, gateway, _folder) = rewriting(answer, asks);
    let mut client = gateway.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut seen = upstream.accept();
    let head = read_until(&mut seen, "\r\n\r\n");
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    let mut got = vec![0; body.len()];
    seen.read_exact(&mut got).unwrap();
    seen.write_all(OK).unwrap();
    seen.read_to_end(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), body);
    assert!(read_until(&mut client, "ok").contains("X-Up: 1"));
    let told = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    told.map(str::to_owned)
}

/// The client waits for nginx, and nginx for the client.
#[track_caller]
fn never_answered(answer: Rewrite, request: &str) {
    let (upstream, gateway, _folder) = rewriting(answer, false);
    assert_eq!(gateway.exchange(request), "");
    assert!(upstream.is_quiet());
}

#[test]
fn a_length_set_ahead_of_the_body_is_what_is_read() {
    let told = forwarded(length(Some("3")), false, POST, "{\"a");
    assert_eq!(told.unwrap(), "3");
    let told = forwarded(length(Some("0")), false, POST, "");
    assert_eq!(told.unwrap(), "0");
    for deleted in [None, Some("")] {
        assert_eq!(forwarded(length(deleted), false, POST, ""), None);
    }
}

#[test]
fn a_length_set_ahead_of_a_shorter_body_is_waited_for() {
    never_answered(length(Some("5")), GET);
    never_answered(length(Some("8")), POST);
    // Headers are set before the old body is read and replaced.
    let replaced = Rewrite {
        body: Some(b"new body from runner".to_vec()),
        ..length(Some("20"))
    };
    never_answered(replaced.clone(), POST);
    let in_time = Rewrite {
        headers: length(Some("7")).headers,
        ..replaced
    };
    let told = forwarded(in_time, false, POST, "new body from runner");
    assert_eq!(told.unwrap(), "20");
}

#[test]
fn a_length_set_behind_the_body_is_believed() {
    let told = forwarded(length(Some("3")), true, POST, "{\"a\":1}");
    assert_eq!(told.unwrap(), "3");
    assert_eq!(forwarded(length(None), true, POST, "{\"a\":1}"), None);
    assert_eq!(forwarded(length(None), true, CHUNKS, "{\"a\":1}"), None);
    let told = forwarded(length(Some("5")), true, GET, "");
    assert_eq!(told.unwrap(), "5");
}

#[test]
fn chunks_are_counted_whatever_length_was_set() {
    let told = forwarded(length(Some("3")), false, CHUNKS, "{\"a\":1}");
    assert_eq!(told.unwrap(), "7");
}

/// What the client gets before and with the answer's first line.
fn told(answer: Rewrite, request: &str) -> String {
    let (upstream, gateway, _folder) = rewriting(answer, false);
    let mut client = gateway.connect();
    client.write_all(request.as_bytes()).unwrap();
    let mut seen = upstream.accept();
    let head = read_until(&mut seen, "\r\n\r\n");
    assert!(!head.contains("Expect"), "{head}");
    seen.write_all(OK).unwrap();
    read_until(&mut client, "200 OK\r\n")
}

#[test]
fn whoever_expects_to_be_told_is_told_even_without_a_body() {
    let expect = |entry| Rewrite {
        headers: vec![entry],
        ..Rewrite::default()
    };
    let waiting = GET.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let goes_on = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert_eq!(told(Rewrite::default(), &waiting), goes_on);
    // nginx goes by what Lua has made of the header.
    let set = expect(Entry::new("Expect", "100-Continue"));
    assert_eq!(told(set, GET), goes_on);
    let deleted = expect(Entry::bare("Expect"));
    assert_eq!(told(deleted, &waiting), "HTTP/1.1 200 OK\r\n");
}
