//! What a runner gets wrong, and what APISIX makes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use postern_wire::ErrorCode;
use postern_wire::message::{Action, Entry, Info, Message, Rewrite, Stop};

use super::peers::{PRE_REQ, pass, rewrite};
use super::{OK, gateway};

/// Degradation does not help where Lua throws.
const DEGRADED: &str =
    "ext-plugin-pre-req: {allow_degradation: true, conf: [{name: a, value: '{}'}]}";

fn nameless(value: &str) -> Entry {
    Entry {
        name: None,
        value: Some(value.as_bytes().to_vec()),
    }
}

/// The answer to a request whose runner says this.
fn answered(says: Message) -> (String, bool) {
    let (_folder, _runner, upstream, gateway) = gateway(DEGRADED, move |message| match message {
        Message::HttpReqCallReq(_) => Some(says.clone()),
        other => pass(other),
    });
    let answer = gateway.get("/r/1", "");
    (answer, upstream.is_quiet())
}

#[test]
fn a_name_that_is_not_there_makes_lua_throw_when_its_turn_comes() {
    let stop = Message::HttpReqCallResp {
        id: 0,
        action: Some(Action::Stop(Stop {
            status: 200,
            headers: vec![
                Entry::new("X-A", "1"),
                nameless("2"),
                Entry::new("X-B", "3"),
            ],
            body: Some(b"body".to_vec()),
        })),
    };
    let (answer, quiet) = answered(stop);
    assert!(answer.starts_with("HTTP/1.1 500 ") && quiet, "{answer}");
    // What was set before is not taken back.
    assert!(answer.contains("x-a: 1\r\n"), "{answer}");
    assert!(!answer.contains("x-b"), "{answer}");
    let entries = vec![nameless("2")];
    let none = Rewrite::default();
    for broken in [
        Rewrite {
            headers: entries.clone(),
            ..none.clone()
        },
        Rewrite {
            args: entries.clone(),
            ..none.clone()
        },
        Rewrite {
            args: vec![Entry {
                name: None,
                value: None,
            }],
            ..none.clone()
        },
        Rewrite {
            resp_headers: entries,
            ..none
        },
    ] {
        let (answer, quiet) = answered(rewrite(broken));
        assert!(answer.starts_with("HTTP/1.1 500 ") && quiet, "{answer}");
    }
}

#[test]
fn a_header_with_an_empty_name_is_not_sent() {
    let (answer, _) = answered(super::stop(200, &[("", "1"), ("X-A", "2")], "body"));
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nx-a: 2\r\n"), "{answer}");
    assert!(!answer.contains("\r\n: "), "{answer}");
}

#[test]
fn a_question_without_what_it_is_about_makes_lua_throw() {
    for broken in [Info::Var(None), Info::Bare(1), Info::Bare(2)] {
        let (answer, quiet) = answered(Message::ExtraInfoReq(broken));
        assert!(answer.starts_with("HTTP/1.1 500 ") && quiet, "{answer}");
    }
    // Nobody looks at this one where there is no response.
    let (_folder, runner, _upstream, gateway) = gateway(PRE_REQ, |message| match message {
        Message::HttpReqCallReq(_) => Some(Message::ExtraInfoReq(Info::Bare(3))),
        Message::ExtraInfoResp { .. } => Some(super::stop(200, &[], "ok")),
        other => pass(other),
    });
    assert!(gateway.get("/r/1", "").starts_with("HTTP/1.1 200 "));
    let nothing = Message::ExtraInfoResp { result: None };
    assert!(runner.asked().contains(&nothing));
}

#[test]
fn an_unknown_token_is_prepared_again_and_tried_three_times() {
    let tokens = AtomicU32::new(0);
    let (_folder, runner, upstream, gateway) = gateway(PRE_REQ, move |message| match message {
        Message::PrepareConfReq(_) => {
            let conf_token = tokens.fetch_add(1, Ordering::Relaxed) + 1;
            Some(Message::PrepareConfResp { conf_token })
        }
        _ => Some(Message::Err(ErrorCode::ConfTokenNotFound)),
    });
    assert!(gateway.get("/r/1", "").starts_with("HTTP/1.1 503 "));
    let asked: Vec<Option<u32>> = runner
        .asked()
        .iter()
        .map(|message| match message {
            Message::HttpReqCallReq(call) => Some(call.conf_token),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [None, Some(1), None, Some(2), None, Some(3)]);
    assert!(upstream.is_quiet());
}

#[test]
fn an_error_in_place_of_a_token_is_not_asked_about_again() {
    let (_folder, runner, upstream, gateway) = gateway(PRE_REQ, |_| {
        Some(Message::Err(ErrorCode::ServiceUnavailable))
    });
    assert!(gateway.get("/r/1", "").starts_with("HTTP/1.1 503 "));
    assert_eq!(runner.asked().len(), 1);
    assert!(upstream.is_quiet());
}

#[test]
fn the_clients_address_is_the_last_of_a_list() {
    for (header, address) in [
        ("1.2.3.4, 5.6.7.8", [5, 6, 7, 8]),
        ("1.2.3.4,5.6.7.8 , ", [5, 6, 7, 8]),
        ("5.6.7.8:90", [5, 6, 7, 8]),
        ("1.2.3.4, me", [127, 0, 0, 1]),
        (",5.6.7.8", [127, 0, 0, 1]),
    ] {
        let (_folder, runner, _upstream, gateway) = gateway(PRE_REQ, |message| match message {
            Message::HttpReqCallReq(_) => Some(super::stop(200, &[], "ok")),
            other => pass(other),
        });
        gateway.get("/r/1", &format!("X-Real-IP: {header}\r\n"));
        let call = |message| match message {
            Message::HttpReqCallReq(call) => Some(call.src_ip),
            _ => None,
        };
        let src_ip = runner.asked().into_iter().find_map(call);
        assert_eq!(src_ip.unwrap(), address, "{header}");
    }
}

#[test]
fn post_resp_knows_where_the_answer_came_from() {
    let plugin = "ext-plugin-post-resp: {conf: [{name: a, value: '{}'}]}";
    let (_folder, runner, upstream, gateway) = gateway(plugin, |message| match message {
        Message::HttpRespCallReq(_) => Some(Message::ExtraInfoReq(Info::Var(Some(
            b"balancer_port".to_vec(),
        )))),
        Message::ExtraInfoResp { .. } => Some(Message::HttpRespCallResp(Default::default())),
        other => pass(other),
    });
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| gateway.get("/r/1", ""));
        let mut seen = upstream.accept();
        super::read_until(&mut seen, "\r\n\r\n");
        std::io::Write::write_all(&mut seen, OK).unwrap();
        assert!(answer.join().unwrap().starts_with("HTTP/1.1 200 "));
    });
    let result = Some(upstream.port.to_string().into_bytes());
    assert!(runner.asked().contains(&Message::ExtraInfoResp { result }));
}
