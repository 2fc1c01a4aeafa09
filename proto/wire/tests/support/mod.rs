//! What the tests of this crate share: the recorded frames, and messages by chance.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "test code; each test uses a part"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_wire::message::{
    Action, Entry, HttpReqCallReq, HttpRespCallReq, HttpRespCallResp, Info, Message,
    PrepareConfReq, Rewrite, Stop,
};
use postern_wire::{ErrorCode, Method, Side};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

/// A frame as it was recorded, with what an independent decoder read in it.
pub(crate) struct Recorded {
    pub(crate) exchange: String,
    pub(crate) from: Side,
    pub(crate) bytes: Vec<u8>,
    /// None where the frame was broken on purpose.
    pub(crate) decoded: Option<Value>,
}

/// Every recorded frame: of the file that `GOLDEN` names, or the repository's.
pub(crate) fn recorded() -> Vec<Recorded> {
    let file = std::env::var("GOLDEN").unwrap_or_else(|_| {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/golden/exchanges.json"
        )
        .to_owned()
    });
    let text = std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let recording: Value = serde_json::from_slice(&text).expect("JSON");
    let mut frames = Vec::new();
    for exchange in recording["exchanges"]
        .as_array()
        .expect("a list of exchanges")
    {
        for frame in exchange["frames"].as_array().expect("a list of frames") {
            frames.push(Recorded {
                exchange: exchange["name"].as_str().expect("a name").to_owned(),
                from: match frame["from"].as_str() {
                    Some("gateway") => Side::Gateway,
                    Some("runner") => Side::Runner,
                    other => panic!("a frame from {other:?}"),
                },
                bytes: STANDARD
                    .decode(frame["bytes"].as_str().expect("base64"))
                    .expect("base64"),
                decoded: Some(frame["decoded"].clone()).filter(|decoded| !decoded.is_null()),
            });
        }
    }
    frames
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

/// Entries of a call: each has a name.
fn named() -> impl Strategy<Value = Vec<Entry>> {
    entries(bytes().prop_map(Some))
}

/// Entries of an answer: some lack it.
fn answered() -> impl Strategy<Value = Vec<Entry>> {
    entries(option::weighted(0.9, bytes()))
}

fn entries(name: impl Strategy<Value = Option<Vec<u8>>>) -> impl Strategy<Value = Vec<Entry>> {
    let entry = (name, option::of(bytes())).prop_map(|(name, value)| Entry { name, value });
    vec(entry, 0..12)
}

fn action() -> impl Strategy<Value = Action> {
    let body = || option::of(bytes());
    prop_oneof![
        (any::<u16>(), answered(), body()).prop_map(|(status, headers, body)| Action::Stop(Stop {
            status,
            headers,
            body
        })),
        (body(), answered(), answered(), answered(), body()).prop_map(
            |(path, headers, args, resp_headers, body)| {
                Action::Rewrite(Rewrite {
                    path,
                    headers,
                    args,
                    resp_headers,
                    body,
                })
            }
        ),
        (3..=u8::MAX).prop_map(Action::Unknown),
    ]
}

fn request() -> impl Strategy<Value = Message> {
    let method = (0..Method::ALL.len()).prop_map(|index| *Method::ALL.get(index).unwrap());
    let start = (any::<u32>(), bytes(), method, bytes());
    (start, named(), named(), any::<u32>()).prop_map(
        |((id, src_ip, method, path), args, headers, conf_token)| {
            let call = HttpReqCallReq {
                id,
                src_ip,
                method,
                path,
                args,
                headers,
                conf_token,
            };
            Message::HttpReqCallReq(call)
        },
    )
}

/// Any message, with the side that sends it.
pub(crate) fn message() -> impl Strategy<Value = (Side, Message)> {
    let gateway = prop_oneof![
        (named(), bytes())
            .prop_map(|(conf, key)| Message::PrepareConfReq(PrepareConfReq { conf, key })),
        request(),
        option::of(bytes()).prop_map(|result| Message::ExtraInfoResp { result }),
        (any::<u32>(), any::<u16>(), named(), any::<u32>()).prop_map(
            |(id, status, headers, conf_token)| {
                Message::HttpRespCallReq(HttpRespCallReq {
                    id,
                    status,
                    headers,
                    conf_token,
                })
            }
        ),
    ];
    let code = prop_oneof![
        Just(ErrorCode::BadRequest),
        Just(ErrorCode::ServiceUnavailable),
        Just(ErrorCode::ConfTokenNotFound),
    ];
    let info = prop_oneof![
        option::weighted(0.9, bytes()).prop_map(Info::Var),
        (1..=3_u8).prop_map(Info::Bare),
        Just(Info::ReqBody),
        Just(Info::RespBody),
        prop_oneof![Just(0), 4..=u8::MAX].prop_map(Info::Unknown),
    ];
    let runner = prop_oneof![
        code.prop_map(Message::Err),
        any::<u32>().prop_map(|conf_token| Message::PrepareConfResp { conf_token }),
        (any::<u32>(), option::of(action()))
            .prop_map(|(id, action)| Message::HttpReqCallResp { id, action }),
        info.prop_map(Message::ExtraInfoReq),
        (any::<u32>(), any::<u16>(), answered(), option::of(bytes())).prop_map(
            |(id, status, headers, body)| {
                Message::HttpRespCallResp(HttpRespCallResp {
                    id,
                    status,
                    headers,
                    body,
                })
            }
        ),
    ];
    prop_oneof![
        gateway.prop_map(|message| (Side::Gateway, message)),
        runner.prop_map(|message| (Side::Runner, message)),
    ]
}
